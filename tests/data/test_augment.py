import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from cvtrain.data.augment import Augment, crop, cutout, erase, flip, move, recolor
from cvtrain.data.draws import Draws

OPTIONS = {
    "none": Augment(),
    "flip_crop": Augment(crop_padding=4, flip="random"),
    "zeros": Augment(crop_padding=2, crop_fill="zeros", flip="alternating"),
    "cutout": Augment(crop_padding=4, flip="random", cutout=8),
    "strong": Augment(flip="random", rotate=15.0, shift=0.1, scale=0.15, color=0.3, erase=0.25),
    "move": Augment(rotate=15.0, shift=0.1, scale=0.15),
    "erase": Augment(erase=1.0),
    "color": Augment(color=0.5),
}


def noise(batch, channels=3, height=16, width=16, *, seed=0):
    """uint8 `(B, C, H, W)`, channels-last in memory as image stores hand them over."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (batch, height, width, channels), generator=generator, dtype=torch.uint8)
    return pixels.permute(0, 3, 1, 2)


def draws_for(images, *, seed=0, epoch=0):
    return Draws(seed, epoch, torch.arange(len(images)))


@dataclass(frozen=True)
class ConstantDraws(Draws):
    """Draws that all lie at one share of their range."""

    share: float = 0.5

    def uniform(self, name: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return torch.full((len(self.indices),), low + (high - low) * self.share)


def at(share, images):
    return ConstantDraws(0, 0, torch.arange(len(images)), share=share)


# ------------------------------------------------------------------------------------------------ all options


@pytest.mark.parametrize("augment", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_output_is_uint8_of_the_same_shape_and_memory_order(augment, channels):
    images = noise(6, channels, 12, 20)
    output = augment(images, draws_for(images))
    assert output.dtype == torch.uint8
    assert output.shape == images.shape
    assert output.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("augment", OPTIONS.values(), ids=OPTIONS)
def test_input_is_never_changed(augment):
    images = noise(16)
    before = images.clone()
    augment(images, draws_for(images))
    assert torch.equal(images, before)


@pytest.mark.parametrize("augment", OPTIONS.values(), ids=OPTIONS)
def test_augmentation_of_an_image_does_not_depend_on_its_batch(augment):
    images = noise(32)
    whole = augment(images, Draws(5, 3, torch.arange(32)))
    shuffled = torch.randperm(32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(augment(images[shuffled], Draws(5, 3, shuffled)), whole[shuffled])
    for index in (0, 31):
        assert torch.equal(augment(images[index : index + 1], Draws(5, 3, torch.tensor([index])))[0], whole[index])


@pytest.mark.parametrize("name", [n for n in OPTIONS if n != "none"])
def test_augmentation_changes_with_seed_and_epoch_and_repeats_otherwise(name):
    images, augment = noise(32), OPTIONS[name]
    first = augment(images, draws_for(images))
    assert torch.equal(augment(images, draws_for(images)), first)
    assert not torch.equal(augment(images, draws_for(images, seed=1)), first)
    assert not torch.equal(augment(images, draws_for(images, epoch=1)), first)
    assert not torch.equal(first, images)


def test_no_augmentation_changes_nothing():
    images = noise(4)
    assert torch.equal(Augment()(images, draws_for(images)), images)
    assert not Augment().mixes


@pytest.mark.parametrize("augment", OPTIONS.values(), ids=OPTIONS)
def test_memory_order_of_the_input_changes_no_pixel(augment):
    images = noise(8)
    assert torch.equal(augment(images.contiguous(), draws_for(images)), augment(images, draws_for(images)))


# ------------------------------------------------------------------------------------------------ crop and flip


@pytest.mark.parametrize(
    ("shape", "padding"), [((3, 8, 8), 2), ((1, 8, 8), 4), ((3, 6, 9), 3), ((1, 4, 3), 11), ((3, 1, 5), 2)]
)
@pytest.mark.parametrize(("fill", "mode"), [("reflect", "reflect"), ("zeros", "constant")])
def test_crop_is_a_window_of_the_padded_image(shape, padding, fill, mode):
    images = noise(300, *shape)
    height, width = shape[1:]
    output = crop(images, draws_for(images), padding=padding, fill=fill).numpy()
    offsets = []
    for image, found in zip(images.numpy(), output, strict=True):
        padded = np.pad(image, ((0, 0), (padding, padding), (padding, padding)), mode=mode)
        windows = [
            (y, x)
            for y in range(2 * padding + 1)
            for x in range(2 * padding + 1)
            if np.array_equal(padded[:, y : y + height, x : x + width], found)
        ]
        assert windows
        offsets.append(windows[0])
    if padding <= 3 and min(shape[1:]) > 5:  # the windows differ from each other, so all must have been drawn
        assert len(set(offsets)) == (2 * padding + 1) ** 2


def test_crop_offsets_are_drawn_evenly():
    images = torch.zeros(9000, 1, 3, 3, dtype=torch.uint8)
    images[:, :, 1, 1] = 255  # the centre shows where the window lies
    output = crop(images, draws_for(images), padding=1, fill="zeros")
    counts = output.flatten(1).argmax(1).bincount(minlength=9)
    assert ((counts - 1000) ** 2 / 1000).sum() < 8 + 6 * math.sqrt(2 * 8)


@pytest.mark.parametrize("shape", [(3, 5, 7), (1, 4, 4)])
def test_flip_mirrors_half_of_the_images(shape):
    images = noise(1000, *shape)
    output = flip(images, draws_for(images))
    mirrored = (output == images.flip(3)).flatten(1).all(1)
    kept = (output == images).flatten(1).all(1)
    assert (mirrored ^ kept).all()
    assert abs(mirrored.float().mean().item() - 0.5) < 6 * 0.5 / math.sqrt(1000)


def test_alternating_flip_shows_every_image_both_ways_in_any_two_epochs():
    images = noise(1000, 1, 4, 4)
    shown = [flip(images, draws_for(images, epoch=epoch), alternating=True) for epoch in range(4)]
    mirrored = [(s == images.flip(3)).flatten(1).all(1) for s in shown]
    assert abs(mirrored[0].float().mean().item() - 0.5) < 6 * 0.5 / math.sqrt(1000)
    for earlier, later in itertools.pairwise(mirrored):
        assert torch.equal(earlier, ~later)


# ------------------------------------------------------------------------------------------------ move


@pytest.mark.parametrize("shape", [(3, 9, 9), (1, 8, 12)])
def test_motion_in_the_middle_of_its_range_is_the_identity(shape):
    images = noise(4, *shape)
    assert torch.equal(move(images, at(0.5, images), rotate=90.0, shift=0.3, scale=0.5), images)
    assert torch.equal(move(images, draws_for(images), rotate=0.0, shift=0.0, scale=0.0), images)


@pytest.mark.parametrize(("share", "turns"), [(1.0, 1), (0.0, -1)])
def test_rotation_by_90_degrees_equals_rot90(share, turns):
    images = noise(4, 3, 9, 9)
    output = move(images, at(share, images), rotate=90.0, shift=0.0, scale=0.0)
    assert (output.int() - torch.rot90(images, turns, (2, 3)).int()).abs().max() <= 1


def test_rotation_by_180_degrees_equals_two_flips_of_a_wide_image():
    images = noise(4, 3, 6, 10)
    output = move(images, at(1.0, images), rotate=180.0, shift=0.0, scale=0.0)
    assert (output.int() - images.flip(2, 3).int()).abs().max() <= 1


def test_rotation_of_a_wide_image_keeps_circles_round():
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(80.0), indexing="ij")
    disc = (((y - 19.5) ** 2 + (x - 39.5) ** 2 < 15**2) * 255).to(torch.uint8)[None, None]
    output = move(disc, at(1.0, disc), rotate=37.0, shift=0.0, scale=0.0)
    assert ((output > 127) != (disc > 127)).float().sum() < 0.02 * (disc > 127).sum()


@pytest.mark.parametrize(("share", "pixels"), [(1.0, 2), (0.0, -2)])
def test_shift_by_whole_pixels_is_exact_and_repeats_the_border(share, pixels):
    images = noise(3, 3, 8, 8)
    output = move(images, at(share, images), rotate=0.0, shift=0.25, scale=0.0)
    rows = (torch.arange(8) + pixels).clamp(0, 7)
    assert torch.equal(output, images[:, :, rows][:, :, :, rows])


def test_scale_by_two_shows_the_middle_twice_as_large():
    images = torch.zeros(1, 1, 16, 16, dtype=torch.uint8)
    images[:, :, 6:10, 5:11] = 200
    output = move(images, at(1.0, images), rotate=0.0, shift=0.0, scale=1.0) > 100
    expected = torch.zeros(16, 16, dtype=torch.bool)
    expected[4:12, 2:14] = True
    assert torch.equal(output[0, 0], expected)


def test_motion_stays_within_its_limits():
    images = torch.zeros(500, 1, 21, 21, dtype=torch.uint8)
    images[:, :, 10, 10] = 255
    output = move(images, draws_for(images), rotate=0.0, shift=0.2, scale=0.0).float()[:, 0]
    weight = output / output.sum((1, 2), keepdim=True)
    row = (weight.sum(2) * torch.arange(21.0)).sum(1) - 10
    assert row.abs().max() <= 0.2 * 21 + 0.02
    assert row.abs().max() > 0.9 * 0.2 * 21
    assert abs(row.mean().item()) < 6 * 0.2 * 21 / math.sqrt(3 * 500)


# ------------------------------------------------------------------------------------------------ colour


@pytest.mark.parametrize("channels", [1, 3])
def test_recolor_without_strength_is_the_identity(channels):
    images = noise(8, channels)
    assert torch.equal(recolor(images, draws_for(images), strength=0.0), images)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_recolor_equals_brightness_then_contrast_then_saturation(channels, share):
    images = noise(4, channels)
    factor = 0.7 if share == 0 else 1.3
    expected = images.numpy().astype(np.float64) * factor
    mean = expected.mean((1, 2, 3), keepdims=True)
    expected = mean + (expected - mean) * factor
    if channels == 3:
        grey = (expected * np.array([0.299, 0.587, 0.114])[None, :, None, None]).sum(1, keepdims=True)
        expected = grey + (expected - grey) * factor
    output = recolor(images, at(share, images), strength=0.3).numpy()
    assert np.abs(output - np.clip(np.round(expected), 0, 255)).max() <= 1


def test_recolor_draws_its_three_factors_apart():
    images = noise(200)
    output = recolor(images, draws_for(images), strength=0.3).float()
    brightness = output.mean((1, 2, 3))
    contrast = output.std((1, 2, 3)) / brightness
    assert abs(torch.corrcoef(torch.stack([brightness, contrast]))[0, 1].item()) < 0.75
    assert brightness.std() > 0.1 * brightness.mean()


# ------------------------------------------------------------------------------------------------ cutout and erase


def checkered(batch, channels, height, width):
    """Images of 0 and 255 only, with the mean between them: filled pixels can be told apart."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    image = ((y + x) % 2 * 255).to(torch.uint8)
    return image.expand(batch, channels, height, width).contiguous(memory_format=torch.channels_last)


