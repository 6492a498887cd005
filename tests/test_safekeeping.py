import errno
import os

import pytest
import torch

from cvtrain.engine.checkpoint import list_checkpoints, load_newest
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


@pytest.mark.parametrize("call", ["write", "fsync", "rename", "link"])
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
