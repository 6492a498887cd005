"""`task=sample_size_sweep` as a user types it: what it writes and says, how it goes on, what it refuses."""

import csv
import itertools
import json
import re
import shutil
from dataclasses import fields

import numpy as np
import pytest

from cvtrain.sample_size.table import Row
from cvtrain.tasks import sample_size_sweep

MODEL = ["model=mlp", "model.hidden=[16]"]
FAST = ["optimizer.lr=0.02", "trainer.device=cpu", "sweep.jobs=1"]
BUDGET = ["budget.epochs=1", "budget.min_steps=20", "trainer.evaluate_every=10"]
SMALL = [*MODEL, "sizes=[4,8]", "replicates=2", *FAST, *BUDGET]
HEADER = (
    "per_class,replicate,train_size,val_size,steps,best_step,stop_reason,"
    "train_accuracy,val_accuracy,test_accuracy,test_loss,seconds,split_hash"
)


@pytest.fixture
def sweep(command, tmp_path):
    """Runs a small sweep in this process: the result of the command, and its folder if there is one."""

    def run(*more):
        chosen = {word.partition("=")[0] for word in more}
        words = [word for word in SMALL if word.partition("=")[0] not in chosen]
        result = command("task=sample_size_sweep", *words, *more)
        return result, max(
            (tmp_path / "outputs" / "sample_size_sweep").glob("*/*"), key=lambda path: path.name, default=None
        )

    return run


