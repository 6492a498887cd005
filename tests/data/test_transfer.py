import pytest

from cvtrain.data.published import Download
from cvtrain.data.transfer import AttemptFailed, attempt, https_only_opener, length_bytes

CLOSED_PORT = Download("https://127.0.0.1:1/file.bin", "file.bin", size_bytes=4, sha256="0" * 64)


def test_whole_part_needs_no_request(tmp_path):
    part = tmp_path / "file.bin.part"
    part.write_bytes(b"four")
    attempt(CLOSED_PORT, part, opener=https_only_opener())
    assert part.read_bytes() == b"four"


@pytest.mark.parametrize(("before", "after"), [(None, None), (b"so", b"so"), (b"too long", None)])
def test_attempt_without_a_connection_keeps_what_can_be_continued(tmp_path, monkeypatch, before, after):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    part = tmp_path / "file.bin.part"
    if before is not None:
        part.write_bytes(before)
    with pytest.raises(AttemptFailed, match="no connection") as caught:
        attempt(CLOSED_PORT, part, opener=https_only_opener())
    assert not caught.value.final
    assert (part.read_bytes() if part.exists() else None) == after
    assert length_bytes(part) == len(after or b"")


@pytest.mark.parametrize("address", ["ftp://127.0.0.1:1/a", "file:///etc/hosts", "data:,a"])
def test_opener_knows_no_other_scheme(address, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert https_only_opener().open(address) is None
