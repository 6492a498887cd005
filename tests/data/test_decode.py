import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from cvtrain.data.decode import decode_array, decode_image, decode_with_notes, read_image_header
from cvtrain.data.image_file import ImageError
from cvtrain.errors import DataError

SIZE = 16


def gradient(height=SIZE, width=SIZE):
    """A picture without symmetries, so that any turn or swap of channels shows."""
    rows, columns = np.mgrid[0:height, 0:width]
    scale = 255 / (max(height, width) - 1)
    return np.stack([rows * scale, columns * scale, 255 - rows * scale], axis=-1).astype(np.uint8)


def decode(path, channels=3, **settings):
    return decode_image(path, **{"image_size": SIZE, "channels": channels, **settings})


def save(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize(
    "name", ["a.png", "a.bmp", "a.tif", "a.ppm", "a.webp", "A.PNG", "png_named.jpg", "ünï\n\udcff.png"]
)
def test_lossless_image_of_the_right_size_keeps_its_pixels(tmp_path, name):
    format = {"png_named.jpg": "PNG", "ünï\n\udcff.png": "PNG"}.get(name)
    path = tmp_path / name
    with open(path, "wb") as file:
        Image.fromarray(gradient()).save(file, format=format or path.suffix[1:].replace("tif", "tiff"), lossless=True)
    pixels = decode(path)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    np.testing.assert_array_equal(pixels, gradient())


def test_jpeg_is_close_to_its_original(tmp_path):
    path = save(tmp_path, Image.fromarray(gradient()), "a.jpg", quality=95, progressive=True)
    assert np.abs(decode(path).astype(int) - gradient()).mean() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("extension", ["png", "tif", "webp"])
def test_exif_orientation_is_undone(tmp_path, orientation, extension):
    upright = Image.fromarray(gradient(12, 20))
    undone_by = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposes that turn an upright picture that way
    stored = upright if orientation == 1 else upright.transpose(undone_by[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, stored, f"a.{extension}", exif=exif, lossless=True)
    expected = decode(save(tmp_path, upright, "upright.png"))
    np.testing.assert_array_equal(decode(path), expected)
    assert read_image_header(path)[:2] == (12, 20)


def test_orientation_that_makes_no_sense_is_ignored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 77
    path = save(tmp_path, Image.fromarray(gradient()), "a.png", exif=exif)
    np.testing.assert_array_equal(decode(path), gradient())


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, name):
    values = np.linspace(0, 65535, SIZE * SIZE).astype(np.uint16).reshape(SIZE, SIZE)
    path = save(tmp_path, Image.fromarray(values), name)
    np.testing.assert_array_equal(decode(path, channels=1)[..., 0], values >> 8)
    np.testing.assert_array_equal(decode(path)[..., 2], values >> 8)
    assert read_image_header(path).channels == 1


def test_alpha_is_composited_over_black(tmp_path):
    alpha = np.full((SIZE, SIZE), 255, np.uint8)
    alpha[:8] = 0
    alpha[8] = 51
    path = save(tmp_path, Image.fromarray(np.dstack([gradient(), alpha])), "a.png")
    pixels = decode(path)
    assert (pixels[:8] == 0).all()
    np.testing.assert_array_equal(pixels[8], np.round(gradient()[8] * 0.2))
    np.testing.assert_array_equal(pixels[9:], gradient()[9:])


def test_grey_with_alpha_is_composited_over_black(tmp_path):
    image = Image.merge("LA", [Image.new("L", (SIZE, SIZE), 200), Image.linear_gradient("L").resize((SIZE, SIZE))])
    path = save(tmp_path, image, "a.png")
    expected = np.asarray(image.getchannel("A")) * (200 / 255)
    assert np.abs(decode(path, channels=1)[..., 0] - expected).max() <= 0.5


def test_palette_is_looked_up_and_its_transparent_entry_keeps_its_colour(tmp_path):
    indices = (np.arange(SIZE * SIZE) % 3).astype(np.uint8).reshape(SIZE, SIZE)
    image = Image.fromarray(indices).convert("P")
    colours = [10, 20, 30, 40, 50, 60, 70, 80, 90]
    image.putdata(indices.ravel())
    image.putpalette(colours)
    path = save(tmp_path, image, "a.png", transparency=1)
    np.testing.assert_array_equal(decode(path), np.array(colours).reshape(3, 3)[indices])


def test_cmyk_and_one_bit_are_converted(tmp_path):
    cmyk = save(tmp_path, Image.new("CMYK", (SIZE, SIZE), (0, 255, 255, 0)), "a.jpg", quality=100)
    assert np.abs(decode(cmyk).astype(int) - [255, 0, 0]).max() < 4
    bits = np.indices((SIZE, SIZE)).sum(0) % 2 == 0
    one_bit = save(tmp_path, Image.fromarray(bits), "b.png")
    np.testing.assert_array_equal(decode(one_bit)[..., 1], bits * 255)


@pytest.mark.parametrize("extension", ["gif", "tif", "webp", "png"])
def test_first_frame_is_used_and_noted(tmp_path, extension):
    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("red", "lime", "blue")]
    path = save(
        tmp_path, frames[0], f"a.{extension}", save_all=True, append_images=frames[1:], duration=10, lossless=True
    )
    result = decode_with_notes(path, image_size=SIZE, channels=3)
    assert np.abs(result.pixels.astype(int) - [255, 0, 0]).max() < 4
    assert "frames" in result.notes