def boxes(output):
    """Top, left, height and width of the filled box of each image, and whether it is filled wholly."""
    filled = (output > 0) & (output < 255)
    assert (filled == filled[:, :1]).all()
    found = []
    for mask in filled[:, 0]:
        rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
        if not len(rows):
            found.append((0, 0, 0, 0))
            continue
        top, left = rows[0].item(), columns[0].item()
        tall, wide = rows[-1].item() - top + 1, columns[-1].item() - left + 1
        assert mask.sum() == tall * wide
        found.append((top, left, tall, wide))
    return found


@pytest.mark.parametrize(("channels", "height", "width", "side"), [(3, 16, 16, 6), (1, 10, 20, 5), (3, 8, 8, 20)])
def test_cutout_fills_one_square_that_the_border_may_cut(channels, height, width, side):
    images = checkered(400, channels, height, width)
    output = cutout(images, draws_for(images), side=side)
    assert set(output[(output > 0) & (output < 255)].tolist()) <= {127, 128}
    largest = (min(side, height), min(side, width))
    found = boxes(output)
    assert all(0 < tall <= largest[0] and 0 < wide <= largest[1] for _, _, tall, wide in found)
    assert any((tall, wide) == largest for _, _, tall, wide in found)
    assert any(tall < largest[0] and wide < largest[1] for _, _, tall, wide in found)
    touched = ((output > 0) & (output < 255)).any(1).any(0)
    assert touched.all()  # the square may lie anywhere, corners included


