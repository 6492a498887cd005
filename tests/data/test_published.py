import hashlib

import pytest

from cvtrain.data.published import Download, data_folder, difference, matches, plain_address, verify
from cvtrain.errors import DataError

CONTENT = b"published"
SHA256, MD5 = hashlib.sha256(CONTENT).hexdigest(), hashlib.md5(CONTENT).hexdigest()


def published(**facts):
    return Download("https://publisher.example/data/file.bin", "file.bin", **facts)


@pytest.mark.parametrize("facts", [{"sha256": SHA256}, {"md5": MD5}, {"sha256": SHA256, "md5": "0" * 32}])
def test_published_file_is_accepted(tmp_path, facts):
    (tmp_path / "file.bin").write_bytes(CONTENT)
    verify(tmp_path / "file.bin", published(**facts))
    assert matches(tmp_path / "file.bin", published(**facts))


def test_other_file_is_refused_with_both_checksums(tmp_path):
    path = tmp_path / "file.bin"
    path.write_bytes(b"other")
    found = hashlib.sha256(b"other").hexdigest()
    assert difference(path, published(sha256=SHA256)) == f"SHA-256 is {found} (5 bytes),\nit should be {SHA256}"
    assert not matches(path, published(sha256=SHA256))
    with pytest.raises(DataError, match=f"is not the published file:\nSHA-256 is {found}"):
        verify(path, published(sha256=SHA256))


def test_file_that_cannot_be_read_is_named(tmp_path):
    assert not matches(tmp_path / "missing", published(md5=MD5))
    with pytest.raises(DataError, match="missing cannot be read: No such file"):
        verify(tmp_path / "missing", published(md5=MD5))


@pytest.mark.parametrize("mirror", ["https://mirror.example/a", "https://mirror.example/a/"])
def test_mirror_changes_the_address_alone(mirror):
    moved = published(sha256=SHA256, size_bytes=9, also=("other.bin",)).from_mirror(mirror)
    assert moved.address == "https://mirror.example/a/file.bin"
    assert moved.from_mirror("https://publisher.example/data") == published(
        sha256=SHA256, size_bytes=9, also=("other.bin",)
    )
    assert moved.from_mirror(None) is moved


def test_data_folder_is_resolved(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder("a") == data_folder("~/a") == data_folder(tmp_path / "b" / ".." / "a") == tmp_path / "a"


def test_data_folder_that_is_a_file_or_a_loop_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match="is a file, not a folder"):
        data_folder(tmp_path / "file")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(DataError, match="loop cannot be read"):
        data_folder(tmp_path / "loop")


def test_plain_address_keeps_secrets_and_odd_characters_back():
    assert plain_address("https://user:secret@host.example:1/a\x1b?token=secret") == "https://host.example:1/a\\x1b"
