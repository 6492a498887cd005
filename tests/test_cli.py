"""The command as a process: its flags, its exit codes, what it loads, and runs of many values."""

import csv
import json
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
import yaml

from cvtrain.compose import compose
from cvtrain.ending import exit_code_of
from tests.pages.sweeps_for_tests import tables_of, text_of

SAYS_WHAT_WAS_LOADED = """
import sys
from cvtrain.cli import main
try:
    main(sys.argv[1:])
finally:
    heavy = {"torch", "torchvision", "timm", "matplotlib", "scipy", "PIL", "numpy", "rich", "tqdm"} & set(sys.modules)
    print("LOADED", sorted(heavy))
"""


def runs_below(folder: Path) -> list[dict]:
    return [json.loads(path.read_text()) for path in sorted(folder.rglob("run.json"))]


# ----------------------------------------------------------------------------------------------------- quick flags


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("--help", 0),
        ("-h", 0),
        ("--version", 0),
        ("--cfg job model=vgg16", 0),
        ("optimizer.lrr=1", 2),
        ("model=vgg61 optimizer.lr=x trainer.device=gpu", 2),
        ("--epochs 3", 2),
        ("resume=nowhere", 4),
        ("-sc install=bash", 0),
        ("--multirun optimizer.lrr=1,2", 2),
    ],
)
def test_help_versions_configs_and_mistakes_load_no_torch(words, code, process):
    result = process(*words.split(), program=("-c", SAYS_WHAT_WAS_LOADED))
    assert result.code == code, result.errors
    assert result.out.splitlines()[-1] == "LOADED []"


def test_module_and_console_script_are_the_same_command(process):
    script = Path(sys.executable).with_name("cvtrain")
    by_module = process("--help")
    assert by_module.code == 0
    assert by_module.errors == []
    if not script.exists():
        pytest.skip("the console script is not installed beside this Python")
    by_script = subprocess.run([script, "--help"], capture_output=True, text=True, timeout=60)
    assert (by_script.returncode, by_script.stdout) == (0, by_module.out)


def test_version_names_what_results_depend_on(command):
    result = command("--version")
    assert [word for word in ("cvtrain", "python", "torch", "torchvision") if word not in result.out] == []


def test_shell_completion_offers_options(process):
    script = process("-sc", "install=bash")
    assert script.code == 0
    assert "complete " in script.out
    asked = process("-sc", "query=bash", COMP_LINE="cvtrain model=vgg1")
    assert {"model=vgg11", "model=vgg16_bn"} <= set(asked.out.split())


# -------------------------------------------------------------------------------------------------------- --cfg job


@pytest.mark.parametrize(
    "words",
    [
        "",
        "experiment=smoke model=vgg11_bn data=cifar10 optimizer.lr=0.3 augment=mixup name=x",
        "task=summary model=timm model.kwargs={drop_rate:0.1}",
        "trainer.early_stopping.patience=3 trainer.steps=9 loss=focal loss.class_weights=[1,2] seed=4",
    ],
)
def test_printed_config_composes_to_the_same_again(words, command):
    printed = command("--cfg", "job", *words.split())
    assert printed.code == 0, printed.errors
    Path("own").mkdir()
    Path("own/again.yaml").write_text(printed.out)
    ours = compose(words.split())
    again = compose(["--config-dir=own", "--config-name=again"])
    assert {k: v for k, v in again.items() if k not in ("typed", "choices")} == {
        k: v for k, v in ours.items() if k not in ("typed", "choices")
    }
    assert command("--cfg=job", "--config-dir=own", "--config-name=again").out == printed.out


def test_printed_config_masks_secrets(command):
    printed = command("--cfg", "job", "data=cifar10", "data.mirror=https://me:word@host/x")
    assert yaml.safe_load(printed.out)["data"]["mirror"] == "https://***@host/x"


# --------------------------------------------------------------------------------------------------------- multirun


