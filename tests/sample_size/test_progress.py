"""One bar for trainings that differ in length."""

import pytest

from cvtrain.console import Console
from cvtrain.sample_size.plan import Cell
from cvtrain.sample_size.progress import Progress
from cvtrain.sample_size.protocol import Course


class Bar(Console):
    """Keeps what it is asked to show."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def progress(self, done, total, what, *, unit=""):
        self.shown.append((done, total, unit))


def cell(per_class, *, total_steps, batch_size):
    course = Course(batch_size, 1, total_steps, 10, "val_loss", 3, 0)
    return Cell(per_class, 0, 8 * per_class, 2 * per_class, course)


@pytest.fixture
def cells():
    return [cell(10, total_steps=100, batch_size=10), cell(20, total_steps=100, batch_size=40)]


def test_bar_counts_images_and_not_trainings(cells):
    bar = Bar()
    progress = Progress(cells, done=[], console=bar)
    progress.step("n00010-r00", 50)
    progress.step("n00020-r00", 25)
    progress.step("n00010-r00", 60)
    assert bar.shown == [(500, 5000, "images"), (1500, 5000, "images"), (1600, 5000, "images")]


def test_training_that_ends_early_or_fails_counts_as_a_whole(cells):
    bar = Bar()
    progress = Progress(cells, done=[], console=bar)
    progress.step("n00020-r00", 25)
    progress.end_of(cells[1])
    progress.step("n00010-r00", 1000)  # never more than there is
    progress.end_of(cells[0])
    assert [done for done, _, _ in bar.shown] == [1000, 4000, 5000, 5000]


def test_what_was_done_before_is_not_part_of_the_bar(cells):
    bar = Bar()
    Progress(cells, done={"n00020-r00"}, console=bar).step("n00010-r00", 10)
    assert bar.shown == [(100, 1000, "images")]
