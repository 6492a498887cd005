import pytest

from cvtrain.engine.diagnosis.history import Totals
from cvtrain.engine.events import Evaluation, Step
from cvtrain.step_log import StepLog

EVALUATION = Evaluation(1, 4, 0.5, 0.5, None, None, 0.1, 1.0, 1.0)


def test_each_line_tells_of_the_steps_since_the_last_one():
    lines = []
    log = StepLog(2, say=lines.append)
    sums = {1: (9, 1, 4), 2: (16, 2, 8), 3: (20, 5, 12), 4: (24, 8, 16), 6: (4, 2, 4)}
    for step in (1, 2, 3, 4):
        log.see(Step(step, 0.1), lambda step=step: Totals(*sums[step]))
    log.see(EVALUATION, lambda: pytest.fail("sums are read for a line only"))
    log.see(Step(6, 0.01), lambda: Totals(*sums[6]))
    assert lines == [
        "step 2  train 2.0000  25.0 %  lr 0.1",
        "step 4  train 1.0000  75.0 %  lr 0.1",
        "step 6  train 1.0000  50.0 %  lr 0.01",
    ]


def test_without_a_number_of_steps_nothing_is_read():
    log = StepLog(None, say=pytest.fail)
    log.see(Step(10, 0.1), lambda: pytest.fail("no sums are read"))


def test_training_says_its_loss_between_evaluations(command):
    result = command("data=digits", "model=linear", "trainer.epochs=1", "trainer.log_every=5")
    assert result.code == 0
    assert [line.split()[1] for line in result.out.splitlines() if line.startswith("step ")] == ["5", "10"]
