"""In which order trainings are done, how many at a time, and what is left of it in the folder."""

import json

import pytest

from cvtrain import build
from cvtrain.compose import compose
from cvtrain.engine.runtime import available_cores
from cvtrain.errors import DivergedError, OutputError
from cvtrain.sample_size.plan import make_plan
from cvtrain.sample_size.table import read_row
from cvtrain.sample_size.work import slots_of, train_all
from cvtrain.signals import StopRequest

WORDS = ["task=sample_size_sweep", "model=linear", "trainer.device=cpu", "sizes=[4,8]", "replicates=2"]
WORDS += ["trainer.steps=4", "trainer.evaluate_every=2"]


@pytest.fixture(scope="module")
def digits():
    return build.read_data(compose([]))


@pytest.fixture
def trained(digits, tmp_path):
    """Trains all cells of a plan: their names in the order in which they end."""

    def train(*more, stop=None, at_end=lambda result: None):
        config = compose([*WORDS, *more])
        plan, results = make_plan(config, digits), []
        stop_request = StopRequest() if stop is None else stop  # one that has not been asked for is false
        how = {"sweep_dir": tmp_path, "on_step": lambda name, step: None, "stop": stop_request}
        for result in train_all(config, plan.cells, digits, **how):
            results.append(result)
            at_end(result)
        return plan, results

    return train


def test_longest_come_first_one_after_the_other(trained, tmp_path):
    plan, results = trained("sweep.jobs=1")
    assert [result.key for result in results] == ["n00004-r00", "n00004-r01", "n00008-r00", "n00008-r01"]
    assert plan.cells[0].course.num_images == plan.cells[-1].course.num_images == 32  # as long as each other
    assert all(read_row(cell, tmp_path) for cell in plan.cells)
    _, results = trained("sweep.jobs=1", "trainer.steps=null", "trainer.epochs=1")
    assert [result.key for result in results] == ["n00008-r00", "n00008-r01", "n00004-r00", "n00004-r01"]


@pytest.mark.long
def test_trainings_at_the_same_time_leave_no_shared_images_behind(trained, tmp_path):
    seen = []
    plan, results = trained("sweep.jobs=2", at_end=lambda _: seen.append((tmp_path / ".shared").is_dir()))
    assert sorted(result.key for result in results) == [cell.name for cell in plan.cells]
    assert all(result.error is None and result.lost is None for result in results)
    assert seen[0], "the processes read one copy"
    assert not (tmp_path / ".shared").exists()


def test_shared_images_of_a_killed_process_are_replaced(trained, tmp_path):
    (tmp_path / ".shared").mkdir()
    (tmp_path / ".shared" / "train.pixels").write_bytes(b"torn")
    trained("sweep.jobs=1")
    assert not (tmp_path / ".shared").exists()


def test_folder_that_cannot_be_written_is_told(digits, tmp_path):
    config = compose([*WORDS, "sweep.jobs=2"])
    cells = make_plan(config, digits).cells
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"\.shared could not be made: Not a directory"):
        list(train_all(config, cells, digits, sweep_dir=tmp_path / "file", on_step=print, stop=StopRequest()))


def test_failure_of_one_stops_no_other(trained):
    settings = ["optimizer=sgd", "optimizer.lr=1e30", "scheduler=constant", "budget.scale_lr=false", "model=mlp"]
    _, results = trained("sweep.jobs=1", *settings)
    assert [type(result.error) for result in results] == [DivergedError] * 4


def test_signal_starts_no_further_training(trained):
    stop = StopRequest()
    _, results = trained("sweep.jobs=1", stop=stop, at_end=lambda _: setattr(stop, "signum", 15))
    assert len(results) == 1


def test_as_many_at_a_time_as_wanted_or_as_there_are_cores():
    config = compose([*WORDS])
    assert slots_of(config) == available_cores()
    for jobs, threads in ((1, 1), (3, 1), (2, 4)):
        assert slots_of({**config, "sweep": {"jobs": jobs, "threads": threads}}) == jobs * threads
    assert slots_of({**config, "sweep": {"jobs": "auto", "threads": 999}}) == 999


def test_a_training_has_one_thread_whatever_else_there_is_to_do(trained, tmp_path):
    plan, _ = trained("sizes=[4]", "replicates=1")  # all cores are free for it
    card = json.loads((plan.cells[0].folder(tmp_path) / "run.json").read_text())
    assert card["device"] == "cpu (1 threads)"


def test_a_training_has_the_threads_that_it_was_given(trained, tmp_path):
    plan, _ = trained("sweep.jobs=1", "sweep.threads=2")
    cards = [json.loads((cell.folder(tmp_path) / "run.json").read_text()) for cell in plan.cells]
    assert {card["device"] for card in cards} == {"cpu (2 threads)"}
