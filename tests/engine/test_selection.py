import pytest

from cvtrain.engine.events import Evaluation
from cvtrain.engine.selection import Best, Selection


def evaluation(step, *, accuracy=None, loss=None, epoch=None):
    return Evaluation(
        epoch=step if epoch is None else epoch,
        step=step,
        train_loss=1.0,
        train_accuracy=0.5,
        val_loss=loss,
        val_accuracy=accuracy,
        lr=0.1,
        seconds=1.0,
        images_per_second=1.0,
    )


def observe(selection, accuracies=None, losses=None):
    """Whether each evaluation was the best so far, up to the one that ended patience."""
    found = []
    accuracies = accuracies or [0.5] * len(losses)
    for step, (accuracy, loss) in enumerate(zip(accuracies, losses or [1.0] * len(accuracies), strict=True), 1):
        found.append(selection.observe(evaluation(step, accuracy=accuracy, loss=loss)))
        if selection.out_of_patience:
            break
    return found


def test_highest_accuracy_is_the_best():
    selection = Selection(metric="val_accuracy")
    assert observe(selection, [0.3, 0.5, 0.4, 0.6, 0.1]) == [True, True, False, True, False]
    assert selection.best == Best(epoch=4, step=4, val_loss=1.0, val_accuracy=0.6)
    assert not selection.out_of_patience


def test_equal_accuracies_are_decided_by_the_loss_then_by_the_earlier():
    selection = Selection(metric="val_accuracy")
    assert observe(selection, [0.5, 0.5, 0.5, 0.5], [1.0, 0.9, 0.9, 1.1]) == [True, True, False, False]
    assert selection.best.step == 2


def test_lowest_loss_is_the_best_when_it_decides():
    selection = Selection(metric="val_loss")
    assert observe(selection, [0.9, 0.1, 0.2, 0.9], [1.0, 0.9, 0.9, 0.95]) == [True, True, True, False]
    assert selection.best == Best(epoch=3, step=3, val_loss=0.9, val_accuracy=0.2)


def test_patience_counts_evaluations_without_improvement():
    selection = Selection(metric="val_accuracy", patience=3)
    assert len(observe(selection, [0.1, 0.2, 0.15, 0.2, 0.3, 0.1, 0.3, 0.2, 0.9])) == 8
    assert selection.out_of_patience
    assert selection.best.step == 5


def test_lower_loss_at_the_same_accuracy_is_better_but_does_not_renew_patience():
    selection = Selection(metric="val_accuracy", patience=2)
    assert observe(selection, [0.5, 0.5, 0.5, 0.5], [1.0, 0.9, 0.8, 0.7]) == [True, True, True]
    assert selection.out_of_patience


def test_small_changes_do_not_renew_patience_yet_move_the_best():
    selection = Selection(metric="val_accuracy", patience=3, min_delta=0.05)
    assert observe(selection, [0.50, 0.52, 0.54, 0.551, 0.56, 0.57, 0.58]) == [True] * 7
    assert selection.best.val_accuracy == 0.58
    assert selection.out_of_patience
    slow = Selection(metric="val_loss", patience=2, min_delta=0.1)
    assert len(observe(slow, losses=[1.0, 0.95, 0.85, 0.8, 0.76, 0.5])) == 5


def test_patience_is_armed_after_the_smallest_number_of_epochs():
    selection = Selection(metric="val_accuracy", patience=2, min_epochs=5)
    assert len(observe(selection, [0.9] + [0.1] * 10)) == 6
    assert selection.best.step == 1


def test_without_validation_the_last_is_the_best_and_patience_never_ends():
    selection = Selection(metric="val_accuracy", patience=1)
    assert [selection.observe(evaluation(step)) for step in (1, 2, 3)] == [True] * 3
    assert selection.best == Best(3, 3, None, None)
    assert not selection.out_of_patience


@pytest.mark.parametrize("metric", ["val_accuracy", "val_loss"])
def test_restored_selection_goes_on_as_if_nothing_had_happened(metric):
    accuracies, losses = [0.1, 0.4, 0.3, 0.35, 0.5, 0.2, 0.2], [2.0, 1.0, 1.5, 0.9, 0.95, 1.0, 1.0]
    figures = list(zip(accuracies, losses, strict=True))
    for cut in range(len(figures)):
        whole, first, second = (Selection(metric=metric, patience=2, min_delta=0.01) for _ in range(3))
        expected = [whole.observe(evaluation(i, accuracy=a, loss=v)) for i, (a, v) in enumerate(figures)]
        found = [first.observe(evaluation(i, accuracy=a, loss=v)) for i, (a, v) in enumerate(figures[:cut])]
        second.load_state_dict(first.state_dict())
        found += [second.observe(evaluation(i, accuracy=a, loss=v)) for i, (a, v) in enumerate(figures) if i >= cut]
        assert found == expected
        assert second.state_dict() == whole.state_dict()


def test_forgiven_selection_counts_anew_but_remembers_the_best():
    selection = Selection(metric="val_accuracy", patience=2)
    observe(selection, [0.5, 0.4, 0.4])
    assert selection.out_of_patience
    selection.forgive()
    assert not selection.out_of_patience
    assert not selection.observe(evaluation(4, accuracy=0.45, loss=1.0))
    assert selection.best.step == 1


def test_evaluations_before_the_minimum_of_steps_do_not_count():
    selection = Selection(metric="val_loss", patience=2, min_steps=4)
    losses = [0.1, 0.2, 0.3, 0.9, 0.8, 0.85, 0.95]
    assert observe(selection, losses=losses) == [False, False, False, True, True, False, False]
    assert selection.best.step == 5
    assert selection.out_of_patience


def test_without_validation_the_last_evaluation_is_the_best_whatever_the_minimum():
    selection = Selection(metric="val_accuracy", min_steps=10)
    assert selection.observe(evaluation(1))
    assert selection.best.step == 1
