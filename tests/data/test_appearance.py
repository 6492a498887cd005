from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from cvtrain.data.appearance import (
    MIN_IMAGES,
    Appearance,
    all_grey_warning,
    is_grey,
    looks_of,
    measure_appearance,
    unlike_in_looks,
    unlike_in_size,
)
from cvtrain.data.digits import load_digits
from cvtrain.data.images import MemoryImages, Preprocessing
from cvtrain.data.statistics import measure_statistics

RGB, GREY = Preprocessing(32, 3), Preprocessing(32, 1)


def photos(count, *, seed=0, size=32):
    """Pictures with the statistics of photographs: smooth, coloured, of many lights; uint8 `(N, 3, H, W)`."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    coarse = torch.nn.functional.interpolate(draw(count, 3, 4, 4), size=(size, size), mode="bilinear")
    fine = torch.nn.functional.interpolate(draw(count, 1, size // 2, size // 2), size=(size, size), mode="bilinear")
    light = 120 + 30 * draw(count, 1, 1, 1) + 15 * draw(count, 3, 1, 1)
    strength = 25 * (1 + 0.3 * draw(count, 1, 1, 1)).clamp(0.4, 2)
    return (light + strength * (coarse + 0.5 * fine)).clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def appearance():
    return measure_appearance([looks_of(photos(1000))], preprocessing=RGB)


@pytest.fixture(scope="module")
def digits():
    return load_digits()


@pytest.fixture(scope="module")
def of_digits(digits):
    images = digits.train.images.pixels.permute(0, 3, 1, 2)
    return measure_appearance([looks_of(images)], preprocessing=digits.preprocessing, originals=digits.originals)


def share_unlike(appearance, images):
    return sum(words is not None for words in unlike_in_looks(appearance, looks_of(images))) / len(images)


def words_for(appearance, image):
    return unlike_in_looks(appearance, looks_of(image[None]))[0]


# ------------------------------------------------------------------------------------------------- figures


def test_figures_are_those_of_their_names():
    images = photos(3)
    looks = looks_of(images)
    luma = images.double().mean(1)
    assert looks.shape == (3, 11)
    assert looks.dtype == torch.float64
    assert torch.allclose(looks[:, 0], luma.mean((1, 2)), atol=1e-3)
    assert torch.allclose(looks[:, 1], (luma.std((1, 2), correction=0) + 1).log(), atol=1e-5)
    down, across = luma.diff(dim=1).abs().mean((1, 2)), luma.diff(dim=2).abs().mean((1, 2))
    assert torch.allclose(looks[:, 2], ((down + across + 1) / (luma.std((1, 2), correction=0) + 1)).log(), atol=1e-5)
    assert looks_of(images[:, :1]).shape == (3, 7)


def test_memory_order_and_batches_change_no_figure():
    images = photos(6)
    looks = looks_of(images)
    assert torch.allclose(looks_of(images.to(memory_format=torch.channels_last)), looks)
    assert torch.allclose(torch.cat([looks_of(image[None]) for image in images]), looks, atol=1e-5)


def test_pictures_without_colour_have_no_figures_of_colour():
    images = photos(2)
    images[1] = images[1, :1]
    looks = looks_of(images)
    assert is_grey(looks).tolist() == [False, True]
    assert looks[1, 7:].isnan().all()
    assert not looks[1, :7].isnan().any()


@pytest.mark.parametrize("shape", [(5, 2, 1, 1), (5, 2, 32, 32), (5, 3, 7, 32), (5, 1, 1, 1)])
def test_what_is_no_picture_has_no_figures(shape):
    assert looks_of(torch.zeros(shape, dtype=torch.uint8)) is None
    assert measure_appearance([None, None], preprocessing=RGB) is None


def test_points_have_no_figures():
    assert looks_of(torch.zeros(100, 3, 32, 32)) is None


def test_large_pictures_are_looked_at_in_part():
    small, large = photos(4), photos(4).repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert large.shape[2:] == (256, 256)
    assert torch.allclose(looks_of(large)[:, :2], looks_of(small)[:, :2], atol=0.05)


def test_few_images_tell_nothing():
    looks = looks_of(photos(MIN_IMAGES))
    assert measure_appearance([looks[1:]], preprocessing=RGB) is None
    assert measure_appearance([looks[:20], looks[20:]], preprocessing=RGB) is not None


# ------------------------------------------------------------------------------------------------- what is caught


@pytest.mark.parametrize("count", [100, 500, 2000])
def test_further_pictures_of_the_same_kind_are_like_them(count):
    shares = [
        share_unlike(measure_appearance([looks_of(photos(count, seed=seed))], preprocessing=RGB), photos(1000, seed=99))
        for seed in range(3)
    ]
    assert np.mean(shares) <= 0.02


def test_held_out_digits_are_like_the_others(digits, of_digits):
    assert share_unlike(of_digits, digits.test.images.pixels.permute(0, 3, 1, 2)) <= 0.01


def odd(images):
    """`(name, pictures, a word of the reason)`, of pictures `(N, C, H, W)`."""
    shape, generator = images.shape, torch.Generator().manual_seed(1)
    noise = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    grey = images.float().mean(1, keepdim=True)
    yield "black", torch.zeros_like(images), "of one single colour"
    yield "white", torch.full_like(images, 255), "of one single colour"
    yield "noise", noise, "noisier"
    yield "flat", (images * 0.05 + 110).to(torch.uint8), "of less contrast"
    yield "dark", images // 8, "of less contrast"
    if shape[1] == 3:
        yield "red", (grey * torch.tensor([1, 0.3, 0.3]).view(1, 3, 1, 1)).to(torch.uint8), "red"
        yield "blue", (grey * torch.tensor([0.3, 0.3, 1]).view(1, 3, 1, 1)).to(torch.uint8), "bluer"


def test_odd_pictures_are_caught_with_a_reason(appearance):
    for name, images, reason in odd(photos(50, seed=5)):
        assert share_unlike(appearance, images) > 0.9, name
        found = [words for words in unlike_in_looks(appearance, looks_of(images)) if words]
        assert any(reason in words for words in found), (name, found[0])
        assert all(words.startswith("unlike the training images: ") for words in found)


def test_odd_digits_are_caught(digits, of_digits):
    images = digits.test.images.pixels.permute(0, 3, 1, 2)
    for name, pictures, _ in odd(images):
        assert share_unlike(of_digits, pictures) > 0.95, name
    assert share_unlike(of_digits, 255 - images) == 1, "dark on light"
    assert share_unlike(of_digits, photos(100)[:, :1]) > 0.95


@pytest.mark.parametrize("level", [0, 77, 255])
def test_pictures_of_one_colour_are_called_so_and_not_noisy(appearance, of_digits, level):
    plain = torch.full((3, 32, 32), level, dtype=torch.uint8)
    assert words_for(of_digits, plain[:1]) == "unlike the training images: of one single colour"
    assert words_for(appearance, plain) == "unlike the training images: of one single colour"


def test_digits_are_no_photographs(appearance, digits):
    images = digits.test.images.pixels.permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
    assert share_unlike(appearance, images) > 0.95


def test_figures_that_are_each_usual_can_be_odd_together():
    looks = looks_of(photos(2000))
    # Here bright pictures are those of much contrast: a dark one of much contrast is in no range's way.
    rank = torch.arange(2000, dtype=torch.float64) / 2000
    looks[:, 0], looks[:, 1] = 60 + 100 * rank, 2 + 2 * rank
    found = measure_appearance(
        [looks[torch.randperm(2000, generator=torch.Generator().manual_seed(0))]], preprocessing=RGB
    )
    one = looks.nanmean(0, keepdim=True)
    assert unlike_in_looks(found, one) == [None]
    one[0, 0], one[0, 1] = 150, 2.2
    assert unlike_in_looks(found, one) == ["unlike the training images: brighter and of less contrast at once"]


# ------------------------------------------------------------------------------------------------- grey and colour


def test_grey_picture_is_told_of_where_all_training_images_have_colours(appearance):
    image = photos(1, seed=3)[0]
    assert words_for(appearance, image) is None
    assert words_for(appearance, image[:1].expand(3, -1, -1)) == "unlike the training images: without colour"


def test_one_grey_picture_is_usual_where_some_training_images_are_grey_and_many_are_not():
    images = photos(1000)
    images[:20] = images[:20, :1]
    found = measure_appearance([looks_of(images)], preprocessing=RGB)
    assert found.grey_share == pytest.approx(0.02)
    grey = photos(40, seed=8).float().mean(1, keepdim=True).to(torch.uint8).expand(-1, 3, -1, -1)
    assert share_unlike(found, grey) <= 0.05
    assert all_grey_warning(found, 12, 12) == "12 of 12 pictures are grey, and 2.0 % of the training images"
    for num_grey, num_pictures in ((3, 3), (1, 12), (20, 1000), (200, 1000)):
        assert all_grey_warning(found, num_grey, num_pictures) is None
    assert all_grey_warning(found, 201, 1000)


def test_coloured_picture_is_told_of_where_no_training_image_has_colours():
    images = photos(200)[:, :1].expand(-1, 3, -1, -1)
    found = measure_appearance([looks_of(images)], preprocessing=RGB)
    assert found.grey_share == 1
    assert "in colour" in words_for(found, photos(1, seed=3)[0])
    assert share_unlike(found, photos(50, seed=4)[:, :1].expand(-1, 3, -1, -1)) <= 0.1


# ------------------------------------------------------------------------------------------------- sizes


@pytest.mark.parametrize(
    ("size", "resize", "expected"),
    [
        ((32, 32), "crop", []),
        ((128, 128), "crop", []),
        ((16, 16), "crop", []),
        ((64, 32), "crop", []),
        ((960, 1280), "crop", ["1280x960 px, 30 times larger than the training images"]),
        ((12, 12), "crop", ["12x12 px, smaller than the training images: blurred"]),
        ((32, 128), "crop", ["128x32 px: 75 % is cut off"]),
        ((128, 32), "pad", ["32x128 px: 75 % of the input is black"]),
        ((32, 128), "stretch", ["128x32 px: squeezed 4.0 times"]),
    ],
)
def test_sizes_that_lose_most_of_a_picture_are_told_of(appearance, size, resize, expected):
    assert unlike_in_size(appearance, replace(RGB, resize=resize), height=size[0], width=size[1]) == expected


def test_sizes_are_compared_with_those_of_the_training_pictures():
    originals = [(480, 640, 3), (2000, 6000, 3)]
    found = measure_appearance([looks_of(photos(60))], preprocessing=RGB, originals=originals)
    assert found.sides == (480, 2000)
    assert found.aspect_ratio == 3
    for height, width in ((480, 640), (4000, 3000), (1000, 3500), (32, 32), (16, 16)):
        assert unlike_in_size(found, RGB, height=height, width=width) == []
    assert unlike_in_size(found, RGB, height=1000, width=4000)
    assert unlike_in_size(found, RGB, height=9000, width=9000)
    assert unlike_in_size(found, RGB, height=15, width=15)


def test_digits_may_have_the_size_of_their_originals(of_digits):
    for side in (8, 32):
        assert unlike_in_size(of_digits, GREY, height=side, width=side) == []


def test_colours_that_were_read_as_grey_in_training_are_remembered():
    looks = looks_of(photos(60)[:, :1])
    for originals, expected in (((), False), (((32, 32, 1),), False), (((32, 32, 1), (32, 32, 3)), True)):
        assert measure_appearance([looks], preprocessing=GREY, originals=originals).had_colour == expected


# ------------------------------------------------------------------------------------------------- measuring


def test_appearance_is_measured_on_the_sample_of_the_statistics_and_survives_a_checkpoint(tmp_path):
    images = MemoryImages(photos(2500).permute(0, 2, 3, 1).contiguous())
    measured = []
    for _ in range(2):
        looks = []
        statistics = measure_statistics(images, torch.arange(2500), also=lambda x, to=looks: to.append(looks_of(x)))
        assert sum(map(len, looks)) == 2000
        measured.append(measure_appearance(looks, preprocessing=RGB))
        assert statistics == measure_statistics(images, torch.arange(2500))
    assert measured[0] == measured[1]
    torch.save(asdict(measured[0]), tmp_path / "appearance")
    assert Appearance.from_plain(torch.load(tmp_path / "appearance", weights_only=True)) == measured[0]


def test_images_that_are_all_the_same_make_everything_else_unlike():
    images = photos(1).expand(100, -1, -1, -1)
    found = measure_appearance([looks_of(images)], preprocessing=RGB)
    assert share_unlike(found, images[:1]) == 0
    assert share_unlike(found, photos(50, seed=2)) == 1
