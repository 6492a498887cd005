"""Which sizes are trained, how often, on which images; and what is said where there are too few."""

from dataclasses import replace

import pytest
import torch

from cvtrain import build
from cvtrain.compose import compose
from cvtrain.data.images import ImageSet, MemoryImages
from cvtrain.errors import DataError
from cvtrain.sample_size.plan import SIZES, make_plan, seed_of, split_of


@pytest.fixture(scope="module")
def digits():
    return build.read_data(compose([]))


@pytest.fixture(scope="module")
def many(digits):
    """6,000 images of each class, of one pixel."""
    labels = torch.arange(10).repeat(6000)
    pixels = MemoryImages(torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8))
    return replace(digits, train=ImageSet(pixels, labels))


def plan_of(data, *words):
    return make_plan(compose(["task=sample_size_sweep", *words]), data)


def test_default_sizes_go_as_far_as_the_data(many, digits):
    assert plan_of(many).sizes == SIZES == (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
    assert plan_of(digits).sizes == (10, 20, 50, 100)
    assert plan_of(digits, "data.max_per_class=7").sizes == (7,)


def test_default_replicates_are_more_where_runs_differ_more(many):
    plan = plan_of(many)
    assert [len(plan.at(size)) for size in plan.sizes] == [20, 20, 20, 10, 10, 10, 5, 5, 5]


def test_replicates_as_a_number_or_size_by_size(many):
    assert [len(plan_of(many, "replicates=2").at(size)) for size in SIZES] == [2] * 9
    plan = plan_of(many, "sizes=[100,10,1000]", "replicates=[3,7,1]")
    assert plan.sizes == (10, 100, 1000)
    assert [len(plan.at(size)) for size in plan.sizes] == [7, 3, 1]


def test_a_class_that_is_too_small_is_named_with_its_count(digits):
    with pytest.raises(DataError, match=r"sizes=500: there are not so many training images") as caught:
        plan_of(digits, "sizes=[10,50,200,500]")
    counts = torch.bincount(digits.train.labels)
    assert f"{digits.class_names[counts.argmin()]} {counts.min()}" in caught.value.message
    assert all(f"{n} {c}" in caught.value.message for n, c in zip(digits.class_names, counts.tolist(), strict=True))
    assert caught.value.exit_code == 3
    assert "sizes=[10,50]" in caught.value.hint
    assert "on_short=cap" in caught.value.hint


def test_sizes_are_cut_to_the_smallest_class_on_demand(digits):
    smallest = int(torch.bincount(digits.train.labels).min())
    plan = plan_of(digits, "sizes=[10,200,500]", "replicates=[4,3,2]", "on_short=cap")
    assert plan.sizes == (10, smallest)
    assert [len(plan.at(size)) for size in plan.sizes] == [4, 3]
    assert f"{smallest} of each class are taken instead" in plan.notes[0]


def test_a_class_of_one_image_is_refused(digits):
    labels = torch.tensor([*range(10), *range(9)])
    bare = replace(digits, train=ImageSet(MemoryImages(torch.zeros(19, 1, 1, 1, dtype=torch.uint8)), labels))
    with pytest.raises(DataError, match=r"fewer than 2 training images: 9 1, 0 2"):
        plan_of(bare)


def test_replicates_that_share_their_images_are_told(many):
    notes = plan_of(many, "sizes=[10,6000]", "replicates=2").notes
    assert notes == (
        "each training with 6,000 images per class takes all of the images: the spread between them is understated",
    )
    assert plan_of(many, "sizes=[10,6000]", "replicates=[2,1]").notes == ()
    assert plan_of(many, "sizes=[10,2999]", "replicates=2").notes == ()


def test_splits_are_nested_and_alike_for_every_model(many):
    config = compose(["task=sample_size_sweep", "sizes=[10,100]", "replicates=2"])
    other = compose(["task=sample_size_sweep", "sizes=[10,100]", "replicates=2", "model=mlp", "protocol=posts"])
    cells = make_plan(config, many).cells
    splits = {(c.per_class, c.replicate): split_of(config, many, c) for c in cells}
    for cell in make_plan(other, many).cells:
        assert split_of(other, many, cell).hash() == splits[cell.per_class, cell.replicate].hash()
    for replicate in (0, 1):
        small, large = splits[10, replicate], splits[100, replicate]
        assert set(small.train.tolist()) <= set(large.train.tolist())
        assert set(small.val.tolist()) <= set(large.val.tolist())
        assert len(small.train) == 80
        assert len(small.test) == len(many.test)
    assert splits[10, 0].hash() != splits[10, 1].hash()


def test_seeds_differ_between_replicates_and_studies():
    seeds = {seed_of({"seed": seed}, replicate) for seed in range(20) for replicate in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_pool_respects_the_limit_per_class(many):
    config = compose(["task=sample_size_sweep", "data.max_per_class=40", "sizes=[20]", "replicates=1"])
    split = split_of(config, many, make_plan(config, many).cells[0])
    assert int(split.train.max()) < 400  # labels take turns: the first 40 of each class are the first 400
    assert len(split.test) <= 400


def test_a_schedule_that_posts_never_gets_to_is_told(many):
    words = ["protocol=posts", "sizes=[10,1000]", "replicates=1"]
    (note,) = plan_of(many, *words).notes
    assert "scheduler=one_cycle is still warming up then: type scheduler=constant" in note
    assert plan_of(many, *words, "scheduler=constant").notes == ()
    assert plan_of(many, *words, "scheduler=cosine").notes == ()
    assert plan_of(many, *words[1:]).notes == ()
