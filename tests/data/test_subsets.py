"""Balanced subsets: nested within a replicate, independent across replicates, the same for whoever asks."""

import itertools

import pytest
import torch

from cvtrain.data.subsets import balanced_subset, num_val_of

SIZES = (2, 3, 5, 10, 20, 47, 100)


def labels_of(counts, *, seed=0):
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


LABELS = labels_of([100, 130, 250])


def subset(per_class, *, replicate=0, seed=0, val_fraction=0.2, labels=LABELS):
    return balanced_subset(labels, per_class=per_class, val_fraction=val_fraction, seed=seed, replicate=replicate)


def members(indices):
    return set(indices.tolist())


@pytest.mark.parametrize("val_fraction", [0.05, 0.1, 0.2, 0.3, 0.5])
@pytest.mark.parametrize("per_class", SIZES)
def test_every_class_gives_the_same_number_to_each_role(per_class, val_fraction):
    made = subset(per_class, val_fraction=val_fraction)
    val = num_val_of(per_class, val_fraction)
    assert torch.bincount(LABELS[made.val], minlength=3).tolist() == [val] * 3
    assert torch.bincount(LABELS[made.train], minlength=3).tolist() == [per_class - val] * 3
    assert val >= 1
    assert per_class - val >= 1


def test_a_fifth_validates_at_the_sizes_of_the_sweep():
    assert [num_val_of(n, 0.2) for n in (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)] == [
        2,
        4,
        10,
        20,
        40,
        100,
        200,
        400,
        1000,
    ]


@pytest.mark.parametrize("val_fraction", [0.05, 0.1, 0.2, 0.3, 0.5])
def test_larger_subsets_hold_the_smaller_ones_in_the_same_roles(val_fraction):
    for small, large in itertools.combinations(SIZES, 2):
        inner, outer = subset(small, val_fraction=val_fraction), subset(large, val_fraction=val_fraction)
        assert members(inner.train) <= members(outer.train)
        assert members(inner.val) <= members(outer.val)


def test_no_image_has_two_roles_and_positions_ascend():
    made = subset(100)
    assert not members(made.train) & members(made.val)
    assert (made.train.diff() > 0).all()
    assert (made.val.diff() > 0).all()


def test_replicates_are_independent_draws():
    first, second = subset(20, replicate=0), subset(20, replicate=1)
    of_the_large_class = [
        {i for i in (*made.train.tolist(), *made.val.tolist()) if LABELS[i] == 2} for made in (first, second)
    ]
    # 20 of 250 twice: 1.6 in common on average, and 8 or more in one of 30,000 pairs of draws.
    assert len(of_the_large_class[0] & of_the_large_class[1]) < 8


def test_a_replicate_draws_every_image_equally_often():
    times = torch.zeros(len(LABELS))
    for replicate in range(400):
        made = subset(20, replicate=replicate)
        times[made.train] += 1
        times[made.val] += 1
    expected = 400 * 20 / torch.bincount(LABELS)[LABELS]
    assert ((times - expected).abs() < 6 * expected.sqrt()).all()


def test_the_same_seed_and_replicate_give_the_same_images():
    again, other = subset(20), subset(20, seed=1)
    assert torch.equal(subset(20).train, again.train)
    assert torch.equal(subset(20).val, again.val)
    assert not torch.equal(subset(20).train, other.train)


def test_images_of_a_class_do_not_depend_on_other_classes():
    fewer = LABELS.clone()
    fewer[LABELS == 0] = 2  # class 0 is gone, and class 2 has other members
    assert {i for i in members(subset(20).train) if LABELS[i] == 1} == {
        i for i in members(subset(20, labels=fewer).train) if fewer[i] == 1
    }
