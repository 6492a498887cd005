import bz2
import gzip
import io
import lzma
import stat
import tarfile
import zipfile

import numpy as np
import pytest

from cvtrain.data.archives import read_compressed, read_members
from cvtrain.errors import DataError


def write_tar(path, members, mode="w:gz"):
    """Members are (name, content) or a ready TarInfo."""
    with tarfile.open(path, mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            tar.addfile(info, io.BytesIO(member[1]))
    return path


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_wanted_members_of_a_tar_are_read(tmp_path, mode):
    path = write_tar(tmp_path / "a.tar", [special("d", tarfile.DIRTYPE), ("./d/a", b"one"), ("d/b", b"two")], mode)
    assert read_members(path, {"d/a", "d/missing"}, max_bytes=100) == {"d/a": b"one"}
    assert read_members(path, lambda name: name.startswith("d/"), max_bytes=100) == {"d/a": b"one", "d/b": b"two"}
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


def test_wanted_members_of_a_zip_are_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.mkdir("d")
        archive.writestr("d/a", b"one")
        archive.writestr("d/b", b"two")
    assert read_members(tmp_path / "a.zip", {"d/b"}, max_bytes=100) == {"d/b": b"two"}


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "d/../../out", "d\\..\\out", "C:/out"])
def test_members_outside_the_archive_are_refused(tmp_path, name):
    path = write_tar(tmp_path / "a.tar.gz", [("d/a", b"one"), (name, b"x")])
    with pytest.raises(DataError, match="points outside the archive"):
        read_members(path, {"d/a"}, max_bytes=100)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(zipfile.ZipInfo(name), b"x")
    with pytest.raises(DataError, match="points outside the archive"):
        read_members(tmp_path / "a.zip", {"d/a"}, max_bytes=100)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_are_refused(tmp_path, kind):
    path = write_tar(tmp_path / "a.tar.gz", [special("d", kind, "/etc"), ("d/a", b"one")])
    with pytest.raises(DataError, match="'d' is a link or a special file"):
        read_members(path, {"d/a"}, max_bytes=100)


def test_link_in_a_zip_is_refused(tmp_path):
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc")
    with pytest.raises(DataError, match="is a link"):
        read_members(tmp_path / "a.zip", {"link"}, max_bytes=100)


def test_archive_larger_than_possible_is_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar.gz", [("a", bytes(1000)), ("b", bytes(1000))])
    with pytest.raises(DataError, match="more than the 1,500 bytes"):
        read_members(path, {"a"}, max_bytes=1500)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(10_000_000))
    with pytest.raises(DataError, match="more than the 1,500 bytes"):
        read_members(tmp_path / "a.zip", {"a"}, max_bytes=1500)


def test_header_that_claims_gigabytes_is_refused(tmp_path):
    header = special("long", tarfile.GNUTYPE_LONGNAME)
    header.size = 50_000_000
    block = header.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(block + bytes(50_000_000)))
    with pytest.raises(DataError, match="would unpack to more"):
        read_members(tmp_path / "a.tar.gz", {"a"}, max_bytes=1000)


@pytest.mark.parametrize("keep", [0, 1, 10, 300, 3000, -20])
def test_truncated_archive_is_named(tmp_path, keep):
    content = np.random.default_rng(0).integers(0, 256, 5000, np.uint8).tobytes()
    whole = write_tar(tmp_path / "whole.tar.gz", [("a", content)]).read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[:keep])
    with pytest.raises(DataError, match=r"cut\.tar\.gz cannot be read, or is damaged or cut short"):
        read_members(tmp_path / "cut.tar.gz", {"a"}, max_bytes=10_000)


def test_damaged_zip_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a", b"content")
    damaged = (tmp_path / "a.zip").read_bytes().replace(b"content", b"kontent", 1)
    (tmp_path / "a.zip").write_bytes(damaged)
    with pytest.raises(DataError, match=r"a\.zip cannot be read, or is damaged"):
        read_members(tmp_path / "a.zip", {"a"}, max_bytes=100)


