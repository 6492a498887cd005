import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from cvtrain.data.audit.inspection import THUMBNAIL_SIZE, Seen, inspect_file, inspect_files, inspect_pixels


@pytest.fixture
def picture():
    noise = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((90, 60), Image.Resampling.BICUBIC)


def test_file_is_known_by_its_bytes_and_by_its_pixels(tmp_path, picture):
    path = tmp_path / "a.png"
    picture.save(path)
    seen = inspect_file(str(path))
    assert seen.content == hashlib.sha256(path.read_bytes()).digest()
    assert seen.pixels == hashlib.sha256(b"90x60:" + np.asarray(picture).tobytes()).digest()
    assert (seen.width, seen.height, seen.num_bytes, seen.mode) == (90, 60, path.stat().st_size, "RGB")
    assert seen.notes == ()
    luma = np.frombuffer(seen.thumbnail, np.uint8).reshape(THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    assert luma.mean() == pytest.approx(np.asarray(picture.convert("L")).mean(), abs=2)


def test_files_saved_without_loss_have_the_same_pixels_and_other_bytes(tmp_path, picture):
    for name in ("a.png", "a.bmp", "a.tif"):
        picture.save(tmp_path / name)
    found = [inspect_file(str(path)) for path in tmp_path.iterdir()]
    assert len({seen.pixels for seen in found}) == 1
    assert len({seen.content for seen in found}) == 3


def test_grey_picture_is_the_same_in_one_channel_and_in_three(tmp_path, picture):
    grey = picture.convert("L")
    grey.save(tmp_path / "one.png")
    grey.convert("RGB").save(tmp_path / "three.png")
    one, three = (inspect_file(str(tmp_path / f"{name}.png")) for name in ("one", "three"))
    assert one.pixels == three.pixels
    assert (one.mode, three.mode) == ("L", "RGB")


def test_same_bytes_in_another_shape_are_no_duplicate():
    pixels = np.arange(24, dtype=np.uint8).reshape(1, 2, 4, 3)
    wide, tall = inspect_pixels(pixels), inspect_pixels(pixels.reshape(1, 4, 2, 3))
    assert wide[0].pixels != tall[0].pixels


@pytest.mark.parametrize(
    ("name", "make", "note"),
    [
        ("a.tif", lambda p: p.convert("CMYK"), "colour_space"),
        ("a.png", lambda p: p.convert("RGBA"), "transparent"),
        ("a.png", lambda p: Image.fromarray(np.asarray(p.convert("L")).astype(np.uint16) * 257), "sixteen_bit"),
        ("a.png", lambda p: p.resize((7, 60)), "tiny"),
        ("a.png", lambda p: Image.new("RGB", p.size, (9, 8, 7)), "uniform"),
    ],
)
def test_odd_pictures_are_noted(tmp_path, picture, name, make, note):
    make(picture).save(tmp_path / name)
    assert inspect_file(str(tmp_path / name)).notes == (note,)


def test_frames_turned_pictures_and_wrong_names_are_noted(tmp_path, picture):
    picture.save(tmp_path / "frames.gif", save_all=True, append_images=[picture.rotate(90)])
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(tmp_path / "turned.jpg", exif=exif)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    (tmp_path / "misnamed.jpg").write_bytes(buffer.getvalue())
    found = {path.stem: inspect_file(str(path)) for path in tmp_path.iterdir()}
    assert {name: seen.notes for name, seen in found.items()} == {name: (name,) for name in found}
    assert (found["turned"].width, found["turned"].height) == (60, 90), "upright"


def test_unreadable_files_have_their_reason_in_their_place(tmp_path, picture):
    picture.save(tmp_path / "good.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:200])
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    names = ("cut.jpg", "good.jpg", "empty.jpg", "folder.jpg", "missing.jpg")
    cut, good, *others = inspect_files(None, [str(tmp_path / name) for name in names])
    assert isinstance(good, Seen)
    assert cut.startswith("is damaged")
    assert others == ["is empty (0 bytes)", "is a folder", "no such file or directory"]


def test_points_have_digests_and_are_no_pictures():
    points = np.random.default_rng(0).normal(size=(3, 1, 1, 2)).astype(np.float32)
    found = inspect_pixels(np.concatenate([points, points[:1]]))
    assert [seen.thumbnail for seen in found] == [b""] * 4
    assert found[0].pixels == found[3].pixels != found[1].pixels
    assert all(seen.notes == () for seen in found)
