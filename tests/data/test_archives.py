import bz2
import gzip
import io
import lzma
import pickle
import stat
import tarfile
import zipfile

import numpy as np
import pytest

from cvtrain.data.archives import (
    array_sha256,
    check_arrays,
    image_data,
    load_arrays,
    load_plain_pickle,
    read_compressed,
    read_members,
    store_arrays,
)
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


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_pickles_of_every_protocol_are_read(protocol):
    pixels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    content = pickle.dumps({"data": pixels, b"labels": [1, 2, 3], "names": [b"a", "b"]}, protocol=protocol)
    read = load_plain_pickle(content, "batch")
    np.testing.assert_array_equal(read["data"], pixels)
    assert read["labels"] == [1, 2, 3]
    assert read["names"] == [b"a", "b"]


def test_pickle_by_python_2_is_read():
    # cPickle.dumps({'data': numpy.zeros((1, 3), 'uint8') + 7, 'labels': [5]}, 2) under Python 2
    content = (
        b"\x80\x02}q\x01(U\x04dataq\x02cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b"
        b"\x87Rq\x05(K\x01K\x01K\x03\x86cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xff"
        b"J\xff\xff\xff\xffK\x00tb\x89U\x03\x07\x07\x07tbU\x06labelsq\x08]q\x09K\x05au."
    )
    read = load_plain_pickle(content, "batch")
    assert read["data"].tolist() == [[7, 7, 7]]
    assert read["labels"] == [5]


class Hostile:
    """Would create the file `marker` when unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return open, (str(self.marker), "w")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_hostile_pickle_is_refused_and_does_not_run(tmp_path, protocol):
    content = pickle.dumps({"data": Hostile(tmp_path / "marker")}, protocol=protocol)
    with pytest.raises(DataError, match=r"batch was refused: it asks to run \w+\.open"):
        load_plain_pickle(content, "batch")
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy\nndarray\n}(X\x08\x00\x00\x00__call__K\x01ub.",  # changes what stands for a function
        b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x05\x00\x00\x00rot13tR.",  # would import a codec
        b"cnumpy\nndarray\n)\x81.",  # makes an object without calling
        b"cnumpy\ndtype\n(tR.",
        b"Pdb\n.",  # persistent id
        b"\x80\x02\x82\x01.",  # extension registry
        b"}" * 10,
        b"",
    ],
)
def test_odd_pickle_is_damaged(content):
    with pytest.raises(DataError, match="batch is damaged or cut short"):
        load_plain_pickle(content, "batch")


def test_pickle_that_reserves_memory_is_refused():
    with pytest.raises(DataError, match="memory slots"):
        load_plain_pickle(b"}r\xff\xff\xff\x7f.", "batch")


def test_pickle_of_another_kind_is_refused():
    with pytest.raises(DataError, match="no dictionary"):
        load_plain_pickle(pickle.dumps([1]), "batch")
    with pytest.raises(DataError, match="not of uint8"):
        load_plain_pickle(pickle.dumps({"data": np.zeros(3)}), "batch")
    with pytest.raises(DataError, match="not of uint8"):
        load_plain_pickle(pickle.dumps({"data": np.array([None])}), "batch")


ARRAYS = {"pixels": np.arange(24, dtype=np.uint8).reshape(2, 3, 4), "labels": np.array([3, 1])}


def test_stored_arrays_come_back_with_facts_and_checksums(tmp_path):
    store_arrays(tmp_path / "a.arrays", check_arrays(ARRAYS, {"archive": "x", "names": ["a"]}))
    read = load_arrays(tmp_path / "a.arrays", {"archive": "x"})
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(read.arrays[name], array)
        assert read.sha256[name] == array_sha256(array)
    assert read.facts == {"archive": "x", "names": ["a"]}
    assert [path.name for path in tmp_path.iterdir()] == ["a.arrays"]


def test_every_flipped_bit_of_stored_arrays_is_found(tmp_path):
    path = tmp_path / "a.arrays"
    store_arrays(path, check_arrays(ARRAYS, {"archive": "x"}))
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 4]) + good[position + 1 :])
        assert load_arrays(path, {"archive": "x"}) is None
    for length in range(0, len(good), 7):
        path.write_bytes(good[:length])
        assert load_arrays(path, {"archive": "x"}) is None


def test_arrays_stored_for_something_else_are_not_used(tmp_path):
    store_arrays(tmp_path / "a.arrays", check_arrays(ARRAYS, {"archive": "x"}))
    assert load_arrays(tmp_path / "a.arrays", {"archive": "y"}) is None
    assert load_arrays(tmp_path / "missing.arrays", {}) is None


def test_folder_that_cannot_be_written_is_no_error(tmp_path):
    store_arrays(tmp_path / "missing" / "a.arrays", check_arrays(ARRAYS, {}))
    assert not (tmp_path / "missing").exists()


def test_fingerprint_follows_pixels_labels_and_names():
    pixels, labels = np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 1])
    split = (pixels, labels)
    base = image_data(split, split, class_names=("a", "b")).fingerprint
    assert base == image_data((pixels.copy(), labels.astype(np.uint8)), split, class_names=("a", "b")).fingerprint
    other = [
        image_data((pixels + np.uint8(1), labels), split, class_names=("a", "b")),
        image_data(split, (pixels, labels[::-1]), class_names=("a", "b")),
        image_data(split, split, class_names=("b", "a")),
        image_data((pixels.reshape(2, 2, 2, 4), labels), split, class_names=("a", "b")),
    ]
    assert len({base, *(data.fingerprint for data in other)}) == 5
