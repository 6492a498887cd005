"""Every kind of image file, good, odd, damaged and hostile, alone and all of them in one tree."""

import hashlib
import os
import re
import stat
import sys
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from bad_files_for_tests import GOOD, LOSSLESS, NAMES, PICTURE, REFUSED, flipped, saved

from cvtrain.data.decode import check_image, decode_image, decode_with_notes, read_image_header
from cvtrain.data.file_splits import BadImagesError
from cvtrain.data.folder import load_image_folder
from cvtrain.data.image_file import ImageError


def written(folder, case):
    path = folder / case.name
    path.write_bytes(case.content())
    return path


def pixels_of(path):
    """The pixels `(H, W, 3)` of a file as they are, or None where it is refused; and what is odd about it."""
    try:
        found = decode_with_notes(path, image_size=8, channels=3)
        side = max(found.height, found.width)
        square = decode_with_notes(path, image_size=side, channels=3, resize="pad")
    except ImageError:
        return None, ()
    top, left = (side - found.height) // 2, (side - found.width) // 2
    return square.pixels[top : top + found.height, left : left + found.width], square.notes


def is_readable(path):
    """What the check before training says."""
    try:
        check_image(path, channels=3)
    except ImageError:
        return False
    return True


@pytest.mark.parametrize("kind", GOOD)
def test_good_kind_gives_its_pixels_and_what_is_odd(tmp_path, kind):
    case = GOOD[kind]
    path = written(tmp_path, case)
    pixels, notes = pixels_of(path)
    assert pixels.shape == case.expected.shape
    assert np.abs(pixels.astype(int) - case.expected).mean() <= case.tolerance
    assert set(notes) == set(case.notes)
    assert set(check_image(path, channels=3)) == set(notes) - {"uniform"}
    assert read_image_header(path)[:2] == pixels.shape[:2]


@pytest.mark.parametrize("kind", REFUSED)
def test_damaged_or_hostile_kind_is_refused_with_its_reason(tmp_path, kind):
    path = written(tmp_path, REFUSED[kind])
    for read in (lambda: decode_image(path, image_size=8, channels=3), lambda: check_image(path, channels=3)):
        with pytest.raises(ImageError, match=REFUSED[kind].reason) as caught:
            read()
        assert caught.value.message.startswith(f"{path}: ")


