"""`task=report`: the right page for every kind of folder, and what it refuses."""

import json

import pytest

from cvtrain.compose import compose
from cvtrain.place import Place
from cvtrain.tasks import train
from tests.pages.runs_for_tests import write_run


def test_page_is_made_again(command, tmp_path):
    run = write_run(tmp_path / "run")
    result = command("task=report", f"run={run}")
    assert result.code == 0
    assert result.out == f"{run}/report.html\n"
    assert "mlp on digits" in (run / "report.html").read_text()
    assert {path.name for path in (run / "plots").glob("*.png")} == {
        "training_curves.png",
        "confusion_matrix.png",
        "calibration.png",
    }
    assert json.loads((run / "run.json").read_text())["status"] == "done"
    again = command("task=report", f"run={run}/report.html")
    assert (again.code, again.out) == (0, result.out), "who copies what the terminal showed names the page"


def test_plots_that_are_there_are_left_alone(command, tmp_path):
    run = write_run(tmp_path / "run")
    (run / "plots").mkdir()
    (run / "plots" / "mine.png").write_bytes(b"mine")
    assert command("task=report", f"run={run}").code == 0
    assert [path.name for path in (run / "plots").iterdir()] == ["mine.png"]


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        ([], 2, "task=report needs the folder of a run"),
        (["run=[a,b]"], 2, "names 2"),
        (["run=3"], 2, "run=3"),
        (["run=nowhere"], 4, "there is no such folder"),
        (["run=."], 4, "holds no run"),
        (["run=.", "seed=1"], 2, "seed has no effect with task=report"),
    ],
)
def test_wrong_run_is_explained(command, words, code, sentence):
    result = command("task=report", *words)
    assert result.code == code
    assert sentence in result.errors[0]
    assert len(result.errors) <= 3


def test_run_without_a_page_is_refused(command, tmp_path):
    run = write_run(tmp_path / "run", task="audit")
    result = command("task=report", f"run={run}")
    assert result.code == 4
    assert "task=audit, which has no page" in result.errors[0]


def test_page_that_cannot_be_written_is_an_output_error(command, tmp_path):
    run = write_run(tmp_path / "run")
    (run / "report.html").mkdir()
    result = command("task=report", f"run={run}")
    assert result.code == 4
    assert "report.html" in result.errors[0]
    assert [path.name for path in run.glob(".*.tmp")] == []


def test_torch_is_not_loaded(process, tmp_path):
    run = write_run(tmp_path / "run")
    program = (
        "import sys; from cvtrain.cli import dispatch; dispatch(sys.argv[1:]);"
        " sys.exit(int('torch' in sys.modules) or 10)"
    )
    assert process("task=report", f"run={run}", program=("-c", program)).code == 10


def test_sweep_and_its_job_have_pages_of_their_own(command, tmp_path):
    words = ("model=mlp", "model.hidden=[4]", "data.max_per_class=10", "trainer.epochs=1", "trainer.device=cpu")
    sweep = tmp_path / "sweep"
    job = sweep / "0123456789abcdef"
    job.mkdir(parents=True)
    (job / "job.json").write_text(json.dumps({"overrides": {}, "task": "train", "status": "done"}))
    train.run(compose(words), place=Place(job))
    assert (job / "report.html").is_file()
    assert not (job / "plots").exists(), "a job of many leaves them to this task"
    (job / "report.html").unlink()
    for folder in (sweep, job):
        assert command("task=report", f"run={folder}").code == 0
        assert (folder / "report.html").is_file()
    assert (job / "plots" / "calibration.png").is_file()
