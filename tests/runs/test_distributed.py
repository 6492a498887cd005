"""Whole runs that several processes work on: what they leave, how they end, what the user sees."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from cvtrain.config import config_hash
from cvtrain.engine.checkpoint import list_checkpoints, read_checkpoint
from cvtrain.outputs import RunDir

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from copies_for_tests import Copies
from ranks_for_tests import free_port, launcher_environment

STEPS = 26
SETTINGS = [
    *("data=synthetic", "data.num_classes=4", "data.per_class=60", "data.image_size=16", "data.val_fraction=0.2"),
    *("augment=mixup", "augment.crop_padding=2", "model=block_cnn", "model.widths=[8,16]", "trainer.precision=fp32"),
    *("optimizer=momentum", "optimizer.lr=0.01", "scheduler=plateau", "scheduler.patience=1", "scheduler.gamma=0.5"),
    *("trainer.batch_size=34", "trainer.accumulate=2", "trainer.grad_clip=1", "trainer.ema=0.9"),
    *("trainer.early_stopping.patience=30", f"trainer.steps={STEPS}", "trainer.evaluate_every=7", "output_dir=out"),
    *("trainer.checkpoint.every_minutes=1e-9", "trainer.checkpoint.keep=100"),
]
"""In batches of 34, 34, 34, 34, 34 and 22, each in two parts."""
SHARED = ["trainer=ddp"]

# Imports all that a run imports.
PREPARE = f"""
import contextlib, io
with contextlib.redirect_stdout(io.StringIO()):
    cli.run({[*SETTINGS, "trainer.steps=1"]!r})
