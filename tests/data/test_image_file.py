import os
import pickle
import struct
import warnings
import zlib

import pytest
from PIL import Image

from cvtrain.data.decode import decode_image, read_image_header
from cvtrain.data.image_file import ImageError, listed, printable


def decode(path):
    return decode_image(path, image_size=16, channels=3)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"\xff", "is not an image that can be read"),
        (b"<html>404</html>", "is not an image that can be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is not an image that can be read"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, content, reason):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=reason):
        decode(path)
    with pytest.raises(ImageError, match=reason):
        read_image_header(path)


def test_special_files_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("nowhere.jpg")
    for path, reason in [
        (tmp_path / "pipe.jpg", "is not a regular file"),
        ("/dev/zero", "is not a regular file"),
        (tmp_path, "is a folder"),
        (tmp_path / "link.jpg", "no such file"),
    ]:
        with pytest.raises(ImageError, match=reason):
            decode(path)


def test_huge_file_is_refused_unread(tmp_path):
    path = tmp_path / "a.png"
    with open(path, "wb") as file:
        file.truncate(300 * 2**20)  # sparse: takes no space
    with pytest.raises(ImageError, match="is larger than 256 MiB"):
        decode(path)


@pytest.mark.parametrize("side", [7_100, 10_000, 20_000, 2**30])
def test_decompression_bomb_is_refused_before_it_is_decoded(tmp_path, side):
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0")
    chunks = b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (header, data)
    )
    path = tmp_path / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    with pytest.raises(ImageError, match="more than 50 million pixels"):
        decode(path)


def test_warnings_of_the_decoder_do_not_surface(tmp_path, capfd):
    path = tmp_path / "large.png"
    Image.new("1", (9_500, 5_200)).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(path)
    assert capfd.readouterr() == ("", "")


def test_image_error_travels_between_processes():
    error = pickle.loads(pickle.dumps(ImageError("a.jpg", "is damaged")))
    assert (error.path, error.reason, error.message) == ("a.jpg", "is damaged", "a.jpg: is damaged")
    assert error.exit_code == 3


def test_printable_shows_odd_names_as_text():
    assert printable("häße 猫.jpg") == "häße 猫.jpg"
    assert printable("a\x1b[2J\n\udcff\u2028") == "a\\x1b[2J\\n\\xff\\u2028"


def test_user_files_are_never_changed(tmp_path):
    path = tmp_path / "a.jpg"
    Image.linear_gradient("L").save(path)
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    decode(path)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_listed_names_end_in_dots_when_there_are_more():
    assert listed(["a", "b\n"]) == "a, b\\n"
    assert listed(["a", "b", "c", "d"]) == "a, b, c, ..."