def test_photograph_with_a_preview_behind_it_is_nothing_odd(tmp_path):
    frames = [Image.fromarray(gradient()), Image.fromarray(gradient(8, 8))]
    path = save(tmp_path, frames[0], "a.jpg", format="MPO", save_all=True, append_images=frames[1:])
    assert decode_with_notes(path, image_size=SIZE, channels=3).notes == ()


def test_oddities_are_noted(tmp_path):
    dot = save(tmp_path, Image.new("RGB", (1, 1), "red"), "dot.png")
    assert decode_with_notes(dot, image_size=4, channels=1).notes == ("tiny", "colour", "uniform")


def test_grey_follows_itu_r_601(tmp_path):
    path = save(tmp_path, Image.fromarray(gradient()), "a.png")
    expected = gradient() @ np.array([0.299, 0.587, 0.114])
    pixels = decode(path, channels=1)
    assert pixels.shape == (SIZE, SIZE, 1)
    assert np.abs(pixels[..., 0] - expected).max() <= 1


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_of_unknown_range_are_refused(tmp_path, mode):
    path = save(tmp_path, Image.new(mode, (SIZE, SIZE)), "a.tif")
    with pytest.raises(ImageError, match="whose range is unknown"):
        decode(path)


def test_unknown_colour_space_is_refused(tmp_path):
    path = save(tmp_path, Image.new("LAB", (SIZE, SIZE)), "a.tif")
    with pytest.raises(ImageError, match="colour space"):
        decode(path)


def test_stretch_agrees_with_antialiased_bilinear(tmp_path):
    path = save(tmp_path, Image.fromarray(gradient(40, 64)), "a.png")
    image = torch.from_numpy(gradient(40, 64)).permute(2, 0, 1)[None].float()
    expected = F.interpolate(image, (SIZE, SIZE), mode="bilinear", antialias=True)[0].permute(1, 2, 0).numpy()
    assert np.abs(decode(path, resize="stretch") - expected).max() <= 1


def test_crop_equals_scaling_the_shorter_side_and_cutting_the_centre(tmp_path):
    path = save(tmp_path, Image.fromarray(gradient(64, 32)), "a.png")
    scaled = Image.fromarray(gradient(64, 32)).resize((16, 32), Image.Resampling.BILINEAR)
    difference = decode(path).astype(int) - np.asarray(scaled)[8:24]
    assert np.abs(difference).max() <= 1