"""


class Launcher(Copies):
    """Starts the processes of a run in the environment of any launcher."""

    @contextmanager
    def start(self, words, *, cwd, size=2):
        """Starts processes; yields their ids and what waits for their end."""
        ours, port = {**os.environ, "OMP_NUM_THREADS": "1"}, free_port()
        environments = [ours | launcher_environment(rank, size, port) if size > 1 else ours for rank in range(size)]
        with super().start(words, cwd=cwd, environments=environments) as started:
            yield started

    def __call__(self, words, *, cwd, size=2):
        """Runs a command line to its end."""
        with self.start(words, cwd=cwd, size=size) as (_, wait):
            return wait()


@pytest.fixture(scope="module")
def launch(tmp_path_factory):
    """Runs a command line in several processes: `launch(words, cwd=..., size=2)`."""
    launcher = Launcher(tmp_path_factory.mktemp("launcher"), prepare=PREPARE)
    yield launcher
    launcher.close()


@pytest.fixture(scope="module")
def finished(launch, tmp_path_factory):
    """Uninterrupted runs of so many processes, each made once: `finished(size)` gives how it ended and where."""
    made: dict = {}

    def finish(size):
        if size not in made:
            cwd = tmp_path_factory.mktemp(f"finished{size}")
            ended = launch([*SETTINGS, *SHARED[: size - 1]], cwd=cwd, size=size)
            assert ended.codes == [0] * size, ended.errors
            made[size] = ended, next(cwd.glob("out/train/*/*"))
        return made[size]

    return finish


def rows(run):
    with open(run / "metrics.csv", encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    return [{k: float(v) for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in found]


def newest(run):
    return read_checkpoint(list_checkpoints(run / "checkpoints", "step")[-1].path)


def assert_same_run(ours, theirs):
    """Equal to the order of sums, which 26 steps of float32 magnify little at this learning rate."""
    assert [r["step"] for r in rows(ours)] == [r["step"] for r in rows(theirs)]
    for a, b in zip(rows(ours), rows(theirs), strict=True):
        assert a == pytest.approx(b, rel=2e-4, abs=2e-5)
    states = [newest(run)["trainer"] for run in (ours, theirs)]
    assert states[0]["schedule"] == pytest.approx(states[1]["schedule"], rel=1e-4)
    assert list(states[0]["model"]) == list(states[1]["model"])
    for key, tensor in states[1]["model"].items():
        torch.testing.assert_close(states[0]["model"][key], tensor, rtol=1e-3, atol=1e-4)
    tables = [csv.DictReader((run / "predictions.csv").read_text().splitlines()) for run in (ours, theirs)]
    for a, b in zip(*tables, strict=True):
        assert (a["image"], a["label"]) == (b["image"], b["label"])
        assert float(a["probability"]) == pytest.approx(float(b["probability"]), abs=1e-3)


def files(run):
    return {str(path.relative_to(run)).partition("-")[0] for path in run.rglob("*")}


def wait_for_evaluation(cwd, *, seconds=60):
    """Waits until a first evaluation is saved."""
    end = time.monotonic() + seconds
    while not list(cwd.glob("out/train/*/*/checkpoints/best-*")):
        assert time.monotonic() < end, [path.read_text() for path in cwd.glob("stderr*.txt")]
        time.sleep(0.01)


def assert_others_silent(ended):
    assert set(ended.out[1:] + ended.errors[1:]) == {""}


def assert_short(words):
    assert 0 < len(words.splitlines()) <= 6
    assert "Traceback" not in words


# ------------------------------------------------------------------------------------------ what a run leaves


@pytest.mark.parametrize("size", [2, pytest.param(3, marks=pytest.mark.long)])
def test_run_of_several_processes_equals_that_of_one(size, finished, read_card):
    (ended, run), (_, alone) = finished(size), finished(1)
    assert_others_silent(ended)
    assert f"; {size} processes" in ended.out[0]
    assert_same_run(run, alone)
    assert files(run) == files(alone)
    card, expected = read_card(run), read_card(alone)
    assert (card["num_processes"], expected["num_processes"]) == (size, 1)
    assert card.keys() == expected.keys()
    assert card["test"]["confusion_matrix"] == expected["test"]["confusion_matrix"]


def killed_at(run, step, folder):
    """A copy of a run as it was when its process was killed after a step."""
    shutil.copytree(run, folder)
    for file in list_checkpoints(folder / "checkpoints", "step"):
        if file.step > step:
            file.path.unlink()
    RunDir(folder).write_card(RunDir(folder).read_card() | {"status": "running"})
    (folder / "predictions.csv").unlink()
    return folder


@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_run_goes_on_in_another_number_of_processes(before, after, launch, finished, tmp_path):
    run = killed_at(finished(before)[1], 9, tmp_path / "run")
    words = SHARED if after > 1 else ["trainer.distributed=false"]
    ended = launch([f"resume={run}", *words], cwd=tmp_path, size=after)
    assert ended.codes == [0] * after, ended.errors
    assert f"goes on after step 9 of {STEPS}" in ended.out[0]
    assert_same_run(run, finished(1)[1])


def test_model_of_several_processes_is_used_by_one(launch, finished, tmp_path, read_card):
    run = finished(2)[1]
    ended = launch(["task=evaluate", f"checkpoint={run}", "split=test", "output_dir=out"], cwd=tmp_path, size=1)
    assert ended.codes == [0], ended.errors
    (evaluated,) = tmp_path.glob("out/evaluate/*/*")
    assert read_card(evaluated)["test"]["loss"] == pytest.approx(read_card(run)["test"]["loss"], rel=1e-5)


def test_run_of_several_processes_goes_on_in_one_only_if_that_is_typed(launch, finished, tmp_path):
    run = finished(2)[1]
    ended = launch([f"resume={run}"], cwd=tmp_path, size=1)
    assert ended.codes == [2]
    assert f"torchrun --nproc-per-node 2 -m cvtrain resume={run}" in ended.errors[0]
    assert "trainer.distributed=false" in ended.errors[0]


def test_settings_of_one_process_have_the_hash_that_they_had_before():
    config = {"trainer": {"epochs": 1, "distributed": False}, "choices": {"trainer": "default"}}
    before = {"trainer": {"epochs": 1}, "choices": {"trainer": "default"}}
    assert config_hash(config) == config_hash(before)
    assert config_hash({**config, "trainer": {"epochs": 1, "distributed": True}}) != config_hash(before)


def test_finished_run_is_told_of_once(launch, finished, tmp_path):
    ended = launch([f"resume={finished(2)[1]}"], cwd=tmp_path)
    assert ended.codes == [0, 0], ended.errors
    assert "this run is finished" in ended.out[0]
    assert_others_silent(ended)


# ------------------------------------------------------------------------------------------ signals and deaths

LONG = [*SETTINGS, *SHARED, "trainer.steps=100000", "trainer.checkpoint.every_minutes=100"]


@pytest.mark.parametrize(("number", "to"), [(signal.SIGTERM, (0, 1)), (signal.SIGUSR1, (1,)), (signal.SIGINT, (0,))])
def test_signal_to_some_saves_once_and_ends_all(number, to, launch, read_card, tmp_path):
    with launch.start(LONG, cwd=tmp_path) as (pids, wait):
        wait_for_evaluation(tmp_path)
        for rank in to:
            os.kill(pids[rank], number)
        started = time.monotonic()
        ended = wait()
    assert ended.codes == [128 + number] * 2, ended.errors
    assert time.monotonic() - started < 8
    assert_others_silent(ended)
    assert_short(ended.errors[0])
    (run,) = tmp_path.glob("out/train/*/*")
    step = list_checkpoints(run / "checkpoints", "step")[-1].step
    assert f"at step {step} of 100000; the state is saved" in ended.errors[0]
    assert f"torchrun --nproc-per-node 2 -m cvtrain resume={run.relative_to(tmp_path)}" in ended.errors[0]
    card = read_card(run)
    assert (card["status"], card["stop_reason"], card["exit_code"]) == ("stopped", "signal", 128 + number)


@pytest.mark.parametrize("rank", [pytest.param(1, marks=pytest.mark.long), 0])
def test_process_that_is_killed_ends_the_others_with_words(rank, launch, read_card, tmp_path):
    with launch.start(LONG, cwd=tmp_path) as (pids, wait):
        wait_for_evaluation(tmp_path)
        os.kill(pids[rank], signal.SIGKILL)
        started = time.monotonic()
        ended = wait()
    assert time.monotonic() - started < 30
    assert (ended.codes[rank], ended.codes[1 - rank]) == (-signal.SIGKILL, 1)
    words = ended.errors[1 - rank]
    assert "one of the 2 processes of this training has ended without a word" in words
    assert_short(words[words.index("error: ") :])  # before it stands what torch says of a store that is gone
    (run,) = tmp_path.glob("out/train/*/*")
    if rank == 1:
        assert f"continue with: torchrun --nproc-per-node 2 -m cvtrain resume={run.relative_to(tmp_path)}" in words
        assert (read_card(run)["status"], read_card(run)["exit_code"]) == ("failed", 1)
    else:
        assert "process 1 of 2: " in words
    last = list_checkpoints(run / "checkpoints", "step")[-1].step
    ended = launch([f"resume={run}", f"trainer.steps={last + 3}"], cwd=tmp_path)
    assert ended.codes == [0, 0], ended.errors
    assert f"goes on after step {last} of {last + 3}" in ended.out[0]


# ------------------------------------------------------------------------------------------ errors

PLUGIN = """
import os
import torch
from torch import nn

