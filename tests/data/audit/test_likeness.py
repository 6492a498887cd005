"""Pictures with the statistics of photographs, changed as copies are, among many that are not the same."""

import io

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance

from cvtrain.data.audit.inspection import THUMBNAIL_SIZE, inspect_pixels
from cvtrain.data.audit.likeness import SAME_DETAIL, STRICT_DETAIL, find_alike, threshold_for
from cvtrain.data.digits import load_digits

NUM_PHOTOS = 300


@pytest.fixture(scope="module")
def photos():
    """Noise whose power falls with the square of the frequency, as in photographs; uint8 `(N, 64, 64, 3)`."""
    random = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.fft2(random.normal(size=(NUM_PHOTOS, 3, 64, 64))) / frequency
    pixels = np.fft.ifft2(spectrum).real
    pixels = 0.6 * pixels.mean(1, keepdims=True) + 0.4 * pixels
    pixels = 128 + 45 * pixels / pixels.std((2, 3), keepdims=True)
    return pixels.clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)


def thumbnails_of(pictures):
    found = [inspect_pixels(np.asarray(picture)[None])[0].thumbnail for picture in pictures]
    return torch.frombuffer(bytearray(b"".join(found)), dtype=torch.uint8).view(-1, THUMBNAIL_SIZE, THUMBNAIL_SIZE)


def pairs_of(thumbnails, *, splits=None, labels=None):
    zeros = torch.zeros(len(thumbnails), dtype=torch.int64)
    found = find_alike(
        thumbnails, splits=zeros if splits is None else splits, labels=zeros if labels is None else labels
    )
    return {
        (a, b): m for a, b, m in zip(found.first.tolist(), found.second.tolist(), found.mirrored.tolist(), strict=True)
    }


def as_jpeg(image):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=30)
    return Image.open(buffer)


CHANGES = {
    "encoded": as_jpeg,
    "smaller": lambda image: image.resize((40, 40), Image.Resampling.BILINEAR),
    "larger": lambda image: image.resize((150, 150), Image.Resampling.BICUBIC),
    "another shape": lambda image: image.resize((64, 48), Image.Resampling.BILINEAR),
    "darker": lambda image: ImageEnhance.Brightness(image).enhance(0.6),
    "of less contrast": lambda image: ImageEnhance.Contrast(image).enhance(0.6),
    "without colour": lambda image: image.convert("L").convert("RGB"),
    "cut": lambda image: image.crop((2, 2, 62, 62)),
    "tilted": lambda image: image.rotate(2, Image.Resampling.BILINEAR),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found_and_nothing_else(photos, change):
    copies = [CHANGES[change](Image.fromarray(photo)) for photo in photos[:40]]
    found = pairs_of(thumbnails_of([*photos, *copies]))
    planted = {(NUM_PHOTOS + i, i) for i in range(40)}
    assert set(found) <= planted
    assert len(found) >= 39
    assert not any(found.values())


def test_mirrored_copies_are_found_as_such(photos):
    found = pairs_of(thumbnails_of([*photos, *(photo[:, ::-1] for photo in photos[:40])]))
    assert found == {(NUM_PHOTOS + i, i): True for i in range(40)}


@pytest.mark.parametrize("upright", [False, True])
def test_same_layout_with_other_details_is_not_the_same(photos, upright):
    """A horizon, or a wall, in front of which there are different things."""
    bands = np.linspace(200, 60, 64)[:, None, None] + 50 * (np.arange(64) // 9 % 2)[:, None, None]
    layout = bands.transpose(1, 0, 2) if upright else bands
    pictures = (layout + 0.08 * (photos[:60].astype(float) - 128)).clip(0, 255).astype(np.uint8)
    assert pairs_of(thumbnails_of(pictures)) == {}


def test_pictures_without_detail_are_not_compared():
    ramp = np.linspace(0, 60, 64)
    pictures = [np.full((64, 64, 3), 7, np.uint8), np.full((64, 64, 3), 9, np.uint8)]
    pictures += [np.broadcast_to(ramp[:, None, None] + i, (64, 64, 3)).astype(np.uint8) for i in range(3)]
    assert pairs_of(thumbnails_of(pictures)) == {}


def test_likest_partner_of_each_split_and_of_another_class_is_kept(photos):
    copies = [np.clip(photos[0].astype(int) + 3 * i, 0, 255).astype(np.uint8) for i in range(1, 7)]
    thumbnails = thumbnails_of([photos[0], *copies[:5], *photos[1:30], copies[5]])
    splits = torch.tensor([0, 0, 0, 1, 1, 1, *[0] * 29, 2])
    labels = torch.tensor([0, 0, 1, 0, 0, 0, *[0] * 29, 0])
    partners = [second for first, second in pairs_of(thumbnails, splits=splits, labels=labels) if first == 35]
    assert len(partners) == 3
    assert sorted(splits[partners].tolist()) == [0, 0, 1]
    assert labels[partners].sum() == 1


def test_thousands_of_alike_pictures_stay_a_partner_each(photos):
    """As many candidates as pairs: a film of one scene must not fill the memory."""
    noise = torch.randint(-3, 4, (1500, 32, 32), generator=torch.Generator().manual_seed(0))
    frames = (thumbnails_of(photos[:1]).long() + noise).clamp(0, 255).to(torch.uint8)
    found = find_alike(frames, splits=torch.zeros(1500, dtype=torch.int64), labels=torch.zeros(1500, dtype=torch.int64))
    assert sorted(found.first.tolist()) == list(range(1, 1500))
    assert (found.second < found.first).all()


def test_blocks_do_not_change_what_is_found(photos, monkeypatch):
    pictures = thumbnails_of([*photos, *(as_jpeg(Image.fromarray(photo)) for photo in photos[:30])])
    whole = pairs_of(pictures)
    for name, value in (("_ROWS", 37), ("_COLUMNS", 64), ("_PAIRS", 5)):
        monkeypatch.setattr(f"cvtrain.data.audit.likeness.{name}", value)
    assert pairs_of(pictures) == whole
    assert len(whole) == 30


def test_where_classes_look_alike_only_hardly_any_difference_counts(photos):
    digits = load_digits().train
    thumbnails = thumbnails_of(digits.images.pixels.numpy())
    zeros = torch.zeros(len(digits), dtype=torch.int64)
    alike = find_alike(thumbnails, splits=zeros, labels=digits.labels)
    assert len(alike.first) > len(digits) / 2
    assert threshold_for(alike, labels=digits.labels) == STRICT_DETAIL
    few = find_alike(thumbnails_of([*photos, *photos[:10]]), splits=zeros, labels=torch.arange(310))
    assert len(few.first) == 10
    assert threshold_for(few, labels=torch.arange(310)) == SAME_DETAIL, "a few wrong labels are no rule"


def test_no_pictures_have_no_pairs():
    nothing = torch.zeros(0, dtype=torch.int64)
    assert len(find_alike(torch.zeros(0, 32, 32, dtype=torch.uint8), splits=nothing, labels=nothing).first) == 0