def test_crop_without_scaling_keeps_pixels(tmp_path):
    path = save(tmp_path, Image.fromarray(gradient(SIZE, 21)), "a.png")
    np.testing.assert_array_equal(decode(path), gradient(SIZE, 21)[:, 2:18])


@pytest.mark.parametrize(("height", "width"), [(32, 8), (8, 32), (1, 500), (16, 4)])
def test_pad_fills_with_black_and_keeps_the_aspect_ratio(tmp_path, height, width):
    path = save(tmp_path, Image.new("RGB", (width, height), "white"), "a.png")
    white = decode(path, resize="pad").all(axis=-1)
    side = max(1, round(SIZE * min(height, width) / max(height, width)))
    assert white.sum() == side * SIZE
    start = (SIZE - side) // 2
    strip = white[start : start + side] if height < width else white[:, start : start + side]
    assert strip.all()


@pytest.mark.parametrize("resize", ["crop", "stretch", "pad"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_policy_yields_the_wanted_shape(tmp_path, resize, channels):
    path = save(tmp_path, Image.fromarray(gradient(7, 33)), "a.png")
    assert decode(path, channels, resize=resize).shape == (SIZE, SIZE, channels)


@pytest.mark.parametrize("extension", ["jpg", "png", "bmp", "gif", "tif", "webp", "ppm"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_truncated_image_is_refused_with_its_path(tmp_path, extension, part):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path, Image.fromarray(noise), f"a.{extension}")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * part)])
    with pytest.raises(ImageError, match=rf"{tmp_path}/a\.{extension}: is "):
        decode(path)


def test_flipped_bit_in_a_png_is_refused(tmp_path):
    path = save(tmp_path, Image.fromarray(gradient()), "a.png")
    content = bytearray(path.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises(ImageError, match="is damaged"):
        decode(path)


@pytest.mark.parametrize("resize", ["crop", "stretch", "pad"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(SIZE, SIZE), (40, 23), (5, 9)])
def test_array_becomes_the_same_as_a_file_of_it(tmp_path, resize, channels, size):
    colour = gradient(*size)
    for array in (colour, np.ascontiguousarray(colour[:, :, 0])):
        path = save(tmp_path, Image.fromarray(array), "a.png")
        pixels = decode_array(array, image_size=SIZE, channels=channels, resize=resize)
        np.testing.assert_array_equal(pixels, decode(path, channels, resize=resize))
        assert pixels.shape == (SIZE, SIZE, channels)
        assert pixels.dtype == np.uint8


def test_grey_array_may_have_an_axis_of_channels():
    grey = gradient()[:, :, 1]
    with_axis = decode_array(grey[:, :, None], image_size=8, channels=3)
    np.testing.assert_array_equal(with_axis, decode_array(grey, image_size=8, channels=3))


def test_array_of_any_strides_is_taken_and_never_shared():
    array = gradient()
    array.flags.writeable = False
    for view in (array, array[::-1], array.transpose(1, 0, 2), array[:, :, ::-1]):
        pixels = decode_array(view, image_size=SIZE, channels=3)
        np.testing.assert_array_equal(pixels, view)
        assert not np.shares_memory(pixels, array)
        assert pixels.flags.writeable
        assert pixels.flags.c_contiguous


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((8, 8, 3), "float32"),
        ((8, 8), "int64"),
        ((8, 8), "bool"),
        ((8, 8), "object"),
        ((8,), "uint8"),
        ((), "uint8"),
        ((3, 8, 8), "uint8"),
        ((8, 8, 4), "uint8"),
        ((2, 8, 8, 3), "uint8"),
        ((0, 8, 3), "uint8"),
    ],
)
def test_array_that_is_no_picture_is_refused(shape, dtype):
    with pytest.raises(DataError, match=re.escape(f"shape {shape} and dtype {dtype}")) as caught:
        decode_array(np.zeros(shape, dtype), image_size=8, channels=3)
    assert "uint8" in caught.value.hint