def strict_json(path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def table(folder):
    with open(folder / "sample_size.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def without_seconds(folder):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in table(folder)]


def cells(folder):
    return sorted(path.name for path in (folder / "runs").iterdir())


def traces(folder):
    """What would change if a training were done again: times and contents of all files of all trainings."""
    files = [path for path in (folder / "runs").rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(folder): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


# ------------------------------------------------------------------------------------------------- what it leaves


def test_sweep_leaves_what_it_promises(sweep):
    result, folder = sweep("sizes=[8,4,16]", "target=0.3", "validate=true", "name=first")
    assert result.code == 0, result.errors
    assert folder.name.endswith("-first")
    assert folder.parent.name == "digits-mlp"
    text = (folder / "sample_size.csv").read_text()
    assert text.splitlines()[0] == HEADER == ",".join(field.name for field in fields(Row))
    rows = table(folder)
    order = [(int(row["per_class"]), int(row["replicate"])) for row in rows]
    assert order == [(4, 0), (4, 1), (8, 0), (8, 1), (16, 0), (16, 1)]
    assert cells(folder) == [f"n{n:05d}-r{r:02d}" for n, r in order]
    for row in rows:
        card = strict_json(folder / "runs" / f"n{int(row['per_class']):05d}-r0{row['replicate']}" / "run.json")
        assert card["status"] == "done"
        assert (card["per_class"], card["replicate"]) == (int(row["per_class"]), int(row["replicate"]))
        assert float(row["test_accuracy"]) == pytest.approx(card["test"]["accuracy"], rel=1e-9)
        assert float(row["test_loss"]) == pytest.approx(card["test"]["loss"], rel=1e-9)
        assert float(row["val_accuracy"]) == pytest.approx(card["best"]["val_accuracy"], rel=1e-9)
        assert int(row["steps"]) == card["steps"] == 20
        assert int(row["best_step"]) == card["best"]["step"]
        assert (row["split_hash"], row["stop_reason"]) == (card["split_hash"], card["stop_reason"])
        assert sum(card["class_counts"]) == int(row["train_size"])
        assert card["test"]["num_images"] == 360
    assert {(row["per_class"], row["train_size"], row["val_size"]) for row in rows} == {
        ("4", "30", "10"),
        ("8", "60", "20"),
        ("16", "130", "30"),
    }
    card = strict_json(folder / "run.json")
    assert {"status": "done", "exit_code": 0, "task": "sample_size_sweep", "sizes": [4, 8, 16]}.items() <= card.items()
    assert card["num_runs"] == 6
    assert (folder / "plots" / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (folder / "plots" / "learning_curve.svg").read_bytes()
    page = (folder / "report.html").read_text()
    assert "A row per training" in page
    assert "Not complete" not in page
    assert (
        f"report   {folder}/report.html".replace(f"{folder}", str(folder.relative_to(folder.parents[3]))) in result.out
    )
    assert not [path for path in folder.rglob(".*") if path.name != ".lock"]


def test_report_that_cannot_be_written_costs_a_warning_after_each_size_and_never_the_sweep(sweep, command, monkeypatch):
    monkeypatch.setattr(sample_size_sweep, "RENEW_SECONDS", 0.0)
    _, folder = sweep("sizes=[4,8,16]", "replicates=1")
    (folder / "report.html").unlink()
    (folder / "report.html").mkdir()
    result = command(f"resume={folder}", "replicates=2")
    assert result.code == 0, result.errors
    assert len(table(folder)) == 6
    assert result.out.count("warning: the report could not be renewed: cannot write") == 2
    assert result.out.count("warning: report.html could not be written: cannot write") == 1
    (folder / "report.html").rmdir()
    assert command(f"resume={folder}", "target=0.3").code == 0
    assert "30.0 %" in (folder / "report.html").read_text()


def test_curve_is_that_of_the_table(sweep):
    _, folder = sweep("sizes=[4,8,16]", "target=0.3", "validate=true")
    curve, rows = strict_json(folder / "learning_curve.json"), table(folder)
    assert (curve["chance_accuracy"], curve["num_test"]) == (pytest.approx(0.1, abs=0.005), 360)
    for point in curve["points"]:
        accuracies = [float(row["test_accuracy"]) for row in rows if int(row["per_class"]) == point["per_class"]]
        assert point["mean"] == pytest.approx(np.mean(accuracies), rel=1e-9)
        assert point["sd"] == pytest.approx(np.std(accuracies, ddof=1), rel=1e-6)
    assert [point["per_class"] for point in curve["points"]] == [4, 8, 16]
    assert curve["target"]["target"] == 0.3
    assert curve["elbow"] is not None
    assert curve["validation"] is not None
    sizes = curve["curve"]["per_class"]
    assert sizes == sorted(sizes)
    assert len(sizes) == len(curve["curve"]["accuracy"]) == len(curve["curve"]["low"])


def test_console_says_how_coarse_validation_is(sweep):
    result, _ = sweep()
    plan, _, measured = result.out.partition("mlp on digits")
    header = next(line.split() for line in plan.splitlines() if line.startswith("per class"))
    assert {"train", "val", "SE"} <= set(header)
    row = next(line.split() for line in plan.splitlines() if line.startswith("4 "))
    # 10 of 40 images validate: one of them is 10 points, and 50 % of them are known to sqrt(0.25 / 10) = 15.8 points
    assert row == ["4", "2", "30", "10", "8", "20", "10", "loss", "10", "15.8"]
    assert "SE of val" in measured
    assert "95 % interval" in measured
    assert len(re.findall(r"val +\d+\.\d % of [12]0  ", result.out)) == 4, "each training is told as it ends"
    assert "next     cvtrain resume=" in result.out


def test_posts_protocol_stops_after_three_epochs_without_a_better_accuracy(command, tmp_path):
    words = ["task=sample_size_sweep", "protocol=posts", *MODEL, *FAST, "sizes=[4,8]", "replicates=1"]
    result = command(*words)
    assert result.code == 0, result.errors
    assert "protocol=posts" in result.out
    (folder,) = (tmp_path / "outputs" / "sample_size_sweep").glob("*/*")
    for row in table(folder):
        cell = folder / "runs" / f"n{int(row['per_class']):05d}-r00"
        metrics = list(csv.DictReader((cell / "metrics.csv").read_text().splitlines()))
        assert [line["epoch"] for line in metrics] == [str(i + 1) for i in range(len(metrics))]
        assert [line["step"] for line in metrics] == [line["epoch"] for line in metrics], "one batch holds all images"
        accuracies = [float(line["val_accuracy"]) for line in metrics]
        bests = [i for i, accuracy in enumerate(accuracies) if accuracy > max(accuracies[:i], default=-1)]
        waits = [later - earlier for earlier, later in itertools.pairwise([*bests, len(accuracies) - 1])]
        assert row["stop_reason"] == "early_stopping"
        assert waits[-1] == 3 == max([*waits[:-1], 3])
        assert float(row["val_accuracy"]) == max(accuracies)


@pytest.mark.long
def test_subsets_are_nested_and_the_same_for_another_model(sweep, command, tmp_path):
    _, mlp = sweep("sizes=[4,8,16]")
    result = command("task=sample_size_sweep", "model=linear", "sizes=[4,16]", "replicates=2", *FAST, *BUDGET)
    assert result.code == 0, result.errors
    (linear,) = (tmp_path / "outputs" / "sample_size_sweep" / "digits-linear").glob("*")

    def split(folder, size, replicate):
        return dict(np.load(folder / "runs" / f"n{size:05d}-r{replicate:02d}" / "split.npz"))

    for replicate in (0, 1):
        splits = [split(mlp, size, replicate) for size in (4, 8, 16)]
        for small, large in itertools.pairwise(splits):
            assert set(small["train"]) < set(large["train"])
            assert set(small["val"]) <= set(large["val"])
            assert not set(large["train"]) & set(large["val"])
            assert np.array_equal(small["test"], large["test"])
        for size in (4, 16):
            of_both = [split(folder, size, replicate) for folder in (mlp, linear)]
            assert all(np.array_equal(of_both[0][role], of_both[1][role]) for role in ("train", "val", "test"))
    assert set(split(mlp, 16, 0)["train"]) != set(split(mlp, 16, 1)["train"])


def test_kept_models_give_the_accuracy_of_the_table(sweep, command):
    result, folder = sweep("sizes=[4,16]", "replicates=1", "keep_models=true")
    assert result.code == 0, result.errors
    for row in table(folder):
        cell = folder / "runs" / f"n{int(row['per_class']):05d}-r00"
        assert [path.name.partition("-")[0] for path in (cell / "checkpoints").iterdir()] == ["best"]
        evaluated = command("task=evaluate", f"checkpoint={cell}", "trainer.device=cpu")
        assert evaluated.code == 0, evaluated.errors
        assert f"test accuracy  {100 * float(row['test_accuracy']):.1f} % of 360 images" in evaluated.out


def test_without_keep_models_no_weights_are_left_and_evaluate_says_so(sweep, command):
    _, folder = sweep("sizes=[4]", "replicates=1")
    assert not list(folder.rglob("*.ckpt"))
    result = command("task=evaluate", f"checkpoint={folder}/runs/n00004-r00")
    assert result.code == 4
    assert "checkpoint" in result.errors[0]
    assert "n00004-r00" in result.errors[0]
    assert len(result.errors) <= 3


# ------------------------------------------------------------------------------------------------- going on


def test_finished_sweep_trains_nothing_again(sweep, command):
    _, folder = sweep()
    before, rows = traces(folder), (folder / "sample_size.csv").read_bytes()
    result = command(f"resume={folder}")
    assert result.code == 0, result.errors
    assert "4 of 4 trainings are done already" in result.out
    assert traces(folder) == before
    assert (folder / "sample_size.csv").read_bytes() == rows


def test_more_sizes_and_replicates_train_only_what_is_missing(sweep, command):
    _, folder = sweep("sizes=[4]", "replicates=1")
    first = traces(folder)
    assert command(f"resume={folder}", "sizes=[4,8]").code == 0
    second = traces(folder)
    result = command(f"resume={folder}", "replicates=2", "target=0.2", "sweep.jobs=1")
    assert result.code == 0, result.errors
    assert "2 of 4 trainings are done already" in result.out
    assert "20.0 %:" in result.out
    now = traces(folder)
    assert first.items() <= second.items() <= now.items()
    assert cells(folder) == ["n00004-r00", "n00004-r01", "n00008-r00", "n00008-r01"]
    _, at_once = sweep()
    assert without_seconds(folder) == without_seconds(at_once), "in three commands as in one"


@pytest.mark.long
def test_fewer_sizes_leave_the_others_for_later(sweep, command):
    _, folder = sweep()
    before = traces(folder)
    assert command(f"resume={folder}", "sizes=[8]").code == 0
    assert {row["per_class"] for row in table(folder)} == {"8"}
    assert command(f"resume={folder}", "sizes=[4,8]").code == 0
    assert {row["per_class"] for row in table(folder)} == {"4", "8"}
    assert traces(folder) == before


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("protocol=posts", "protocol=posts: this run was made with protocol=robust"),
        ("seed=1", "seed=1: this run was made with seed=0"),
        ("model=lenet", "model=lenet: this run was made with model=mlp"),
        ("data.val_fraction=0.3", "data.val_fraction=0.3: this run was made with data.val_fraction=0.2"),
        ("data.max_per_class=9", "this run was made with data.max_per_class=null"),
        ("budget.min_steps=40", "this run was made with budget.min_steps=20"),
        ("optimizer.lr=1", "this run was made with optimizer.lr=0.02"),
        ("keep_models=true", "this run was made with keep_models=false"),
        ("trainer.steps=30", "cannot be changed within a sweep"),
        ("trainer.epochs=2", "cannot be changed within a sweep"),
        ("trainer.early_stopping.patience=9", "cannot be changed within a sweep"),
        ("sizes=[4,9999]", "there are not so many training images of each class"),
    ],
)
def test_what_would_mix_two_kinds_of_trainings_is_refused(word, words, started, command):
    before = {path: path.read_bytes() for path in started.rglob("*") if path.is_file() and path.suffix != ".txt"}
    del before[started / ".lock"]
    result = command(f"resume={started}", word)
    assert result.code == (3 if word.startswith("sizes") else 2)
    assert words in result.errors[0]
    if result.code == 2:
        assert all(path.read_bytes() == content for path, content in before.items())


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """The folder of a sweep of one training."""
    from cvtrain.cli import dispatch
    from cvtrain.ending import exit_code_of

    out = tmp_path_factory.mktemp("started")
    words = [*MODEL, *FAST, *BUDGET, "sizes=[4]", "replicates=1", f"output_dir={out}"]
    assert exit_code_of(lambda: dispatch(["task=sample_size_sweep", *words])) == 0
    return next(out.glob("sample_size_sweep/*/*"))


def test_changed_images_are_refused(command, tmp_path, write_images):
    counts = {"train/cat": 6, "train/dog": 5, "test/cat": 2, "test/dog": 2}
    root = write_images(tmp_path / "images", counts, size=16)
    data = ["data=image_folder", f"data.root={root}", f"data.cache_dir={tmp_path / 'cache'}", "data.image_size=16"]
    result = command("task=sample_size_sweep", *data, *SMALL, "sizes=[2,3]")
    assert result.code == 0, result.errors  # two classes, two and three images of each
    (folder,) = (tmp_path / "outputs" / "sample_size_sweep").glob("*/*")
    before = traces(folder)
    shutil.copy(root / "train" / "dog" / "0.png", root / "train" / "cat" / "another.png")
    result = command(f"resume={folder}", "sizes=[2,3,4]")
    assert result.code == 4
    assert result.errors[0] == "error: the data have changed since this sweep was started"
    assert traces(folder) == before


# ------------------------------------------------------------------------------------------------- failing


def test_failed_trainings_are_told_at_once_and_the_curve_is_made_of_the_others(sweep, command):
    _, folder = sweep("sizes=[4]", "replicates=2")
    broken = folder / "runs" / "n00008-r00" / "config.yaml"  # a folder where a file is to be written
    broken.mkdir(parents=True)
    result = command(f"resume={folder}", "sizes=[4,8]")
    assert result.code == 4
    assert result.errors[0] == "error: failed with exit code 4: n00008-r00"
    lines = result.out.splitlines()
    failed = next(i for i, line in enumerate(lines) if "8 per class, run 0 failed" in line)
    assert "could not be written" in lines[failed]
    assert any("8 per class, run  1  test" in line for line in lines[failed:]), "the others go on"
    assert "tries again what failed" in result.out
    assert [(row["per_class"], row["replicate"]) for row in table(folder)] == [("4", "0"), ("4", "1"), ("8", "1")]
    curve = strict_json(folder / "learning_curve.json")
    assert [list(point["accuracies"]) for point in curve["points"]] == [["0", "1"], ["1"]]
    assert strict_json(folder / "run.json")["status"] == "failed"
    broken.rmdir()
    before = {path: trace for path, trace in traces(folder).items() if "n00008-r00" not in path.parts}
    assert command(f"resume={folder}").code == 0
    assert before.items() <= traces(folder).items()
    _, undisturbed = sweep()
    assert without_seconds(folder) == without_seconds(undisturbed)
    assert strict_json(folder / "run.json")["status"] == "done"


def test_sweep_that_diverges_everywhere_ends_in_words_and_can_be_tried_again(sweep, command):
    result, folder = sweep("optimizer=sgd", "optimizer.lr=1e30", "scheduler=constant", "budget.scale_lr=false")
    assert result.code == 5
    assert result.out.count("failed: diverged: the loss is not a finite number at step") == 4
    assert "no curve: 0 sizes are measured" in result.out
    assert len(result.errors) <= 6
    assert (folder / "sample_size.csv").read_text() == HEADER + "\n"
    assert strict_json(folder / "learning_curve.json")["points"] == []
    assert "drawn" not in result.out
    before = traces(folder)
    again = command(f"resume={folder}", "sizes=[4]")
    assert (again.code, again.out.count("failed: diverged")) == (5, 2)
    assert traces(folder) != before


@pytest.mark.parametrize(
    "words",
    [
        ["sizes=[4]", "replicates=1"],
        ["sizes=[2,3]", "replicates=1"],
        ["sizes=[4,8]", "data=synthetic", "data.num_classes=2", "data.per_class=20", "data.image_size=16"],
        ["sizes=[2,4]", "trainer.batch_size=1"],
        ["sizes=[4,8]", "trainer.epochs=1", "replicates=[2,1]"],
    ],
)
def test_smallest_sweeps_end_in_words(words, sweep):
    result, folder = sweep(*words)
    assert result.code == 0, result.errors
    assert result.errors == []
    assert ("no curve" if "," not in words[0] else "no look ahead") in result.out
    strict_json(folder / "learning_curve.json")
    assert (folder / "plots" / "learning_curve.png").exists()


# ------------------------------------------------------------------------------------------------- command lines


@pytest.mark.parametrize(
    ("word", "words"),
    [
        ("sizes=10", "sizes=10: must be auto or a list of whole numbers >= 2, such as [10,100,1000]"),
        ("sizes=10,20", "a list is written [a,b]"),
        ("sizes=[10 20]", "a list of whole numbers >= 2, such as [10,100,1000]"),
        ("sizes=[1,2]", "whole numbers >= 2"),
        ("sizes=[10,10]", "a size stands there twice"),
        ("sizes=[]", "sizes=[]: name a size at least, such as sizes=[10,100,1000]"),
        ("data.val_fraction=0.7", "data.val_fraction=0.7: at most half of a subset can validate"),
        ("replicates=0", "replicates=0: must be auto or a whole number >= 1"),
        ("replicates=[1,2]", "a list needs sizes=[...] of the same length"),
        ("target=95", "target=95: must be an accuracy above 0 and below 1"),
        ("target=95%", "target=95%: must be an accuracy above 0 and below 1"),
        ("jobs=2", "did you mean sweep.jobs?"),
        ("epochs=3", "did you mean trainer.epochs?"),
        ("protocol=post", "protocol=post: must be robust | posts"),
        ("data.val_fraction=0", "needs images to validate"),
    ],
)
def test_wrong_words_are_answered_with_the_right_ones(word, words, command, tmp_path):
    result = command("task=sample_size_sweep", word)
    assert result.code == 2
    assert words in result.errors[0]
    assert len(result.errors) <= 2
    assert not (tmp_path / "outputs").exists()


def test_budget_is_idle_with_posts(command):
    result = command("task=sample_size_sweep", "protocol=posts", "budget.min_steps=40")
    assert (result.code, result.errors) == (2, ["error: budget.min_steps has no effect with protocol=posts"])


def test_folder_without_a_sweep_cannot_be_resumed(command, tmp_path):
    (tmp_path / "empty").mkdir()
    result = command("resume=empty", "sizes=[4]")
    assert result.code == 4
    assert "empty holds no run" in result.errors[0]


def test_a_training_is_not_resumed_with_sizes(command, tmp_path):
    assert command(*MODEL, "trainer.steps=2").code == 0
    (folder,) = (tmp_path / "outputs" / "train").glob("*/*")
    result = command(f"resume={folder}", "sizes=[4,8]")
    assert result.code == 2
    assert "unknown key sizes" in result.errors[0]


@pytest.mark.parametrize("more", [[], ["trainer.steps=30"]])
def test_one_training_of_a_sweep_is_not_resumed_alone(more, started, command):
    before = traces(started)
    result = command(f"resume={started}/runs/n00004-r00", *more)
    assert result.code == 2
    assert "n00004-r00 is one training of a sample-size sweep" in result.errors[0]
    assert result.errors[1] == f"  continue the sweep: cvtrain resume={started}"
    assert traces(started) == before, "on all the images it would not be that training any more"


@pytest.mark.parametrize("folder", ["", "/runs/n00004-r99"])
def test_sweep_is_no_checkpoint(folder, started, command):
    result = command("task=evaluate", f"checkpoint={started}{folder}")
    assert result.code == 4
    assert "is a sample-size sweep, and names no trained model" in result.errors[0]
    assert "keep_models=true" in result.errors[1]


@pytest.mark.long
def test_multirun_makes_a_sweep_of_each_model(command, tmp_path):
    words = ["task=sample_size_sweep", "model=linear,mlp", "sizes=[4]", "replicates=1", *FAST, *BUDGET]
    result = command("--multirun", *words)
    assert result.code == 0, result.errors
    folders = [path.parent for path in (tmp_path / "outputs" / "sweeps").glob("*/*/sample_size.csv")]
    assert len(folders) == 2
    for folder in folders:
        assert len(table(folder)) == 1
        assert f"results {folder.relative_to(tmp_path)}" in result.out, "each says where it is"
    assert command(f"resume={folders[0]}").code == 0