def test_cutout_centres_lie_evenly_over_the_image():
    images = checkered(4000, 1, 16, 16)
    filled = (cutout(images, draws_for(images), side=1) == 128)[:, 0]
    assert (filled.flatten(1).sum(1) == 1).all()
    counts = filled.flatten(1).int().argmax(1).bincount(minlength=256).float()
    expected = 4000 / 256
    assert ((counts - expected) ** 2 / expected).sum() < 255 + 6 * math.sqrt(2 * 255)


def test_cutout_fills_with_the_mean_colour_of_the_image():
    images = noise(8, 3, 12, 12)
    output = cutout(images, draws_for(images), side=4)
    mean = images.float().mean((2, 3)).round().to(torch.uint8)
    changed = (output != images).any(1)
    for image, color, mask in zip(output, mean, changed, strict=True):
        assert (image[:, mask] == color[:, None]).all()


def test_erase_fills_2_to_20_per_cent_of_a_share_of_the_images():
    images = checkered(1000, 3, 40, 60)
    output = erase(images, draws_for(images), chance=0.3)
    found = [box for box in boxes(output) if box[2]]
    assert abs(len(found) / 1000 - 0.3) < 6 * math.sqrt(0.3 * 0.7 / 1000)
    areas = np.array([tall * wide for _, _, tall, wide in found]) / (40 * 60)
    assert 0.015 < areas.min() < 0.04
    assert 0.18 < areas.max() < 0.215
    assert abs(areas.mean() - 0.11) < 0.015
    ratios = np.array([tall / wide for _, _, tall, wide in found])
    assert 0.25 < ratios.min() < 0.5
    assert 2 < ratios.max() < 4
    assert all(top + tall <= 40 and left + wide <= 60 for top, left, tall, wide in found)


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.0), (1.0, 1.0)])
def test_erase_never_or_always(chance, share):
    images = checkered(100, 1, 20, 20)
    output = erase(images, draws_for(images), chance=chance)
    assert (output != images).flatten(1).any(1).float().mean() == share