IS_LAST = os.environ.get("RANK") == "1"
FIFTH = 5

class Net(nn.Module):
    def __init__(self, num_classes, in_channels, image_size, init_from=None):
        super().__init__()
        self.linear, self.num_calls = nn.Linear(in_channels * image_size**2, num_classes), 0

    def forward(self, images):
        self.num_calls += self.training and images.device.type == "cpu"
        logits = self.linear(images.flatten(1))
        return self.fifth(logits) if IS_LAST and self.num_calls == FIFTH else logits

class Bug(Net):
    def fifth(self, logits):
        raise KeyError("of the last process")

class Memory(Net):
    def fifth(self, logits):
        raise MemoryError("out of memory")

class NotANumber(Net):
    def fifth(self, logits):
        return logits * float("nan")
"""


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [
        ("Bug", 1, "process 1: internal error: KeyError: 'of the last process'"),
        ("Memory", 6, "process 1: out of memory in a step of 34 images"),
        ("NotANumber", 5, "diverged: the loss is not a finite number at step 5"),
    ],
)
def test_error_of_another_process_is_told_once_by_the_first(how, code, words, launch, read_card, tmp_path):
    (tmp_path / "own_net.py").write_text(PLUGIN)
    model = ["model=linear", f"model._target_=own_net.{how}", "plugins=[own_net]"]
    kept = [word for word in SETTINGS if not word.startswith("model")]
    ended = launch([*kept, *model, *SHARED, "trainer.accumulate=1"], cwd=tmp_path)
    assert ended.codes == [code, code], ended.errors
    assert words in ended.errors[0]
    assert_short(ended.errors[0])
    assert_others_silent(ended)
    (run,) = tmp_path.glob("out/train/*/*")
    card = read_card(run)
    assert (card["status"], card["exit_code"]) == ("failed", code)
    assert words in card["error"]
    assert all(file.step < 5 for file in list_checkpoints(run / "checkpoints", "step"))


@pytest.mark.parametrize(
    ("words", "size", "found"),
    [
        ([], 2, "2 processes were started, and each would train the same"),
        (["trainer=ddp", "trainer.batch_size=1"], 2, "trainer.batch_size=1 is the batch of all processes together"),
        (["trainer=ddp", "optimizer.lr=x"], 2, "optimizer.lr=x: must be a number > 0"),
        (["task=summary"], 2, "task=summary is for one"),
        (["trainer=ddp", "task=summary"], 2, "trainer=ddp is for task=train"),
        (["-m", "seed=1,2"], 2, "--multirun starts its own"),
        (["trainer=ddp"], 1, "type: torchrun --nproc-per-node 2 -m cvtrain trainer=ddp ..."),
    ],
)
def test_wrong_start_is_refused_once(words, size, found, launch, tmp_path):
    ended = launch(words, cwd=tmp_path, size=size)
    assert ended.codes == [2] * size, ended.errors
    assert found in ended.errors[0]
    assert_short(ended.errors[0])
    if size > 1:
        assert_others_silent(ended)
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------ torchrun


def torchrun(words, cwd):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "cvtrain"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.long
def test_torchrun_starts_a_run(tmp_path, read_card):
    done = torchrun([*SETTINGS, *SHARED, "trainer.steps=2"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("writes to ") == 1
    (run,) = tmp_path.glob("out/train/*/*")
    assert (read_card(run)["status"], read_card(run)["num_processes"]) == ("done", 2)


@pytest.mark.long
def test_torchrun_shows_our_words_first_and_in_its_own_report(tmp_path):
    done = torchrun([*SETTINGS, *SHARED, "trainer.accumulate=1", "trainer.batch_size=1"], tmp_path)
    assert done.returncode != 0
    before, _, report = done.stderr.partition("cvtrain FAILED")
    words = "trainer.batch_size=1 is the batch of all processes together, and there are 2"
    assert before.count(f"error: {words}") == 1
    assert words in report.partition("Root Cause")[2]