def test_multirun_trains_each_value_in_a_folder_of_its_own(command):
    result = command("-m", "experiment=smoke", "model=linear,mlp", "++optimizer.lr=0.1", "seed=1")
    assert result.code == 0, result.errors
    cards = runs_below(Path("outputs"))
    assert sorted(card["model"] for card in cards) == ["linear", "mlp"]
    assert {card["seed"] for card in cards} == {1}
    assert "job 2 of 2: model=mlp\n" in result.out
    assert re.search(r"job 2 of 2: model=mlp: validation [\d.]+ %  test [\d.]+ %  [\d.]+ s\n", result.out)
    assert "2 of 2 jobs done" in result.out
    assert [path.name for path in Path.cwd().iterdir()] == ["outputs"]


def test_multirun_ends_in_a_leaderboard_a_comparison_and_a_plot(command):
    words = ("-m", "experiment=smoke", "optimizer=sgd,adam", "optimizer.lr=0.01,1e30", "seed=0,1", "model=linear")
    result = command(*words, "name=grid")
    assert result.code == 1  # lr=1e30 diverges
    (sweep,) = Path("outputs/sweeps").iterdir()
    assert sweep.name.endswith("-grid")
    with open(sweep / "leaderboard.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert {(row["optimizer"], row["optimizer.lr"]) for row in rows if row["status"] == "failed"} >= {("sgd", "1e+30")}
    done = [row for row in rows if row["status"] == "done"]
    assert len(done) >= 4
    for row in done:
        card = json.loads((Path(row["run"]) / "run.json").read_text())
        assert float(row["test_accuracy"]) == pytest.approx(card["test"]["accuracy"])
    assert "no winner named" in result.out
    assert (sweep / "plots" / "lr_grid.png").read_bytes().startswith(b"\x89PNG")
    assert f"report   {sweep / 'report.html'}" in result.out
    head, *shown = tables_of(sweep / "report.html")["leaderboard"]
    assert [row[head.index("status")] for row in shown] == [row["status"] for row in rows]
    figures = sorted(f"{100 * float(row['test_accuracy']):.1f} %" for row in done)
    assert sorted(row[head.index("test")] for row in shown[: len(done)]) == figures
    assert text_of(sweep / "report.html").count("exit code 5: diverged") == 8 - len(done)


@pytest.mark.long
def test_multirun_of_a_task_without_run_folders_has_no_failed_jobs(command):
    result = command("-m", "task=summary", "model=linear,mlp")
    assert result.code == 0, result.errors
    (path,) = Path("outputs/sweeps").glob("*/leaderboard.csv")
    assert result.out.endswith(f"2 of 2 jobs done\nresults  {path}\nreport   {path.with_name('report.html')}\n")
    assert result.out.count("Linear") >= 2, "what a task prints is seen"
    with open(path, newline="") as file:
        assert [(row["model"], row["status"]) for row in csv.DictReader(file)] == [("linear", "done"), ("mlp", "done")]


@pytest.mark.parametrize("key", ["name", "output_dir"])
def test_multirun_has_one_name_and_one_folder(command, key):
    result = command("-m", "experiment=smoke", "model=linear", f"{key}=a,b")
    assert result.code == 2
    assert result.errors == [f"error: {key}: one multirun has one {key}, for all its jobs"]
    assert list(Path.cwd().iterdir()) == []


@pytest.mark.parametrize("word", ["experiment=null", "~experiment"])
def test_no_experiment_can_be_typed(command, word):
    plain = command("--cfg", "job", "data=spiral")
    assert command("--cfg", "job", "data=spiral", word).out == plain.out


def test_single_run_of_an_experiment_tells_what_multirun_would_run(command):
    words = ("experiment=spiral", "data.per_class=10", "trainer.steps=1")
    said = "--multirun runs all (model.activation=none,relu, optimizer=sgd,adam, seed=range(0,10))"
    assert said in command(*words).out
    assert "--multirun runs all (model.activation=none,relu)" in command(*words, "seed=1", "optimizer=sgd").out
    assert "--multirun" not in command(*words, "seed=1", "optimizer=sgd", "model.activation=none").out


@pytest.mark.long
def test_same_settings_twice_in_a_multirun_are_run_once(command):
    result = command("-m", "experiment=smoke", "model=linear", "optimizer.lr=0.1,1e-1")
    assert result.code == 0
    assert "1 job; writes to" in result.out
    assert len(runs_below(Path("outputs"))) == 1
    (leaderboard,) = Path("outputs/sweeps").glob("*/leaderboard.csv")
    assert len(leaderboard.read_text().splitlines()) == 2


@pytest.mark.parametrize("launcher", ["isolated", "basic"])
def test_multirun_goes_on_after_a_failed_job_and_ends_with_1(launcher, command):
    words = ("experiment=smoke", "model=linear", "optimizer.lr=1e30,0.01", f"hydra/launcher={launcher}", "sweep.name=a")
    result = command("--multirun", *words)
    assert result.code == 1
    assert sorted(card["status"] for card in runs_below(Path("outputs"))) == ["done", "failed"]
    assert (
        "job 1 of 2: optimizer.lr=1e+30: diverged: the weight head.weight is not a finite number" in result.errors[-2]
    )
    assert result.errors[-1] == "  once more: cvtrain resume=outputs/sweeps/a"
    assert "1 of 2 jobs done" in result.out


def test_settings_of_a_multirun_are_refused_in_a_single_run(command):
    result = command("experiment=smoke", "sweep.jobs=2", "sweep.name=a")
    assert result.code == 2
    told = ["error: sweep.jobs works with --multirun only", "  sweep.name works with --multirun only"]
    assert result.errors == told
    assert list(Path.cwd().iterdir()) == []


def test_sweep_is_continued_by_its_folder_and_takes_no_other_settings(command):
    words = ("experiment=smoke", "model=linear", "seed=1,2", "hydra/launcher=basic", "sweep.name=a")
    assert command("-m", *words).code == 0
    result = command("resume=outputs/sweeps/a", "sweep.retry_failed=false")
    assert result.code == 0, result.errors
    assert "2 jobs, 2 of them done already; writes to outputs/sweeps/a" in result.out
    result = command("resume=outputs/sweeps/a", "seed=3")
    assert result.code == 2
    assert "seed=3: resume= of a sweep takes settings of sweep alone" in result.errors[0]
    assert "sweep.name=a" in result.errors[1]


def test_job_of_a_sweep_is_continued_but_not_changed(command):
    words = ("experiment=smoke", "model=linear", "seed=1,2", "hydra/launcher=basic", "sweep.name=a")
    assert command("-m", *words).code == 0
    job = next(Path("outputs/sweeps/a").glob("*/run.json")).parent
    assert "this run is finished" in command(f"resume={job}").out
    result = command(f"resume={job}", "trainer.steps=8")
    assert result.code == 2
    assert "is a job of a sweep, which is known by its settings" in result.errors[0]
    assert "continue it as it is: cvtrain resume=" in result.errors[1]


def test_sweep_with_a_secret_is_continued_by_its_command_alone(command):
    secret = "++data.mirror='https://me:word@host/x'"
    words = ("experiment=smoke", "model=linear", "seed=1,2", secret, "data=mnist", "sweep.name=a")
    assert command("-m", *words, "data.download=false", "hydra/launcher=basic").code == 1
    result = command("resume=outputs/sweeps/a")
    assert result.code == 2
    assert "was begun with a password or a key" in result.errors[0]


def test_multirun_with_a_wrong_value_starts_no_job(command):
    result = command("--multirun", "experiment=smoke", "model=linear,vgg61", "optimizer.lr=0.1,-1", "sead=1")
    assert result.code == 2
    told = "\n".join(result.errors)
    assert "model=vgg61" in told
    assert "optimizer.lr=-1" in told
    assert told.count("did you mean seed?") == 1
    assert list(Path.cwd().iterdir()) == []


def test_multirun_finds_options_and_launchers_of_the_user(command):
    Path("own/model").mkdir(parents=True)
    Path("own/model/mine.yaml").write_text("defaults: [mlp, _self_]\nhidden: [3]\n")
    words = ("experiment=smoke", "model=mine,linear", "hydra/launcher=basic", "--config-dir", "own")
    result = command("--multirun", *words)
    assert result.code == 0, result.errors
    assert sorted(card["model"] for card in runs_below(Path("outputs"))) == ["linear", "mine"]
    result = command("--multirun", "hydra/launcher=none", "seed=1")
    assert result.code == 2
    assert result.errors[0].startswith("error: unknown option hydra/launcher=none: There are basic, isolated")


def test_launcher_may_be_chosen_by_a_root_config_of_the_user(command):
    Path("own").mkdir()
    Path("own/mine.yaml").write_text("defaults: [config, {override hydra/launcher: basic}, _self_]\n")
    words = ("--config-dir", "own", "--config-name", "mine", "experiment=smoke", "model=linear", "seed=1,2")
    result = command("--multirun", *words, "sweep.jobs=2")
    assert result.code == 2
    assert "sweep.jobs is for hydra/launcher=isolated; basic has" in result.errors[0]


@pytest.mark.long
def test_multirun_keeps_secrets_out_of_files(command):
    words = ("experiment=smoke", "model=linear", "seed=1,2", "++data.mirror='https://me:word@host/x'", "data=mnist")
    assert command("-m", *words, "data.download=false").code == 1
    assert not [path for path in Path.cwd().rglob("*") if path.is_file() and b"me:word" in path.read_bytes()]


# ------------------------------------------------------------------------------------------------- ends of processes


def test_reader_that_goes_away_is_no_error(tmp_path):
    command = f"{sys.executable} -m cvtrain --help | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_internal_error_leaves_its_traceback_in_a_file(command, monkeypatch):
    import cvtrain.tasks.summary

    def broken(config):
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(cvtrain.tasks.summary, "run", broken)
    result = command("task=summary")
    assert result.code == 1
    assert result.errors[0] == "error: internal error: RuntimeError: first line"
    path = Path(result.errors[1].rpartition(" ")[2])
    assert "second line" in path.read_text()
    path.unlink()


def test_signal_before_training_ends_with_128_and_its_number(tmp_path):
    code = "import os, signal\nfrom cvtrain import cli\n"
    code += "print(cli.exit_code_of(lambda: os.kill(os.getpid(), signal.SIGTERM)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.stdout.strip() == str(128 + signal.SIGTERM)
    assert done.stderr.startswith("error: stopped by signal 15")
    assert len(done.stderr.splitlines()) <= 6


# ---------------------------------------------------------------------------------------------------- smoke


@pytest.mark.parametrize(
    ("model", "loss"),
    [("lenet", "cross_entropy"), pytest.param("resnet18", "squentropy", marks=pytest.mark.long)],
)
def test_smoke_runs_whole_in_a_process(model, loss, process, tmp_path):
    result = process("experiment=smoke", f"model={model}", f"loss={loss}")
    assert result.code == 0, result.errors
    assert result.errors == []
    (card,) = runs_below(tmp_path)
    assert (card["status"], card["steps"], card["stop_reason"]) == ("done", 4, "finished")


def test_machine_without_room_for_temporary_files_is_told_what_to_do(capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc"])  # where no file can be made
    assert exit_code_of(tempfile.gettempdir) == 4
    first, hint = capsys.readouterr().err.splitlines()
    assert first == "error: no folder for temporary files can be written, and torch cannot be loaded without one"
    assert "TMPDIR=FOLDER" in hint


def test_lack_of_memory_anywhere_is_exit_code_6(capsys):
    def allocate():
        torch.empty(2**60)

    assert exit_code_of(allocate) == 6
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "error: out of memory"
    assert "trainer.batch_size" in lines[1]