def test_erase_keeps_rectangles_inside_very_wide_images():
    images = checkered(300, 1, 4, 100)
    assert len(boxes(erase(images, draws_for(images), chance=1.0))) == 300


# ------------------------------------------------------------------------------------------------ mixing


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_mixup_weights_follow_the_beta_distribution(alpha):
    images, labels = torch.zeros(20_000, 1, 1, 1), torch.zeros(20_000, dtype=torch.int64)
    weight = Augment(mixup=alpha).mix(images, labels, draws_for(images)).weight
    variance = 1 / (4 * (2 * alpha + 1))  # of Beta(alpha, alpha); its mean is 1/2
    assert weight.dtype == torch.float32
    assert weight.min() >= 0
    assert weight.max() <= 1
    assert abs(weight.mean().item() - 0.5) < 6 * math.sqrt(variance / 20_000)
    assert abs(weight.var().item() / variance - 1) < 0.05


def test_mixup_blends_each_image_with_the_one_before_it():
    images, labels = torch.randn(8, 3, 5, 5), torch.arange(8)
    mixture = Augment(mixup=1.0).mix(images, labels, draws_for(images))
    assert torch.equal(mixture.labels, labels)
    assert torch.equal(mixture.other_labels, labels.roll(1))
    for i in range(8):
        share = mixture.weight[i]
        torch.testing.assert_close(mixture.images[i], share * images[i] + (1 - share) * images[i - 1])


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_cutmix_weights_are_the_shares_of_pixels_kept(alpha):
    images = torch.randn(500, 3, 32, 32)
    mixture = Augment(cutmix=alpha).mix(images, torch.arange(500), draws_for(images))
    own = (mixture.images == images).all(1)
    other = (mixture.images == images.roll(1, 0)).all(1)
    assert (own ^ other).all()
    torch.testing.assert_close(mixture.weight, own.flatten(1).float().mean(1))
    assert torch.equal(mixture.other_labels, torch.arange(500).roll(1))
    # The border cuts boxes, so more is kept than Beta(alpha, alpha) says: its mean is 1/2.
    assert 0.5 < mixture.weight.mean() < 0.75


def test_cutmix_boxes_keep_the_shape_of_the_image():
    images = torch.randn(400, 1, 20, 60)
    mixture = Augment(cutmix=1.0).mix(images, torch.arange(400), draws_for(images))
    pasted = (mixture.images != images)[:, 0]
    tall, wide = pasted.any(2).sum(1).float(), pasted.any(1).sum(1).float()
    inside = (tall > 4) & (wide < 50) & ~pasted[:, 0].any(1) & ~pasted[:, -1].any(1) & ~pasted[:, :, 0].any(1)
    ratio = wide[inside] / tall[inside]
    assert len(ratio) > 20
    assert abs(ratio.median().item() - 3) < 0.3


@pytest.mark.parametrize("augment", [Augment(mixup=0.2), Augment(cutmix=1.0)], ids=["mixup", "cutmix"])
def test_mixing_repeats_and_leaves_its_input_alone(augment):
    images, labels = torch.randn(16, 3, 8, 8), torch.arange(16)
    before = images.clone()
    first, second = (augment.mix(images, labels, draws_for(images)) for _ in range(2))
    assert augment.mixes
    assert torch.equal(first.images, second.images)
    assert torch.equal(images, before)
    other = augment.mix(images, labels, draws_for(images, epoch=1))
    assert not torch.equal(first.weight, other.weight)


def test_mixing_a_single_image_leaves_it_as_it_is():
    images = torch.randn(1, 3, 8, 8)
    mixture = Augment(mixup=1.0).mix(images, torch.tensor([3]), draws_for(images))
    torch.testing.assert_close(mixture.images, images)
    assert mixture.other_labels.tolist() == [3]
