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

from cvtrain.data.cache import (
    DecodeSettings,
    FileStamp,
    decode_files,
    default_cache_dir,
    load_or_decode,
)
from cvtrain.data.decode import decode_image
from cvtrain.errors import MemoryLimitError

SETTINGS = DecodeSettings(image_size=8, channels=3, resize="crop")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """150 small JPEG files: more than two jobs."""
    root = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0).integers(0, 256, (150, 9, 12, 3), dtype=np.uint8)
    for index, pixels in enumerate(noise):
        Image.fromarray(pixels).save(root / f"{index:03}.jpg")
    return root


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


def children_of(pid):
    """Processes whose parent is `pid`, and which are not dead."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == pid and state != "Z":
            found.append(int(path.parent.name))
    return found


needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")


def test_processes_decode_the_same_as_this_one(photos):
    paths = [str(path) for path in sorted(photos.iterdir())]
    calls = []
    here = decode_files(paths, SETTINGS)
    there = decode_files(paths, SETTINGS, num_workers=2, progress=lambda *call: calls.append(call))
    np.testing.assert_array_equal(here.pixels, there.pixels)
    np.testing.assert_array_equal(here.pixels[140], decode_image(paths[140], image_size=8, channels=3))
    assert [call[0] for call in calls][-1] == 150
    assert len(calls) == 3
    assert {call[1:] for call in calls} == {(150, "decoding images")}


@pytest.mark.parametrize("num_workers", [0, 2])
def test_all_bad_images_are_listed_in_one_pass(photos, tmp_path, num_workers):
    paths = [str(path) for path in sorted(photos.iterdir())]
    (tmp_path / "empty.jpg").touch()
    bad = [3, 64, 65, 149]
    for index in bad:
        paths[index] = str(tmp_path / ("empty.jpg" if index % 2 else "missing.jpg"))
    result = decode_files(paths, SETTINGS, num_workers=num_workers)
    assert [index for index, _ in result.bad] == bad
    assert result.bad[0][1] == "is empty (0 bytes)"
    assert "no such file" in result.bad[1][1]
    good = [index for index in range(150) if index not in bad]
    np.testing.assert_array_equal(
        result.pixels, decode_files([str(photos / f"{i:03}.jpg") for i in good], SETTINGS).pixels
    )


def test_many_bad_images_leave_the_right_rows(few):
    paths = [str(few / f"{index % 5}.png") if index % 3 else "missing.png" for index in range(1000)]
    result = decode_files(paths, SETTINGS)
    np.testing.assert_array_equal(result.pixels[:, 0, 0, 0], [i % 5 for i in range(1000) if i % 3])


@needs_proc
def test_interrupted_decoding_leaves_no_process(photos):
    def interrupt(*_):
        assert children_of(os.getpid())
        raise KeyboardInterrupt

    paths = [str(path) for path in sorted(photos.iterdir())]
    with pytest.raises(KeyboardInterrupt):
        decode_files(paths, SETTINGS, num_workers=2, progress=interrupt)
    assert not children_of(os.getpid())


@needs_proc
def test_killed_decoding_process_is_reported(photos):
    def kill(*_):
        for pid in children_of(os.getpid()):
            os.kill(pid, signal.SIGKILL)

    paths = [str(path) for path in sorted(photos.iterdir())] * 4
    with pytest.raises(MemoryLimitError, match=r"killed, most likely for want of memory, between .*jpg and .*jpg"):
        decode_files(paths, SETTINGS, num_workers=1, progress=kill)


@needs_proc
def test_decoding_processes_die_with_a_killed_parent(photos, tmp_path):
    script = f"""
import sys, time
sys.path[:] = {sys.path!r}
from cvtrain.data.cache import *
def wait(*_):
    print("decoding", flush=True)
    time.sleep(60)
stamps = [FileStamp(f"{{i:03}}.jpg", 1, 1) for i in range(150)]
settings = DecodeSettings(8, 3, "crop")
load_or_decode({str(photos)!r}, stamps, settings=settings, cache_dir={str(tmp_path)!r}, num_workers=2, progress=wait)
"""
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)  # without a __main__ guard
    assert parent.stdout.readline() == b"decoding\n"
    children = children_of(parent.pid)
    assert len(children) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not list(tmp_path.glob("*.images"))
    result = Load(photos, tmp_path)()  # the lock of the dead is free
    assert len(result.pixels) == 150


def test_decoding_processes_do_not_import_torch():
    code = f"import sys; sys.path[:] = {sys.path!r}; import cvtrain.data.cache; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


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
