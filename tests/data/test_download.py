import hashlib
import http.server
import os
import random
import ssl
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest
import trustme

from cvtrain.data.download import fetch
from cvtrain.data.published import Download
from cvtrain.errors import DataError

CONTENT = random.Random(0).randbytes(3_000_000)
HALF = len(CONTENT) // 2


class _Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the first part of the path: what a good, a stubborn or a broken server does."""

    def do_GET(self):
        kind = self.path.split("/")[1]
        asked = self.headers.get("Range")
        self.server.asked.append((kind, asked))
        times = sum(k == kind for k, _ in self.server.asked)
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if kind == "missing":
            return self._send(404, b"<html>not here</html>", content_type="text/html")
        if kind == "page":
            return self._send(200, b"<html>log in first</html>", content_type="text/html")
        if kind == "to-http":
            return self._send(302, b"", Location="http://127.0.0.1:1/file.bin")
        if kind == "to-ftp":
            return self._send(302, b"", Location="ftp://127.0.0.1:1/file.bin")
        if kind == "to-good":
            return self._send(302, b"", Location="/good/file.bin")
        if kind == "busy" and times < 3:
            return self._send(503, b"later")
        if kind == "wrong":
            return self._send(200, bytes(len(CONTENT)))
        if kind == "no-range":
            return self._send(200, CONTENT)
        if kind == "cut" and times == 1:
            return self._send(200, CONTENT, stop=HALF)
        if kind == "always-cut":
            return self._send(200, CONTENT, stop=1000)
        if kind == "huge":
            return self._send(200, b"", **{"Content-Length": str(10**18)})
        if kind == "slow":
            self.server.slow_may_go_on.wait(20)
        if start >= len(CONTENT):
            return self._send(416, b"")
        if start:
            where = f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}"
            return self._send(206, CONTENT[start:], **{"Content-Range": where})
        return self._send(200, CONTENT)

    def _send(self, status, body, *, content_type="application/octet-stream", stop=None, **headers):
        self.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body[:stop])

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def certificate_authority(tmp_path_factory):
    authority = trustme.CA()
    path = tmp_path_factory.mktemp("authority") / "authority.pem"
    authority.cert_pem.write_to_path(path)
    return authority, path


@pytest.fixture
def server(certificate_authority, monkeypatch):
    authority, authority_path = certificate_authority
    monkeypatch.setenv("SSL_CERT_FILE", str(authority_path))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.asked, server.slow_may_go_on = [], threading.Event()
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.slow_may_go_on.set()
        server.shutdown()
        thread.join(10)


def published(server, kind, **changes):
    facts = {"size_bytes": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest(), **changes}
    port = server.server_address[1] if server else 1
    return Download(address=f"https://127.0.0.1:{port}/{kind}/file.bin", file_name="file.bin", **facts)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_fresh_download_leaves_only_the_verified_file(server, tmp_path):
    seen = []
    path = fetch(published(server, "good"), tmp_path / "a" / "b", progress=lambda *args: seen.append(args))
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["file.bin"]
    assert seen[-1] == (len(CONTENT), len(CONTENT), "downloading file.bin")


def test_second_fetch_asks_nobody(server, tmp_path):
    fetch(published(server, "good"), tmp_path)
    fetch(published(server, "good"), tmp_path)
    assert len(server.asked) == 1


def test_file_of_unknown_size_with_md5_is_fetched(server, tmp_path):
    download = published(server, "good", size_bytes=None, sha256=None, md5=hashlib.md5(CONTENT).hexdigest())
    assert fetch(download, tmp_path).read_bytes() == CONTENT


def test_half_a_part_is_continued(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:HALF])
    assert fetch(published(server, "good"), tmp_path).read_bytes() == CONTENT
    assert server.asked == [("good", f"bytes={HALF}-")]
    assert names(tmp_path) == ["file.bin"]


def test_whole_part_needs_no_request(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    assert fetch(published(server, "good"), tmp_path).read_bytes() == CONTENT
    assert server.asked == []


@pytest.mark.parametrize("part", [CONTENT, CONTENT + b"more"], ids=["whole", "too-long"])
def test_part_that_the_server_cannot_continue_is_settled_by_its_checksum(server, tmp_path, part):
    (tmp_path / "file.bin.part").write_bytes(part)
    assert fetch(published(server, "good", size_bytes=None), tmp_path).read_bytes() == CONTENT


def test_server_that_ignores_ranges_starts_over(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"x" * HALF)
    assert fetch(published(server, "no-range"), tmp_path).read_bytes() == CONTENT
    assert len(server.asked) == 1


def test_foreign_part_is_thrown_away_and_fetched_anew(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(b"x" * HALF)
    assert fetch(published(server, "good"), tmp_path).read_bytes() == CONTENT
    assert [asked for _, asked in server.asked] == [f"bytes={HALF}-", None]


def test_connection_cut_half_way_is_continued(server, tmp_path):
    assert fetch(published(server, "cut"), tmp_path).read_bytes() == CONTENT
    assert server.asked == [("cut", None), ("cut", f"bytes={HALF}-")]


def test_busy_server_is_asked_again(server, tmp_path):
    assert fetch(published(server, "busy"), tmp_path).read_bytes() == CONTENT


def test_redirect_to_https_is_followed(server, tmp_path):
    assert fetch(published(server, "to-good"), tmp_path).read_bytes() == CONTENT


def test_wrong_checksum_names_both_and_keeps_nothing(server, tmp_path):
    with pytest.raises(DataError, match="did not send the published file") as caught:
        fetch(published(server, "wrong"), tmp_path)
    assert hashlib.sha256(CONTENT).hexdigest() in caught.value.message
    assert hashlib.sha256(bytes(len(CONTENT))).hexdigest() in caught.value.message
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "answered 404"),
        ("page", "web page"),
        ("to-http", "redirected to http://127.0.0.1:1/file.bin, which is not https"),
        ("to-ftp", "not https"),
        ("always-cut", "connection ended at 1,000 of 3,000,000 bytes"),
    ],
)
def test_no_file_says_why_and_what_to_do(server, tmp_path, kind, reason):
    with pytest.raises(DataError, match=reason) as caught:
        fetch(published(server, kind), tmp_path)
    text = "\n".join(caught.value.lines())
    assert str(tmp_path) in text
    assert f"/{kind}/file.bin" in text
    assert "3.0 MB" in text
    assert "data.root=" in text
    assert len(caught.value.lines()) <= 5
    assert not (tmp_path / "file.bin").exists()


def test_other_size_is_refused_before_the_transfer(server, tmp_path):
    with pytest.raises(DataError, match="offers 3,000,000 bytes where 5 are expected"):
        fetch(published(server, "good", size_bytes=5), tmp_path)
    assert names(tmp_path) == []


@pytest.mark.parametrize("scheme", ["http", "file", "ftp"])
def test_only_https_addresses_are_used(tmp_path, scheme):
    download = Download(f"{scheme}://user:secret@127.0.0.1:1/file.bin?token=secret", "file.bin", md5="0" * 32)
    with pytest.raises(DataError, match="only https") as caught:
        fetch(download, tmp_path)
    assert "secret" not in "\n".join(caught.value.lines())


def test_untrusted_certificate_is_refused(server, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(DataError, match="certificate is not trusted"):
        fetch(published(server, "good"), tmp_path)


def test_closed_port_is_no_connection(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(DataError, match="no connection"):
        fetch(published(None, "good"), tmp_path)


def test_download_that_is_not_wanted_is_not_tried(server, tmp_path):
    with pytest.raises(DataError, match=r"data\.download=false"):
        fetch(published(server, "good"), tmp_path / "data", enabled=False)
    assert server.asked == []
    assert not (tmp_path / "data").exists()


def test_wrong_file_put_there_by_hand_is_named_and_kept(tmp_path):
    (tmp_path / "file.bin").write_bytes(b"mine")
    with pytest.raises(DataError, match="is not the published file"):
        fetch(published(None, "good"), tmp_path)
    assert (tmp_path / "file.bin").read_bytes() == b"mine"


def test_root_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file.bin").write_bytes(b"mine")
    with pytest.raises(DataError, match="is a file, not a folder"):
        fetch(published(None, "good"), tmp_path / "file.bin")


def test_read_only_root_is_told(server):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o555)
        was_root = os.geteuid() == 0
        if was_root:
            os.seteuid(65534)
        try:
            with pytest.raises(DataError, match="cannot be written: Permission denied"):
                fetch(published(server, "good"), root)
        finally:
            if was_root:
                os.seteuid(0)
            root.chmod(0o755)


def test_full_disk_is_told_before_the_transfer(server, tmp_path):
    with pytest.raises(DataError, match="MB are needed and"):
        fetch(published(server, "huge", size_bytes=10**18), tmp_path)
    assert names(tmp_path) == []


def test_two_processes_at_once_fetch_once(server, tmp_path):
    code = (
        "import sys; from cvtrain.data.download import fetch; from cvtrain.data.published import Download; "
        "d = Download(address=sys.argv[1], file_name='file.bin', sha256=sys.argv[2]); "
        "print('ready', flush=True); sys.stdin.readline(); "
        "print(fetch(d, sys.argv[3], progress=lambda *a: print(a[2], flush=True)))"
    )
    download = published(server, "slow")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, download.address, download.sha256, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    # One of them waits for the lock while the other waits for the server.
    threading.Timer(1.0, server.slow_may_go_on.set).start()
    outputs = [process.communicate(timeout=30)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert all(output.endswith(f"{tmp_path / 'file.bin'}\n") for output in outputs)
    assert sum("waiting for another process" in output for output in outputs) == 1
    assert len(server.asked) == 1
    assert names(tmp_path) == ["file.bin"]
