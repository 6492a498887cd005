import errno
import os

import pytest
import torch

from cvtrain.engine.checkpoint import list_checkpoints, load_newest, mark_best
from cvtrain.engine.events import Evaluation
from cvtrain.errors import OutputError
from cvtrain.outputs import RunDir
from cvtrain.safekeeping import Safekeeping


@pytest.fixture
def run_dir(tmp_path):
    run_dir = RunDir.create(tmp_path)
    yield run_dir
    run_dir.close()


@pytest.fixture
def full_disk(monkeypatch):
    """Makes every write fail: `with full_disk():`."""

    def fail(*_args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def make(name="write"):
        context = monkeypatch.context()
        context.__enter__().setattr(os, name, fail)
        return context

    return make


def end(context):
    context.__exit__(None, None, None)


def value(run_dir, kind):
    loaded = load_newest(run_dir.checkpoint_dir, kind)
    return loaded.state["weights"].item()


def test_newest_and_best_are_kept(run_dir):
    keeping = Safekeeping(run_dir, keep=2, warn=pytest.fail)
    for step, is_best in ((1, True), (2, True), (3, False), (4, False)):
        assert keeping.save({"weights": torch.tensor(float(step))}, step, is_best=is_best)
    assert [file.step for file in list_checkpoints(run_dir.checkpoint_dir, "step")] == [3, 4]
    assert (value(run_dir, "step"), value(run_dir, "best")) == (4, 2)


@pytest.mark.parametrize("call", ["write", "fsync", "replace", "link"])
def test_best_that_could_not_be_written_is_written_later_as_it_was(call, run_dir, full_disk):
    warnings, weights = [], torch.zeros(())
    keeping = Safekeeping(run_dir, keep=2, warn=warnings.append)
    assert keeping.save({"weights": weights}, 1, is_best=True)

    disk = full_disk(call)
    weights.fill_(2)
    assert not keeping.save({"weights": weights, "more": [weights, {"a": weights}]}, 2, is_best=True)
    weights.fill_(3)  # training goes on in the same memory
    if call != "link":
        assert not keeping.save({"weights": weights}, 3)
    assert value(run_dir, "best") == 0
    end(disk)

    weights.fill_(4)
    assert keeping.save({"weights": weights}, 4)
    assert (value(run_dir, "step"), value(run_dir, "best")) == (4, 2)
    assert len(warnings) == 1
    assert "No space left on device; training goes on, and the next save tries again" in warnings[0]


def test_newer_best_replaces_one_that_could_not_be_written(run_dir, full_disk):
    keeping = Safekeeping(run_dir, keep=1, warn=lambda _line: None)
    disk = full_disk()
    assert not keeping.save({"weights": torch.tensor(1.0)}, 1, is_best=True)
    end(disk)
    assert keeping.save({"weights": torch.tensor(2.0)}, 2, is_best=True)
    assert keeping.save({"weights": torch.tensor(3.0)}, 3)
    assert (value(run_dir, "step"), value(run_dir, "best")) == (3, 2)


def test_each_time_that_the_disk_fills_up_there_is_one_warning(run_dir, full_disk):
    warnings = []
    keeping = Safekeeping(run_dir, keep=2, warn=warnings.append)
    for turn in range(2):
        disk = full_disk()
        for step in range(3):
            assert not keeping.save({"weights": torch.tensor(0.0)}, 10 * turn + step)
        end(disk)
        assert keeping.save({"weights": torch.tensor(0.0)}, 10 * turn + 5)
    assert len(warnings) == 2


def test_checkpoint_that_the_run_depends_on_is_an_error(run_dir, full_disk):
    keeping = Safekeeping(run_dir, keep=2, warn=pytest.fail)
    disk = full_disk()
    with pytest.raises(OutputError, match="checkpoint of step 1 could not be written") as raised:
        keeping.save({"weights": torch.tensor(1.0)}, 1, must=True)
    end(disk)
    assert raised.value.exit_code == 4


# ------------------------------------------------------------------------------------------------ going on


EVALUATION = Evaluation(1, 4, 0.5, 0.5, 0.4, 0.6, 0.1, 1.0, 1.0)


def left_behind(run_dir, *, is_best=False):
    """What a run that was best at step 1 and has gone on to step 2 leaves: two rows, the best and the newest state."""
    keeping = Safekeeping(run_dir, keep=1, warn=pytest.fail)
    for step in (1, 2):
        run_dir.append_metrics(EVALUATION)
        state = {
            "trainer": {"step": step},
            "selection": {"best": {"step": 2 if is_best else 1}},
            "is_best": is_best or step == 1,
            "metrics_num_bytes": run_dir.metrics_num_bytes(),
        }
        assert keeping.save(state, step, is_best=state["is_best"])
    run_dir.write_card({"status": "running"})


def warnings_of_going_on(run_dir):
    warnings = []
    Safekeeping(run_dir, keep=1, warn=warnings.append).go_on_from(load_newest(run_dir.checkpoint_dir))
    return warnings


def damage(path, *, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def test_folder_that_is_as_it_was_left_is_gone_on_from_without_a_word(run_dir):
    left_behind(run_dir)
    run_dir.append_metrics(EVALUATION)
    assert warnings_of_going_on(run_dir) == []
    assert len(run_dir.read_metrics()) == 2


def test_rows_that_were_changed_are_told(run_dir):
    left_behind(run_dir)
    damage(run_dir.metrics_path, at=-20)
    (warning,) = warnings_of_going_on(run_dir)
    assert warning == f"{run_dir.metrics_path} has been changed since it was written: its rows may be wrong"


def test_rows_that_are_gone_are_told(run_dir):
    left_behind(run_dir)
    run_dir.metrics_path.unlink()
    (warning,) = warnings_of_going_on(run_dir)
    assert warning == f"{run_dir.metrics_path} is shorter than it was: rows are missing"


def test_card_that_was_changed_is_told(run_dir):
    left_behind(run_dir)
    damage(run_dir.card_path, at=20)
    (warning,) = warnings_of_going_on(run_dir)
    assert warning == f"{run_dir.card_path} was damaged, and is written again"


@pytest.mark.parametrize("how", ["damaged", "removed", "another"])
def test_best_checkpoint_that_is_lost_is_told_at_the_start(how, run_dir):
    left_behind(run_dir)
    (best,) = list_checkpoints(run_dir.checkpoint_dir, "best")
    if how == "damaged":
        damage(best.path, at=-99)
    else:
        best.path.unlink()
    if how == "another":
        mark_best(list_checkpoints(run_dir.checkpoint_dir, "step")[-1])
    (warning,) = warnings_of_going_on(run_dir)
    assert warning.startswith("the best checkpoint, of step 1, ")
    assert warning.endswith(": only a better one can be tested")
    assert ("is damaged" in warning) == (how == "damaged")


def test_best_that_was_not_marked_yet_is_marked(run_dir):
    left_behind(run_dir, is_best=True)
    for best in list_checkpoints(run_dir.checkpoint_dir, "best"):
        best.path.unlink()
    assert warnings_of_going_on(run_dir) == []
    assert load_newest(run_dir.checkpoint_dir, "best").state["trainer"]["step"] == 2
