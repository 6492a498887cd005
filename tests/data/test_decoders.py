import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvtrain.data.decode import decode_image
from cvtrain.data.decoders import DecodeSettings, decode_files
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
    checked = decode_files(paths, DecodeSettings(image_size=0, channels=3, resize="crop"), num_workers=num_workers)
    assert (checked.bad, checked.pixels.shape) == (result.bad, (146, 0, 0, 3))
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
    before = children_of(os.getpid())  # of other tests

    def interrupt(*_):
        assert children_of(os.getpid()) != before
        raise KeyboardInterrupt

    paths = [str(path) for path in sorted(photos.iterdir())]
    with pytest.raises(KeyboardInterrupt):
        decode_files(paths, SETTINGS, num_workers=2, progress=interrupt)
    assert not set(children_of(os.getpid())) - set(before)


@needs_proc
def test_killed_decoding_process_is_reported(photos):
    before = children_of(os.getpid())  # of other tests

    def kill(*_):
        for pid in set(children_of(os.getpid())) - set(before):
            os.kill(pid, signal.SIGKILL)

    paths = [str(path) for path in sorted(photos.iterdir())] * 4
    with pytest.raises(MemoryLimitError, match=r"killed, most likely for want of memory, between .*jpg and .*jpg"):
        decode_files(paths, SETTINGS, num_workers=1, progress=kill)


@needs_proc
def test_decoding_processes_die_with_a_killed_parent(photos):
    script = f"""
import sys, time
sys.path[:] = {sys.path!r}
from cvtrain.data.decoders import *
def wait(*_):
    print("decoding", flush=True)
    time.sleep(60)
paths = [f"{photos}/{{i:03}}.jpg" for i in range(150)]
decode_files(paths, DecodeSettings(8, 3, "crop"), num_workers=2, progress=wait)
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


def test_decoding_processes_do_not_import_torch():
    code = f"import sys; sys.path[:] = {sys.path!r}; import cvtrain.data.decoders; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
