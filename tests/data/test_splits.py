import pytest
import torch

from cvtrain.data.splits import Split, first_per_class, make_split, stratified_split
from cvtrain.errors import DataError


def labels_of(*counts, seed=0):
    """Shuffled labels with so many images of class 0, 1, ..."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


def split_of(train, *, val=None, test=None, val_fraction=0.1, max_per_class=None, seed=0):
    test = labels_of(5, 5) if test is None else test
    return make_split(train, val, test, val_fraction=val_fraction, max_per_class=max_per_class, seed=seed)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("counts", [(100, 100, 100), (7, 1000, 31), (2, 2), (3, 50)])
def test_split_is_stratified_disjoint_and_complete(counts, fraction):
    labels = labels_of(*counts)
    kept, carved = stratified_split(labels, fraction, seed=1)
    assert torch.equal(torch.cat([kept, carved]).sort().values, torch.arange(len(labels)))
    assert torch.equal(kept, kept.sort().values)
    assert torch.equal(carved, carved.sort().values)
    assert kept.dtype == carved.dtype == torch.int64
    carved_counts = labels[carved].bincount(minlength=len(counts)).tolist()
    for count, carved_count in zip(counts, carved_counts, strict=True):
        assert carved_count == min(max(round(fraction * count), 1), count - 1)


def test_every_class_keeps_an_image_to_train_on():
    labels = labels_of(1, 2, 1, 40)
    kept, carved = stratified_split(labels, 0.9, seed=0)
    assert labels[kept].bincount(minlength=4).tolist() == [1, 1, 1, 4]
    assert labels[carved].bincount(minlength=4).tolist() == [0, 1, 0, 36]


def test_nothing_is_carved_without_a_fraction():
    kept, carved = stratified_split(labels_of(5, 5), 0.0, seed=0)
    assert torch.equal(kept, torch.arange(10))
    assert len(carved) == 0


def test_split_depends_on_the_seed_alone():
    labels = labels_of(50, 50)
    first = split_of(labels, seed=2**62)
    torch.rand(7)
    assert split_of(labels, seed=2**62).hash() == first.hash()
    other = split_of(labels, seed=1)
    assert other.hash() != first.hash()
    assert set(other.val.tolist()) != set(first.val.tolist())


def test_classes_with_labels_that_no_image_has_are_passed_over():
    labels = torch.tensor([0, 0, 0, 5, 5, 5, 5])
    kept, carved = stratified_split(labels, 0.3, seed=0)
    assert labels[carved].tolist() == [0, 5]
    assert len(kept) == 5


def test_limits_are_nested_and_take_the_first_images():
    labels = labels_of(30, 10, 20)
    earlier: set[int] = set()
    for limit in (1, 2, 5, 10, 15, 100, None):
        indices = first_per_class(labels, limit)
        assert torch.equal(indices, indices.sort().values)
        assert earlier <= set(indices.tolist())
        earlier = set(indices.tolist())
        expected = [min(count, limit or count) for count in (30, 10, 20)]
        assert labels[indices].bincount().tolist() == expected
    assert len(earlier) == 60
    assert first_per_class(labels, 1).tolist() == sorted((labels == c).nonzero()[0].item() for c in range(3))


def test_limit_holds_before_validation_is_carved():
    split = split_of(labels_of(100, 100), max_per_class=20, val_fraction=0.25, test=labels_of(30, 3))
    assert (len(split.train), len(split.val), len(split.test)) == (30, 10, 23)
    assert split.val_from_train
    assert not set(split.train.tolist()) & set(split.val.tolist())


def test_own_validation_images_are_used_when_there_are_any():
    split = split_of(labels_of(10, 10), val=labels_of(4, 4), val_fraction=0.5)
    assert not split.val_from_train
    assert torch.equal(split.train, torch.arange(20))
    assert torch.equal(split.val, torch.arange(8))
    limited = split_of(labels_of(10, 10), val=labels_of(4, 4), max_per_class=3)
    assert (len(limited.train), len(limited.val)) == (6, 6)


def test_hash_changes_with_any_index_and_any_role():
    def indices(*values):
        return torch.tensor(values)

    base = Split(indices(0, 1, 2), indices(3), indices(0, 1), True)
    others = [
        Split(indices(0, 1, 4), indices(3), indices(0, 1), True),
        Split(indices(0, 1, 2), indices(4), indices(0, 1), True),
        Split(indices(0, 1, 2), indices(3), indices(0, 2), True),
        Split(indices(0, 1, 2), indices(3), indices(0, 1), False),
        Split(indices(0, 1), indices(2, 3), indices(0, 1), True),
        Split(indices(0, 1, 2, 3), torch.arange(0), indices(0, 1), True),
        Split(indices(0, 1, 2), torch.arange(0), indices(3, 0, 1), True),
    ]
    hashes = {split.hash() for split in [base, *others]}
    assert len(hashes) == 8
    assert Split(indices(0, 1, 2), indices(3), indices(0, 1), True).hash() == base.hash()
    assert len(base.hash()) == 64


def test_hash_of_a_split_never_changes():
    """Checkpoints remember it: another hash for the same split would keep runs from being continued."""
    import hashlib
    import struct

    split = Split(torch.tensor([0, 2]), torch.tensor([1]), torch.tensor([0, 1, 2]), True)
    parts = [[0, 2], [1], [0, 1, 2]]
    data = b"True" + b"".join(b"/%d/" % len(p) + struct.pack(f"<{len(p)}q", *p) for p in parts)
    assert split.hash() == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("num_train", [0, 1])
def test_too_few_training_images_are_refused(num_train):
    with pytest.raises(DataError, match=f"{num_train} images to train on"):
        split_of(torch.zeros(num_train, dtype=torch.int64))


def test_missing_test_images_are_refused():
    with pytest.raises(DataError, match="no test images"):
        split_of(labels_of(5, 5), test=torch.zeros(0, dtype=torch.int64))
