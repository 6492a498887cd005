"""What is said when a sweep ends."""

import pytest

from cvtrain.jobs.ledger import Ledger
from cvtrain.jobs.summary import say_summary
from cvtrain.sweeps.leaderboard import JobResult


@pytest.fixture
def ledger(tmp_path):
    return Ledger.open(tmp_path, name="mine")


def trained(i):
    figures = {"val_accuracy": 0.5 + i / 100, "test_accuracy": 0.5 + i / 200, "seed": 0}
    return JobResult({"model.width": str(i)}, None, "done", **figures)


def test_job_that_trains_nothing_is_no_arm_without_a_result(ledger, capsys):
    results = [trained(1), trained(2), JobResult({"model.width": "3"}, None, "done")]
    say_summary(results, ledger, swept=["model.width"], compares=True)
    out = capsys.readouterr().out
    assert "3 of 3 jobs done" in out
    assert "model.width=2" in out
    assert "model.width=3" not in out
    say_summary(results[2:], ledger, swept=["model.width"], compares=True)
    assert "1 of 1 job done" in capsys.readouterr().out
