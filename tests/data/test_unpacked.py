import os
import signal
import stat
import subprocess
import sys
import tarfile
import zipfile

import pytest

from cvtrain.data.unpacked import unpacked
from cvtrain.errors import DataError

UNPACK = "import sys; from pathlib import Path; from cvtrain.data.unpacked import unpacked\n"
PLAIN = UNPACK + (
    "def tell(done, total, what): 'waiting' in what and print(what, flush=True)\n"
    "print(unpacked(Path(sys.argv[1]), cache_dir=sys.argv[2], progress=tell))"
)
SLOW = UNPACK + (
    "import time\n"
    "def wait(done, total, what): print(what, flush=True); time.sleep(60)\n"
    "unpacked(Path(sys.argv[1]), cache_dir=sys.argv[2], progress=wait)"
)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def pack(tmp_path):
    """Writes a zip file of `(name or ZipInfo, content)`."""

    def pack(*members, name="a.zip"):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_DEFLATED) as archive:
            for member, content in members:
                archive.writestr(member, content)
        return tmp_path / name

    return pack


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name[0] != "."}


def left_in(cache):
    return sorted(p.name.rpartition(".")[2] for p in cache.iterdir())


def test_images_are_unpacked_and_nothing_else(pack, cache):
    archive = pack(
        *[("d/", b""), ("d/0.JPG", b"a"), ("d/e/1.png", b"bc"), ("run.sh", b"x"), ("d/.2.png", b"x")],
        *[("__MACOSX/d/0.jpg", b"x"), ("d/.git/3.png", b"x"), ("Thumbs.db", b"x")],
    )
    before = (archive.read_bytes(), archive.stat().st_mtime_ns, sorted(archive.parent.iterdir()))
    folder = unpacked(archive, cache_dir=cache)
    assert files(folder) == {"d/0.JPG": b"a", "d/e/1.png": b"bc"}
    assert folder.parent == cache
    assert all(stat.S_IMODE(path.stat().st_mode) & 0o111 == 0 for path in folder.rglob("*") if path.is_file())
    assert before == (archive.read_bytes(), archive.stat().st_mtime_ns, sorted({*archive.parent.iterdir()} - {cache}))


def test_tar_is_unpacked_too(cache, tmp_path):
    (tmp_path / "0.png").write_bytes(b"a")
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "0.png", "d/0.png")
    assert files(unpacked(tmp_path / "a.tar.gz", cache_dir=cache)) == {"d/0.png": b"a"}


def test_archive_is_unpacked_once_and_again_when_it_changed_or_a_file_is_gone(pack, cache):
    calls = []
    first = unpacked(pack(("0.png", b"abc"), ("1.png", b"de")), cache_dir=cache, progress=lambda *c: calls.append(c))
    archive = first.parent.parent / "a.zip"
    assert {what for _, _, what in calls} == {"unpacking images"}
    calls.clear()
    assert unpacked(archive, cache_dir=cache, progress=lambda *c: calls.append(c)) == first
    assert not calls
    (first / "0.png").write_bytes(b"a")
    assert files(unpacked(archive, cache_dir=cache)) == {"0.png": b"abc", "1.png": b"de"}
    (first / "1.png").unlink()
    assert files(unpacked(archive, cache_dir=cache)) == {"0.png": b"abc", "1.png": b"de"}
    other = unpacked(pack(("0.png", b"other")), cache_dir=cache)
    assert other != first
    assert files(other) == {"0.png": b"other"}


@pytest.mark.parametrize("name", ["../out.png", "/tmp/out.png", "d/../../out.png", "C:/out.png"])
def test_members_that_lead_out_are_refused_and_nothing_is_kept(pack, cache, name):
    archive = pack(("0.png", b"a"), (zipfile.ZipInfo(name), b"x"))
    with pytest.raises(DataError, match="points outside the archive"):
        unpacked(archive, cache_dir=cache)
    assert left_in(cache) == ["lock"]


def test_links_and_members_that_are_there_twice_are_refused(pack, cache):
    link = zipfile.ZipInfo("0.png")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with pytest.raises(DataError, match="is a link or a special file"):
        unpacked(pack((link, b"/etc/passwd")), cache_dir=cache)
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = pack(("0.png", b"a"), ("0.png", b"b"))
    with pytest.raises(DataError, match=r"it holds '0\.png' twice"):
        unpacked(archive, cache_dir=cache)
    with pytest.raises(DataError, match=r"it holds '0\.png/1\.png' twice"):
        unpacked(pack(("0.png", b"a"), ("0.png/1.png", b"b")), cache_dir=cache)
    assert set(left_in(cache)) == {"lock"}


def test_bombs_are_refused(pack, cache):
    zeros = bytes(5 * 2**20)
    archive = pack(*((f"{i}.png", zeros) for i in range(14)))
    assert archive.stat().st_size < 100_000
    with pytest.raises(DataError, match="would unpack to more than the 67,108,864 bytes"):
        unpacked(archive, cache_dir=cache)
    assert left_in(cache) == ["lock"]


def test_damaged_archive_leaves_nothing(pack, cache):
    archive = pack(("0.png", os.urandom(1000)), ("1.png", os.urandom(1000)))
    content = bytearray(archive.read_bytes())
    content[1500] ^= 1
    archive.write_bytes(content)
    with pytest.raises(DataError, match="is damaged or cut short"):
        unpacked(archive, cache_dir=cache)
    assert left_in(cache) == ["lock"]


def test_folder_that_cannot_be_written_says_what_to_do(pack, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"a\.zip cannot be unpacked into .*/file/cache") as caught:
        unpacked(pack(("0.png", b"a")), cache_dir=tmp_path / "file" / "cache")
    assert "data.cache_dir=FOLDER" in caught.value.hint


def start(code, *words):
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], stdout=subprocess.PIPE, text=True)


def test_killed_unpacking_is_done_again_while_another_waits(pack, cache):
    archive = pack(("0.png", b"a"), ("1.png", b"b"))
    with start(SLOW, archive, cache) as slow:
        try:
            assert slow.stdout.readline() == "unpacking images\n"  # one file of two is there
            assert left_in(cache) == ["lock", "part"]
            with start(PLAIN, archive, cache) as other:
                assert other.stdout.readline() == "waiting for another process to unpack\n"
                slow.send_signal(signal.SIGKILL)
                folder = other.communicate(timeout=60)[0].strip()
                assert other.returncode == 0
        finally:
            slow.kill()
    assert files(cache / os.path.basename(folder)) == {"0.png": b"a", "1.png": b"b"}
    assert not list(cache.glob("*.part"))


def test_processes_that_unpack_at_once_find_the_same(pack, cache):
    archive = pack(*((f"{i}.png", os.urandom(100)) for i in range(300)))
    processes = [start(PLAIN, archive, cache) for _ in range(2)]
    ends = {(p.communicate(timeout=60)[0].splitlines()[-1], p.returncode) for p in processes}
    assert len(ends) == 1
    folder, code = ends.pop()
    assert code == 0
    assert len(files(cache / os.path.basename(folder))) == 300
