"""Two small sweeps on the digits, and trainings of any kind, compared from end to end."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from cvtrain.cli import dispatch
from cvtrain.ending import exit_code_of
from cvtrain.errors import ConfigError
from cvtrain.outputs import RunDir
from cvtrain.tasks.compare import run as compare_as_set

SMALL = ["trainer.device=cpu", "budget.min_steps=4", "budget.epochs=1", "budget.evaluations=2"]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Trains a sweep; gives its folder. On one core, which needs no processes beside this one."""
    root, cores = tmp_path_factory.mktemp("sweeps"), None
    if hasattr(os, "sched_setaffinity"):
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(cores)})

    def run(name, *words):
        settings = ["task=sample_size_sweep", *SMALL, *words, f"output_dir={root / name}"]
        assert exit_code_of(lambda: dispatch(settings)) == 0
        return next(root.glob(f"{name}/*/*/*"))

    yield run
    if cores is not None:
        os.sched_setaffinity(0, cores)


@pytest.fixture(scope="module")
def linear(sweep):
    return sweep("linear", "model=linear", "sizes=[10,20,40]", "replicates=3")


@pytest.fixture(scope="module")
def other(sweep):
    """Of another model and another length, without the largest size and with a replicate more."""
    return sweep("other", "model=mlp", "model.hidden=[8]", "trainer.steps=6", "sizes=[10,20]", "replicates=4")


@pytest.fixture
def compare(command, tmp_path):
    """Compares two folders; gives the result of the command and the folder that it left."""

    def run(a, b, *words):
        result = command("task=compare", f"runs=[{a},{b}]", *words)
        return result, max((tmp_path / "outputs").glob("compare/*/*"), default=None)

    return run


def json_of(path):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


def accuracies_of(sweep, per_class):
    """Test accuracies by replicate, as the trainings themselves tell."""
    cards = [json_of(path) for path in sorted(sweep.glob("runs/*/run.json"))]
    return {card["replicate"]: card["test"]["accuracy"] for card in cards if card["per_class"] == per_class}


