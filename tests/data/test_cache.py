import fcntl
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvtrain.data.cache import default_cache_dir, load_or_decode
from cvtrain.data.decoders import DecodeSettings, decode_files
from cvtrain.data.image_file import FileStamp

SETTINGS = DecodeSettings(image_size=8, channels=3, resize="crop")


@pytest.fixture
def few(tmp_path):
    root = tmp_path / "few"
    root.mkdir()
    for index in range(5):
        Image.new("RGB", (8, 8), (index, 2 * index, 3 * index)).save(root / f"{index}.png")
    return root


def stamps_of(root):
    statuses = [(path.name, path.stat()) for path in sorted(root.iterdir())]
    return [FileStamp(name, status.st_size, status.st_mtime_ns) for name, status in statuses]


class Load:
    """Loads a folder through the cache and records what was reported as progress."""

    def __init__(self, root, cache_dir):
        self.root, self.cache_dir, self.calls = root, cache_dir, []

    def __call__(self, settings=SETTINGS):
        self.calls = []
        return load_or_decode(
            str(self.root),
            stamps_of(self.root),
            settings=settings,
            cache_dir=self.cache_dir,
            progress=lambda *call: self.calls.append(call),
        )

    def images(self):
        return sorted(self.cache_dir.glob("*.images"))


@pytest.fixture
def load(few, tmp_path):
    return Load(few, tmp_path / "cache")


def test_second_start_reads_the_cache(load):
    first = load()
    assert load.calls == [(5, 5, "decoding images")]
    second = load()
    assert load.calls == []
    np.testing.assert_array_equal(first.pixels, second.pixels)
    assert second.pixels.flags.writeable
    assert second.warnings == ()


def test_bad_images_and_notes_are_kept_with_the_pixels(load, few):
    (few / "2.png").write_bytes(b"junk")
    first = load()
    second = load()
    assert load.calls == []
    assert first.bad == second.bad
    assert [index for index, _ in second.bad] == [2]
    assert second.notes == first.notes == tuple((index, "uniform") for index in (0, 1, 3, 4))
    np.testing.assert_array_equal(second.pixels, first.pixels)
    assert len(second.pixels) == 4


def test_cache_of_no_readable_image_is_read_back(load, few):
    for path in few.iterdir():
        path.write_bytes(b"junk")
    load()
    assert load().pixels.shape == (0, 8, 8, 3)
    assert load.calls == []


@pytest.mark.parametrize("change", ["touched", "replaced", "added", "removed", "renamed"])
def test_changed_files_are_decoded_again_and_the_old_cache_goes(load, few, change):
    load()
    old = load.images()
    if change == "touched":
        os.utime(few / "1.png", ns=(1, 1))
    elif change == "replaced":
        Image.new("RGB", (8, 8), "white").save(few / "1.png")
    elif change == "added":
        Image.new("RGB", (8, 8), "white").save(few / "9.png")
    elif change == "removed":
        (few / "1.png").unlink()
    else:
        (few / "1.png").rename(few / "10.png")
    result = load()
    assert load.calls
    assert len(load.images()) == 1
    assert load.images() != old
    expected = decode_files([str(path) for path in sorted(few.iterdir())], SETTINGS).pixels
    np.testing.assert_array_equal(result.pixels, expected)


def test_caches_of_a_few_other_settings_are_kept(load):
    for size in (4, 5, 6, 7, 9, 10):
        load(DecodeSettings(size, 3, "crop"))
    assert len(load.images()) == 4
    load(DecodeSettings(10, 3, "crop"))
    assert load.calls == []
    load(DecodeSettings(10, 1, "crop"))
    load(DecodeSettings(10, 3, "pad"))
    assert load.calls


