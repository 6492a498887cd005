import pytest
import torch

from cvtrain.data.augment import Augment
from cvtrain.data.batches import Batches
from cvtrain.data.draws import Draws
from cvtrain.data.images import ImageSet, MemoryImages
from cvtrain.data.inputs import EvalInputs, Inputs, TrainInputs
from cvtrain.data.statistics import Normalize, Statistics

NORMALIZE = Normalize(Statistics((0.5, 0.4, 0.3), (0.2, 0.3, 0.4)))


def image_set(count=23):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 8, 8, 3), generator=generator, dtype=torch.uint8)
    return ImageSet(MemoryImages(pixels), torch.arange(count) % 7)


def batches_of(images, batch_size=6):
    return Batches(images, torch.arange(len(images)), batch_size=batch_size, device=torch.device("cpu"))


def train_inputs(images, augment, *, batch_size=6, seed=0):
    return TrainInputs(batches_of(images, batch_size), augment, NORMALIZE, seed=seed)


def test_training_inputs_are_batches_augmented_then_normalised():
    images, augment = image_set(), Augment(crop_padding=2, flip="random", cutout=3)
    inputs = train_inputs(images, augment, seed=9)
    for found, batch in zip(inputs.epoch(2), batches_of(images).shuffled(2), strict=True):
        assert torch.equal(found.images, NORMALIZE(augment(batch.images, Draws(9, 2, batch.indices))))
        assert torch.equal(found.labels, batch.labels)
        assert found.weight is None
        assert found.other_labels is None


@pytest.mark.parametrize("augment", [Augment(flip="random", crop_padding=1), Augment(mixup=0.4), Augment(cutmix=1.0)])
def test_an_epoch_repeats_and_can_be_entered_anywhere(augment):
    inputs = train_inputs(image_set(), augment)
    whole = list(inputs.epoch(1))
    assert len(whole) == len(inputs)
    for start in range(len(whole)):
        for ours, theirs in zip(inputs.epoch(1, start=start), whole[start:], strict=True):
            for column, other in zip(ours, theirs, strict=True):
                assert (column is None and other is None) or torch.equal(column, other)
    assert not torch.equal(next(inputs.epoch(2)).images, whole[0].images)


def test_same_image_looks_the_same_in_batches_of_any_size():
    images, augment = image_set(), Augment(crop_padding=2, flip="random")

    def by_epoch(batch_size):
        return torch.cat([batch.images for batch in train_inputs(images, augment, batch_size=batch_size).epoch(0)])

    assert torch.equal(by_epoch(3), by_epoch(20))


@pytest.mark.parametrize(
    "augment", [Augment(), Augment(crop_padding=2, flip="random", cutout=3, color=0.2), Augment(mixup=1)]
)
def test_the_data_are_never_changed(augment):
    images = image_set()
    before = images.images.pixels.clone()
    for inputs in train_inputs(images, augment).epoch(0):
        inputs.images.zero_()
    for inputs in EvalInputs(batches_of(images), NORMALIZE):
        inputs.images.zero_()
    assert torch.equal(images.images.pixels, before)


def test_evaluation_inputs_are_all_images_in_order():
    images = image_set()
    inputs = EvalInputs(batches_of(images), NORMALIZE)
    found = list(inputs)
    assert len(found) == len(inputs) == 4
    assert torch.equal(torch.cat([i.labels for i in found]), images.labels)
    expected = NORMALIZE(images.images.pixels.permute(0, 3, 1, 2))
    assert torch.equal(torch.cat([i.images for i in found]), expected)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("batch_size", "num_parts"), [(7, 3), (8, 2), (8, 1), (6, 5), (2, 8), (1, 4)])
def test_parts_put_together_are_the_batch(batch_size, num_parts, mixed):
    labels = torch.arange(batch_size)
    batch = Inputs(torch.randn(batch_size, 3, 2, 2), labels)
    if mixed:
        batch = Inputs(batch.images, labels, labels.flip(0), torch.rand(batch_size))
    parts = batch.parts(num_parts)
    assert 1 <= len(parts) <= num_parts
    sizes = [len(part.labels) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    # Batch normalisation cannot take the variance of one image.
    assert min(sizes) >= min(2, batch_size)
    for column, pieces in zip(batch, zip(*parts, strict=True), strict=True):
        assert torch.equal(torch.cat(pieces), column) if column is not None else pieces == (None,) * len(parts)