def test_two_sweeps_are_compared_in_pairs(linear, other, compare, tmp_path):
    result, folder = compare(linear, other)
    assert result.code == 0
    assert folder.parent == tmp_path / "outputs" / "compare" / "linear-mlp"
    comparison, card = json_of(folder / "comparison.json"), json_of(folder / "run.json")
    of_a, of_b = accuracies_of(linear, 20), accuracies_of(other, 20)
    differences = [of_a[replicate] - of_b[replicate] for replicate in range(3)]
    size = comparison["sizes"][1]
    assert (size["per_class"], size["paired"]["num_pairs"]) == (20, 3)
    assert size["paired"]["difference"]["mean"] == pytest.approx(sum(differences) / 3)
    assert size["b"]["mean"] == pytest.approx(sum(of_b[replicate] for replicate in range(3)) / 3)
    assert comparison["num_test"] == 360
    assert comparison["chance_accuracy"] == pytest.approx(0.1, abs=0.01)
    assert comparison["runs"] == card["runs"] == [str(linear), str(other)]
    assert (card["status"], card["data"], card["model"]) == ("done", "digits", "linear / mlp")
    assert card["data_fingerprint"] == json_of(linear / "run.json")["data_fingerprint"]
    assert (folder / "plots" / "compared_curves.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "config.yaml").is_file()


def test_what_is_said_is_kept(linear, other, compare):
    result, folder = compare(linear, other)
    lines, log = result.out.splitlines(), (folder / "log.txt").read_text(encoding="utf-8")
    comparison, card = json_of(folder / "comparison.json"), json_of(folder / "run.json")
    assert f"linear  {linear}" in lines
    assert "6 pairs of trainings, each on the same images; 10 classes, 360 test images;" in result.out
    assert "they differ in model=linear / mlp; trainer.steps=null / 6" in result.out
    header = next(line for line in lines if line.startswith("per class"))
    assert header.split() == ["per", "class", "linear", "mlp", "difference", "[95", "%]", "p", "p", "(Holm)", "pairs"]
    assert any(line.startswith("20 ") and line.endswith(" 3") for line in lines)
    for sentence in comparison["sentences"]:
        assert sentence in lines
        assert sentence in log
    assert comparison["sentences"][0].startswith("no verdict with 10 and 20 images per class: 3 pairs of trainings")
    assert "7 can: replicates=7 or more" in comparison["sentences"][0]
    for warning in card["warnings"]:
        assert f"warning: {warning}" in lines
    assert card["warnings"] == [
        "what is found is due to model and trainer.steps together, not to model alone",
        "5 trainings have no partner in the other sweep: the curves count them, the differences not",
    ]


def test_order_turns_the_difference_around(linear, other, compare):
    forth = json_of(compare(linear, other)[1] / "comparison.json")
    back = json_of(compare(other, linear)[1] / "comparison.json")
    for a, b in zip(forth["sizes"], back["sizes"], strict=True):
        assert a["paired"]["difference"]["mean"] == pytest.approx(-b["paired"]["difference"]["mean"])
    assert back["names"] == ["mlp", "linear"]
    assert [each["per_class"] for each in back["equivalences"]] == [10, 20]


def test_unfinished_sweep_is_compared_with_a_warning(linear, other, compare, tmp_path):
    started = shutil.copytree(linear, tmp_path / "started")
    table = (started / "sample_size.csv").read_text().splitlines()
    (started / "sample_size.csv").write_text("\n".join(table[:-2]) + "\n")
    result, _ = compare(started, other)
    assert result.code == 0
    assert f"linear is not finished: 7 of 9 trainings are done; continue with: cvtrain resume={started}" in result.out


def test_picture_that_fails_is_a_warning(linear, other, compare, monkeypatch):
    monkeypatch.setattr("cvtrain.report.compared_curves.MAX_CURVES", 1)
    result, folder = compare(linear, other)
    assert result.code == 0
    assert "warning: the curves could not be drawn: 2..1 curves" in result.out
    assert (folder / "comparison.json").is_file()
    assert not (folder / "plots").exists()


def test_single_pairs_give_no_verdict(linear, compare, sweep, tmp_path):
    single = sweep("single", "model=linear", "optimizer.lr=0.01", "sizes=[10,20]", "replicates=1")
    result, folder = compare(linear, single)
    assert result.code == 0
    assert folder.parent.name == "lr_0.05-lr_0.01"
    assert "1 pair of trainings at each cannot show a difference" in result.out
    assert "who is ahead cannot be told: single trainings do not show how far they scatter" in result.out


def test_other_seed_is_refused(linear, compare, sweep, tmp_path):
    reseeded = sweep("reseeded", "model=linear", "seed=1", "sizes=[10,20]", "replicates=1")
    result, folder = compare(linear, reseeded)
    assert result.code == 2
    assert "no pairs: they were given different images (seed=0 and seed=1)" in result.errors[0]
    assert "seed=0" in result.errors[1]
    assert folder is None
    assert not Path("outputs").exists()


def test_other_data_are_refused(linear, compare, sweep):
    coarse = sweep("coarse", "model=linear", "data.permute_pixels=1", "sizes=[10,20]", "replicates=1")
    assert compare(linear, coarse)[0].code == 0  # the same images, seen in another way
    other = sweep("spiral", "data=spiral", "model=linear", "sizes=[10,20]", "replicates=1")
    result, _ = compare(linear, other)
    assert result.code == 2
    assert "different images (data=digits and data=spiral)" in result.errors[0]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "task=compare needs two runs or more, and none is named"),
        (["runs=[{a}]"], 2, "and 1 are named"),
        (["runs=[{a},{a}]"], 2, "a sweep is not compared with itself"),
        (["runs=[{a},nowhere]"], 4, "nowhere: there is no such folder"),
        (["runs=[{a},{a}/runs/n00010-r00]"], 4, "holds a run of task=train, no sample-size sweep"),
        (["runs={a}"], 2, "a list of run folders [A,B]"),
        (["runs=[{a},{b}]", "model=mlp", "trainer.steps=5"], 2, "model has no effect with task=compare"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(linear, other, command, tmp_path, words, code, message):
    result = command("task=compare", *(word.format(a=linear, b=other) for word in words))
    assert result.code == code
    assert message in "\n".join(result.errors)
    assert len(result.errors) <= 6
    assert not (tmp_path / "outputs").exists()


def test_other_output_folder_and_name_are_taken(linear, other, command, tmp_path):
    result = command("task=compare", f"runs=[{linear},{other}]", "output_dir=elsewhere", "name=again", "seed=5")
    assert result.code == 0
    (folder,) = (tmp_path / "elsewhere" / "compare" / "linear-mlp").iterdir()
    assert folder.name.endswith("-again")
    assert json_of(folder / "run.json")["seed"] == 5


# ------------------------------------------------------------------------------------------------- trainings

STEPS = ["trainer.device=cpu", "trainer.steps=6", "trainer.batch_size=32", "trainer.evaluate_every=6"]


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    """Trains on the digits for an instant, each command once; gives the run folder."""
    root, known = tmp_path_factory.mktemp("trainings"), {}

    def run(*words, code=0):
        if words not in known:
            folder = root / str(len(known))
            assert exit_code_of(lambda: dispatch([*STEPS, *words, f"output_dir={folder}"])) == code
            known[words] = next(folder.glob("*/*/*"))
        return known[words]

    return run


@pytest.fixture
def compare_runs(command, tmp_path):
    """Compares runs; gives the result of the command, and the folder that it left."""

    def run(*runs, words=()):
        result = command("task=compare", f"runs=[{','.join(map(str, runs))}]", *words)
        return result, max((tmp_path / "outputs").glob("compare/*/*"), default=None)

    return run


def linear_run(train, seed=0, *words):
    return train("model=linear", f"seed={seed}", *words)


def mlp_run(train, seed=0, *words):
    return train("model=mlp", "model.hidden=[8]", f"seed={seed}", *words)


def edited(run, folder, **card):
    """A copy of a run with another run card."""
    shutil.copytree(run, folder)
    RunDir(folder).write_card(RunDir(run).read_card() | card)
    return folder


def right_of(run):
    with open(run / "predictions.csv", newline="") as file:
        return np.array([row["label"] == row["prediction"] for row in csv.DictReader(file)])


def test_two_trainings_are_compared_image_by_image(train, compare_runs, tmp_path):
    a, b = linear_run(train), mlp_run(train)
    result, folder = compare_runs(a, b)
    assert result.code == 0
    assert folder.parent == tmp_path / "outputs" / "compare" / "digits-model-model.hidden"
    comparison, card = json_of(folder / "comparison.json"), json_of(folder / "run.json")
    right_a, right_b = right_of(a), right_of(b)
    (pair,) = comparison["images"]["pairs"]
    assert (pair["first"], pair["second"]) == ("model=linear", "model=mlp model.hidden=[8]")
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    assert (pair["num_only_a"], pair["num_only_b"], pair["num_images"]) == (only_a, only_b, 360)
    assert pair["p_value"] == pytest.approx(scipy.stats.binomtest(only_b, only_a + only_b).pvalue)
    assert comparison["images"]["better"] == "model=linear"
    assert comparison["winner"] is None
    for sentence in comparison["sentences"]:
        assert sentence in result.out.splitlines()
    assert "another seed may turn it" in result.out
    assert comparison["runs"] == card["runs"] == [str(a), str(b)]
    assert (card["status"], card["data"], card["model"], card["warnings"]) == ("done", "digits", "linear / mlp", [])
    assert [arm["cells"][0]["runs"][0]["run"] for arm in comparison["arms"]] == [str(a), str(b)]
    assert comparison["arms"][0]["cost"]["num_parameters"] == 10250


def test_trainings_with_several_seeds_are_compared_in_pairs(train, compare_runs):
    runs = [make(train, seed) for make in (linear_run, mlp_run) for seed in (0, 1)]
    result, folder = compare_runs(*runs)
    comparison = json_of(folder / "comparison.json")
    accuracies = [json_of(run / "run.json")["test"]["accuracy"] for run in runs]
    (pair,) = comparison["pairs"]
    assert pair["num_pairs"] == 2
    assert pair["difference"]["mean"] == pytest.approx(np.mean(accuracies[:2]) - np.mean(accuracies[2:]))
    assert comparison["images"] is None
    assert "n = 2 seeds cannot show a difference at 5 %" in result.out
    assert "4 runs; 10 classes, 360 test images; they differ in model, model.hidden: 2 arms" in result.out


def test_seeds_alone_make_one_arm_with_an_interval(train, compare_runs, tmp_path):
    runs = [linear_run(train, seed) for seed in range(3)]
    result, folder = compare_runs(*runs)
    assert folder.parent.name == "digits-seed"
    accuracies = [json_of(run / "run.json")["test"]["accuracy"] for run in runs]
    low, high = scipy.stats.t.interval(0.95, 2, np.mean(accuracies), scipy.stats.sem(accuracies))
    assert f"the 95 % t interval of their mean is [{100 * low:.1f} %, {100 * high:.1f} %]" in result.out
    mean, sd = 100 * np.mean(accuracies), 100 * np.std(accuracies, ddof=1)
    assert f"all runs: {mean:.1f} % +- {sd:.1f} (n = 3, optimizer.lr=0.05)" in result.out


def test_learning_rates_alone_are_arms_with_a_caution(train, compare_runs):
    _, folder = compare_runs(linear_run(train), linear_run(train, 0, "optimizer.lr=0.0001"))
    comparison = json_of(folder / "comparison.json")
    assert {arm["name"] for arm in comparison["arms"]} == {"optimizer.lr=0.05", "optimizer.lr=0.0001"}
    assert comparison["images"]["better"] == "optimizer.lr=0.05"
    assert "choose one by its validation accuracy" in comparison["warnings"][0]


def test_optimizers_without_a_grid_have_no_winner(train, compare_runs):
    result, folder = compare_runs(linear_run(train), linear_run(train, 0, "optimizer=adam"))
    names = {arm["name"] for arm in json_of(folder / "comparison.json")["arms"]}
    assert names == {"optimizer=nesterov optimizer.lr=0.05", "optimizer=adam optimizer.lr=0.001"}
    assert "no winner named: each optimizer needs its own optimizer.lr grid" in result.out


def test_arms_with_a_grid_take_the_rate_that_validated_best(train, compare_runs):
    choices = [("nesterov", lr) for lr in ("0.05", "0.0001")] + [("adam", lr) for lr in ("0.01", "0.00001")]
    runs = {(o, lr): linear_run(train, 0, f"optimizer={o}", f"optimizer.lr={lr}") for o, lr in choices}
    result, folder = compare_runs(*runs.values())
    arms = {arm["name"]: arm for arm in json_of(folder / "comparison.json")["arms"]}
    assert set(arms) == {"optimizer=nesterov", "optimizer=adam"}
    assert [arms[f"optimizer={o}"]["lr"] for o in ("nesterov", "adam")] == [0.05, 0.01]
    chosen = [right_of(runs["nesterov", "0.05"]), right_of(runs["adam", "0.01"])]
    (pair,) = json_of(folder / "comparison.json")["images"]["pairs"]
    assert sorted((pair["accuracy_a"], pair["accuracy_b"])) == pytest.approx(sorted(each.mean() for each in chosen))
    assert "validation accuracy by learning rate" in result.out


def test_folders_of_runs_and_patterns_are_taken(train, compare_runs, tmp_path):
    runs = [linear_run(train), mlp_run(train)]
    for i, run in enumerate(runs):
        shutil.copytree(run, tmp_path / "sweep" / f"job{i}")
    (tmp_path / "sweep" / "leaderboard.csv").write_text("not a run\n")
    (tmp_path / "sweep" / "plots").mkdir()
    whole, first = compare_runs("sweep")
    pattern, second = compare_runs("'sweep/job*'")
    mixed, third = compare_runs("sweep", "'sw*p/*'", "sweep/job0")
    assert [whole.code, pattern.code, mixed.code] == [0, 0, 0]
    found = [json_of(folder / "comparison.json") for folder in (first, second, third)]
    assert all(each["runs"] == [str(tmp_path / "sweep" / f"job{i}") for i in (0, 1)] for each in found)
    assert all(each["images"] == found[0]["images"] for each in found)
    assert f"{tmp_path / 'sweep' / 'job0'} is named twice, and counts once" in found[2]["warnings"]


def test_runs_that_are_not_done_are_told_and_left_out(train, compare_runs, tmp_path):
    diverged = train("optimizer.lr=1e9", "model=mlp", code=5)
    stopped = edited(mlp_run(train, 1), tmp_path / "stopped", status="stopped", test=None, error="stopped by signal 15")
    result, folder = compare_runs(linear_run(train), mlp_run(train), diverged, stopped)
    assert result.code == 0
    warnings = json_of(folder / "run.json")["warnings"]
    assert any(w.startswith(f"{diverged} has no result (failed: diverged") for w in warnings)
    assert f"continue it with: cvtrain resume={stopped}" in " ".join(warnings)
    assert "4 runs, 2 of them done" in result.out
    comparison = json_of(folder / "comparison.json")
    assert comparison["jobs"] == {"done": 2, "failed": 1, "stopped": 1}
    assert [arm["verdict"] for arm in comparison["arms"]].count("no_result") == 1


def test_sweep_knows_of_jobs_that_could_not_tell(train, compare_runs, tmp_path):
    sweep = tmp_path / "sweep"
    for name, run, record in (
        ("a", linear_run(train), {"status": "done"}),
        ("b", mlp_run(train), {"status": "done"}),
        ("c", mlp_run(train, 1), {"status": "pruned"}),
        ("d", mlp_run(train, 2), {"status": "failed", "error": "killed by signal 9"}),
    ):
        shutil.copytree(run, sweep / name)
        (sweep / name / "job.json").write_text(json.dumps(record))
    (sweep / "e").mkdir()
    (sweep / "e" / "job.json").write_text("{}")
    _, folder = compare_runs(sweep)
    comparison = json_of(folder / "comparison.json")
    assert comparison["jobs"] == {"done": 2, "failed": 1, "pruned": 1}
    assert f"{sweep / 'd'} has no result (failed: killed by signal 9)" in comparison["warnings"]
    assert "1 job has left no settings: waiting, or failed at once" in comparison["warnings"]
    assert not any(str(sweep / "c") in warning for warning in comparison["warnings"])


def test_repeats_count_once_and_the_one_that_is_done_counts(train, compare_runs, tmp_path):
    again = edited(linear_run(train), tmp_path / "again", status="running", test=None)
    _, folder = compare_runs(linear_run(train), again, mlp_run(train))
    comparison = json_of(folder / "comparison.json")
    assert comparison["runs"] == [str(linear_run(train)), str(mlp_run(train))]
    assert comparison["warnings"] == [f"{again} is left out: another run has its settings and its seed"]


def test_other_conditions_are_noted(train, compare_runs, tmp_path):
    card = json_of(mlp_run(train) / "run.json")
    versions = card["versions"] | {"torch": "1.0"}
    other = edited(mlp_run(train), tmp_path / "other", versions=versions, precision="bf16", device="cuda (H)")
    result, folder = compare_runs(linear_run(train), other)
    warnings = json_of(folder / "run.json")["warnings"]
    assert len(warnings) == 3
    assert f"other versions of torch: {card['versions']['torch']} in 1 run, 1.0 in 1 run" in warnings[0]
    assert "another precision: fp32 in 1 run, bf16 in 1 run" in warnings[1]
    assert warnings[2].endswith("cuda (H) in 1 run; their times are not compared")
    assert "of its time" not in result.out


def test_other_seeds_of_single_models_are_told(train, compare_runs):
    _, folder = compare_runs(linear_run(train, 0), mlp_run(train, 1))
    assert json_of(folder / "run.json")["warnings"] == [
        "the models were trained with other seeds: a part of their differences is that of the seeds"
    ]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "predictions.csv is missing"),
        (lambda path: path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1])), "holds 359 images"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "cannot be read"),
    ],
)
def test_predictions_that_cannot_be_used_leave_a_comparison_without_a_test(
    train, compare_runs, tmp_path, damage, message
):
    damaged = shutil.copytree(mlp_run(train), tmp_path / "damaged")
    damage(damaged / "predictions.csv")
    result, folder = compare_runs(linear_run(train), damaged)
    assert result.code == 0
    (warning,) = json_of(folder / "run.json")["warnings"]
    assert warning.startswith("the models cannot be compared image by image: ")
    assert message in warning
    assert json_of(folder / "comparison.json")["images"] is None
    assert "no winner named: one seed shows no spread" in result.out