@pytest.mark.parametrize(
    "damage", ["bit in pixels", "bit in header", "bit in digest", "cut", "emptied", "zeroed", "longer"]
)
def test_damaged_cache_is_built_again_with_a_warning(load, damage):
    intact = load()
    (path,) = load.images()
    content = bytearray(path.read_bytes())
    if damage.startswith("bit"):
        content[{"pixels": -100, "header": 20, "digest": -3}[damage.split()[-1]]] ^= 4
    elif damage == "zeroed":
        content[-200:-100] = bytes(100)
    elif damage == "longer":
        content += b"\0"
    else:
        content = content[: len(content) // 2 if damage == "cut" else 0]
    path.write_bytes(content)
    result = load()
    assert any("was damaged and has been built again" in warning for warning in result.warnings)
    np.testing.assert_array_equal(result.pixels, intact.pixels)
    assert load().warnings == ()
    assert load.calls == []


def test_cache_under_another_name_is_not_believed(load, few):
    load()
    (path,) = load.images()
    content = path.read_bytes()
    os.utime(few / "1.png", ns=(1, 1))
    load()
    load.images()[0].write_bytes(content)
    assert "was damaged" in load().warnings[0]


def test_cache_file_is_as_its_documentation_says(load, few):
    result = load()
    content = load.images()[0].read_bytes()
    header_end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:header_end])
    assert header["shape"] == [5, 8, 8, 3]
    assert header["root"] == str(few)
    assert content[header_end:-32] == result.pixels.tobytes()
    assert content[-32:] == hashlib.sha256(content[:-32]).digest()


def test_leftovers_of_dead_builders_are_removed(load):
    load()
    tag = load.images()[0].name.split("-")[0]
    left = load.cache_dir / f".tmp-{tag}-123-abc"
    left.write_bytes(b"half")
    load(DecodeSettings(4, 3, "crop"))
    assert not left.exists()


def test_cache_folder_that_cannot_be_made_costs_a_warning_only(few, tmp_path):
    (tmp_path / "file").touch()
    result = Load(few, tmp_path / "file" / "cache")()
    assert len(result.pixels) == 5
    assert len(result.warnings) == 1
    assert "cannot be kept in" in result.warnings[0]


def test_full_disk_costs_a_warning_only(load):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        result = load()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(result.pixels) == 5
    assert "(file too large): they are decoded at every start" in result.warnings[0]
    assert [path.suffix for path in load.cache_dir.iterdir()] == [".lock"]


def test_builder_that_is_killed_leaves_neither_a_cache_nor_a_lock(load, few):
    script = f"""
import os, signal, sys
sys.path[:] = {sys.path!r}
from cvtrain.data.cache import *
from cvtrain.data.decoders import DecodeSettings
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
stamps = [FileStamp(f"{{i}}.png", 1, 1) for i in range(5)]
settings = DecodeSettings(8, 3, "crop")
load_or_decode({str(few)!r}, stamps, settings=settings, cache_dir={str(load.cache_dir)!r}, progress=die)
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == -signal.SIGKILL
    assert [path.suffix for path in load.cache_dir.iterdir()] == [".lock"]
    assert len(load().pixels) == 5
    assert load.calls == [(5, 5, "decoding images")]


def test_second_process_waits_for_the_first_and_uses_its_cache(load, few):
    load()
    (built,) = load.images()
    content = built.read_bytes()
    built.unlink()
    results = []
    (lock,) = load.cache_dir.glob("*.lock")
    with open(lock) as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)
        waiting = threading.Thread(target=lambda: results.append(load()))
        waiting.start()
        while not load.calls:
            time.sleep(0.01)
        built.write_bytes(content)
    waiting.join()
    assert load.calls == [(0, 5, "waiting for another process to decode")]
    assert len(results[0].pixels) == 5


def test_cache_lies_where_xdg_says(monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert default_cache_dir() == Path("/somewhere/cvtrain")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_cache_dir() == Path("/home/me/.cache/cvtrain")


def test_default_folder_is_used_when_none_is_named(few, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    load_or_decode(str(few), stamps_of(few), settings=SETTINGS)
    assert list((tmp_path / "xdg" / "cvtrain").glob("*.images"))