@pytest.mark.parametrize("content", [b"<html>no</html>", b"", bytes(2000)])
def test_file_that_is_no_archive_holds_nothing_or_is_refused(tmp_path, content):
    (tmp_path / "a.tar").write_bytes(content)
    try:
        assert read_members(tmp_path / "a.tar", {"a"}, max_bytes=100) == {}
    except DataError as error:
        assert "a.tar" in error.message  # noqa: PT017 - an empty tar is a tar


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, bytes])
def test_single_file_is_unpacked(tmp_path, compress):
    (tmp_path / "a").write_bytes(compress(b"content"))
    assert read_compressed(tmp_path / "a", max_bytes=100) == b"content"
    with pytest.raises(DataError, match="more than the 3 bytes"):
        read_compressed(tmp_path / "a", max_bytes=3)


def test_truncated_gzip_file_is_named(tmp_path):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"content" * 100)[:-9])
    with pytest.raises(DataError, match=r"a\.gz cannot be read, or is damaged or cut short"):
        read_compressed(tmp_path / "a.gz", max_bytes=10_000)


# ------------------------------------------------------------------------------------------------ made to do harm


def pax(name, **headers):
    info = tarfile.TarInfo(name)
    info.pax_headers = headers
    return info


def many(count):
    return [(f"{i}.png", b"") for i in range(count)]


@pytest.mark.parametrize(
    "members",
    [
        [special("block", tarfile.BLKTYPE)],
        [special("old", tarfile.CONTTYPE)],
        [special("d", tarfile.LNKTYPE, "a"), ("d", b"x")],
        [special("d", tarfile.SYMTYPE, ".."), ("d/out", b"x")],
        [pax("a", path="../out")],
        [pax("a", path="/out")],
        [pax("a", path="d/" * 4000 + "../out")],
        [("d/" * 2000 + "../" * 2001 + "out", b"x")],
        [("c:out", b"x")],
        [("..", b"x")],
        [("d/..\\..\\out", b"x")],
    ],
)
def test_members_of_odd_kinds_and_names_are_refused(tmp_path, members):
    path = write_tar(tmp_path / "a.tar", [("0.png", b"one"), *members], "w")
    with pytest.raises(DataError, match=r"is a link or a special file|points outside the archive"):
        read_members(path, lambda name: True, max_bytes=10**6)
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar"]


def test_pax_headers_cannot_claim_a_size_that_is_not_there(tmp_path):
    path = write_tar(tmp_path / "a.tar", [pax("a", size="999999999999")], "w")
    with pytest.raises(DataError):
        read_members(path, lambda name: True, max_bytes=10**6)


def test_sparse_members_are_refused(tmp_path):
    path = write_tar(tmp_path / "a.tar", [special("a", tarfile.GNUTYPE_SPARSE)], "w")
    with pytest.raises(DataError):
        read_members(path, lambda name: True, max_bytes=10**6)


def test_directory_of_a_zip_that_contradicts_its_members_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("good.png", b"content")
    data = (tmp_path / "a.zip").read_bytes()
    at = data.rindex(b"good.png")
    (tmp_path / "a.zip").write_bytes(data[:at] + b"evil.png" + data[at + 8 :])
    with pytest.raises(DataError, match="cannot be read, or is damaged"):
        read_members(tmp_path / "a.zip", lambda name: True, max_bytes=100)


def test_number_of_members_is_limited(tmp_path, monkeypatch):
    monkeypatch.setattr("cvtrain.data.archives._MAX_MEMBERS", 500)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, content in many(501):
            archive.writestr(name, content)
    for path in (tmp_path / "a.zip", write_tar(tmp_path / "a.tar", many(501), "w")):
        with pytest.raises(DataError, match="more than 500 members"):
            read_members(path, lambda name: True, max_bytes=100)