def test_other_labels_are_refused(train, compare_runs, tmp_path):
    relabelled = shutil.copytree(mlp_run(train), tmp_path / "relabelled")
    path = relabelled / "predictions.csv"
    lines = path.read_text().splitlines()
    i = next(i for i, line in enumerate(lines[1:], 1) if line.split(",")[1] != line.split(",")[2])
    image, label, prediction, probability = lines[i].split(",")
    other = next(digit for digit in "0123456789" if digit not in (label, prediction))
    path.write_text("\n".join([*lines[:i], ",".join([image, other, prediction, probability]), *lines[i + 1 :], ""]))
    result, folder = compare_runs(linear_run(train), relabelled)
    assert result.code == 2
    assert "tested on other images, or on images with other labels" in result.errors[0]
    assert folder is None


def test_everything_that_makes_runs_incomparable_is_said_at_once(train, compare_runs, tmp_path):
    card = json_of(mlp_run(train) / "run.json")
    other = edited(
        mlp_run(train),
        tmp_path / "other",
        data_fingerprint="0" * 64,
        class_names=["cat", "dog"],
        test=card["test"] | {"num_images": 20, "per_class": []},
    )
    result, folder = compare_runs(linear_run(train), other)
    assert result.code == 2
    text = "\n".join(result.errors)
    assert f"the runs saw different images: digits in {linear_run(train)}; digits in {other}" in text
    assert f"the runs know different classes: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 in {linear_run(train)}; cat, dog in" in text
    assert "the runs were tested on different images: 360 images in" in text
    assert folder is None