@pytest.mark.parametrize("kind", LOSSLESS)
def test_file_cut_short_is_refused_or_has_all_its_pixels(tmp_path, kind):
    path, content = tmp_path / "a.png", LOSSLESS[kind]()
    path.write_bytes(content)
    whole, _ = pixels_of(path)
    ends = sorted({*range(1, 64, 9), *range(64, len(content), max(len(content) // 24, 1)), len(content) - 1})
    num_refused = 0
    for end in ends:
        path.write_bytes(content[:end])
        pixels, _ = pixels_of(path)
        num_refused += pixels is None
        assert pixels is None or np.array_equal(pixels, whole), f"the first {end} of {len(content)} bytes"
        assert is_readable(path) == (pixels is not None)
    assert num_refused >= len(ends) - 3  # the last few bytes of some formats hold no pixels


@pytest.mark.parametrize("kind", LOSSLESS)
def test_flipped_bit_anywhere_never_fails_otherwise_than_by_refusal(tmp_path, kind):
    path, content = tmp_path / "a.png", LOSSLESS[kind]()
    path.write_bytes(content)
    whole, _ = pixels_of(path)
    for at in np.random.default_rng(0).integers(0, len(content), 30).tolist():
        path.write_bytes(flipped(content, at))
        pixels, _ = pixels_of(path)
        assert is_readable(path) == (pixels is not None)
        if kind.startswith("png"):  # the format that has checksums
            assert pixels is None or np.array_equal(pixels, whole)


def test_file_that_changes_while_it_is_read_is_refused_or_read(tmp_path):
    path, content, is_over = tmp_path / "a.png", LOSSLESS["png"](), threading.Event()

    def change():
        while not is_over.is_set():
            for end in (len(content), len(content) // 2, 0):
                path.write_bytes(content[:end])
            path.unlink()

    thread = threading.Thread(target=change)
    thread.start()
    try:
        results = [pixels_of(path)[0] for _ in range(300)]
    finally:
        is_over.set()
        thread.join()
    assert all(pixels is None or np.array_equal(pixels, PICTURE) for pixels in results)


def test_file_without_permission_is_refused():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = Path(folder, "a.png")
        path.write_bytes(LOSSLESS["png"]())
        path.chmod(0)
        is_root = os.geteuid() == 0
        os.seteuid(65534) if is_root else None  # nothing is forbidden to root
        try:
            with pytest.raises(ImageError, match="permission denied"):
                check_image(path, channels=3)
        finally:
            os.seteuid(0) if is_root else None


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A tree of all that there is, the names that are to be refused with their reasons, and those that can be read."""
    root = tmp_path_factory.mktemp("everything")
    cat, dog = root / "train/cat", root / "train/dog"
    for folder in (cat, dog, root / "test/cat", root / "test/dog"):
        folder.mkdir(parents=True)
        (folder / "good.png").write_bytes(saved(PICTURE, "PNG"))
    for kind, case in {**GOOD, **REFUSED}.items():
        (cat / f"{kind}{Path(case.name).suffix}").write_bytes(case.content())
    for name in NAMES:
        (dog / f"{name}.png").write_bytes(saved(PICTURE, "PNG"))
    readable = {f"train/cat/{kind}{Path(case.name).suffix}" for kind, case in GOOD.items()} | {
        *(f"train/dog/{name}.png" for name in NAMES),
        *(f"{split}/{label}/good.png" for split in ("train", "test") for label in ("cat", "dog")),
    }
    refused = {f"train/cat/{kind}{Path(case.name).suffix}": case.reason for kind, case in REFUSED.items()}
    os.mkfifo(dog / "pipe.jpg")
    os.mknod(dog / "socket.jpg", stat.S_IFSOCK | 0o600)
    for name, target in [("device", "/dev/zero"), ("broken", "nowhere"), ("self", "self.jpg"), ("folder", "..")]:
        (dog / f"{name}.jpg").symlink_to(target)
    (dog / "large.jpg").touch()
    os.truncate(dog / "large.jpg", 300 * 2**20)  # sparse: takes no space
    (dog / "folder_of.jpg").mkdir()
    for name in ("Thumbs.db", ".DS_Store", "._a.jpg", "a.jpg.part", "notes.txt", "photo.heic", "x.png."):
        (dog / name).write_bytes(b"junk")
    special = {
        **dict.fromkeys(("pipe", "socket", "device"), "is not a regular file"),
        **{"broken": "no such file", "self": "symbolic links", "large": "larger than 256 MiB"},
    }
    refused |= {f"train/dog/{name}.jpg": reason for name, reason in special.items()}
    return root, refused, readable


def state_of(root):
    """Of everything below a folder: what it is, when it was changed, and its content; nothing is opened that blocks."""
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        is_small_file = stat.S_ISREG(status.st_mode) and status.st_size < 2**24
        content = hashlib.sha256(path.read_bytes()).digest() if is_small_file else status.st_size
        found[path] = status.st_mode, status.st_mtime_ns, content
    return found


def test_one_pass_tells_all_that_is_refused_and_changes_nothing(everything, tmp_path):
    root, refused, readable = everything
    before = state_of(root)
    options = {"root": root, "image_size": 8, "channels": 3, "cache_dir": tmp_path}
    for loader in ("memory", "files"):
        with pytest.raises(BadImagesError) as caught:
            load_image_folder(loader=loader, **options)
        told = dict(caught.value.images)
        assert told.keys() == refused.keys()
        for name, reason in refused.items():
            assert re.search(reason, told[name]), name
        assert len(caught.value.lines()) <= 6
    memory, files = (load_image_folder(loader=loader, on_bad="skip", **options) for loader in ("memory", "files"))
    assert len(memory.train) + len(memory.test) == len(readable)
    assert (memory.train.names, memory.test.names) == (files.train.names, files.test.names)
    assert torch.equal(*(data.train.images.read(torch.arange(len(data.train))) for data in (memory, files)))
    assert f"{len(refused)} of {len(refused) + len(readable)} images cannot be read and are left" in memory.warnings[-1]
    assert state_of(root) == before
