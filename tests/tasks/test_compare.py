"""Two small sweeps on the digits, compared from end to end."""

import json
import os
import shutil
from pathlib import Path

import pytest

from cvtrain.cli import dispatch, exit_code_of

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
        ([], 2, "task=compare needs two sample-size sweeps, and none is named"),
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