def test_images_made_from_other_seeds_are_no_other_data(train, compare_runs):
    runs = [
        train("data=spiral", f"model={m}", f"data.seed={s}", f"seed={s}") for m in ("linear", "mlp") for s in (0, 1)
    ]
    result, folder = compare_runs(*runs)
    assert result.code == 0
    assert json_of(folder / "comparison.json")["pairs"][0]["num_pairs"] == 2


@pytest.mark.parametrize(
    ("runs", "code", "message"),
    [
        (["{a}"], 2, "task=compare needs two runs or more: {a} is one"),
        (["{a}", "{a}"], 2, "task=compare needs two runs or more: {a} is named twice"),
        (["{a}", "{copy}"], 2, "the 2 runs have the same settings and the same seed: there is nothing to compare"),
        (["{a}", "{stopped}"], 2, "1 of 2 runs are done: there is nothing to compare"),
        (
            ["{a}", "nowhere", "'no*where'"],
            4,
            "nowhere: there is no such folder\n  no*where: no folder has such a name",
        ),
        (["{a}", "{a}/checkpoints"], 4, "holds no run: there is no config.yaml in it, nor in its folders"),
        (["{a}", "{broken}"], 4, "config.yaml, line 85, column 10: is no YAML"),
        (["{a}", "{other_task}"], 4, "holds a run of task=evaluate, no training"),
    ],
)
def test_mistakes_in_the_choice_of_runs_are_told_before_anything_is_written(
    train, compare_runs, tmp_path, runs, code, message
):
    paths = {"a": linear_run(train), "copy": shutil.copytree(linear_run(train), tmp_path / "copy")}
    paths["stopped"] = edited(mlp_run(train), tmp_path / "stopped", status="stopped", test=None)
    for name, old, new in (("broken", "task: train", "task: ["), ("other_task", "task: train", "task: evaluate")):
        paths[name] = shutil.copytree(linear_run(train), tmp_path / name)
        text = (paths[name] / "config.yaml").read_text()
        (paths[name] / "config.yaml").write_text(text.replace(old, new))
    result, folder = compare_runs(*(run.format(**paths) for run in runs))
    assert result.code == code
    assert message.format(**paths) in "\n".join(result.errors)
    assert len(result.errors) <= 6
    assert folder is None


def test_difference_is_that_of_the_first_run(train, tmp_path, monkeypatch):
    from cvtrain.compose import compose
    from cvtrain.tasks.compare import run

    monkeypatch.chdir(tmp_path)
    a, b = linear_run(train), mlp_run(train)
    expected = right_of(a).mean() - right_of(b).mean()
    assert run(compose(["task=compare", f"runs=[{a},{b}]"])) == pytest.approx(expected)
    assert run(compose(["task=compare", f"runs=[{b},{a}]"])) == pytest.approx(-expected)
    assert np.isnan(run(compose(["task=compare", f"runs=[{a},{linear_run(train, 1)}]"])))


def test_settings_of_a_multirun_of_comparisons_are_not_refused():
    with pytest.raises(ConfigError, match="needs two runs or more"):
        compare_as_set({"typed": ["task", "runs", "sweep.name", "sweep.jobs"], "runs": None})
    with pytest.raises(ConfigError, match=r"trainer\.steps has no effect"):
        compare_as_set({"typed": ["task", "sweep.name", "trainer.steps"], "runs": None})
