import hashlib
import http.server
import io
import os
import pickle
import ssl
import tarfile
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
import trustme

from cvtrain.data.cifar import load_cifar10, load_cifar100
from cvtrain.data.cifar_layout import (
    CIFAR10_ARCHIVES,
    CIFAR10_NAMES,
    CIFAR100_ARCHIVES,
    CIFAR100_COARSE_NAMES,
    CIFAR100_FINE_NAMES,
)
from cvtrain.data.published import Download
from cvtrain.errors import ConfigError, DataError

TRAIN = [f"data_batch_{i}" for i in range(1, 6)]


def cifar10_batches(per_batch=4):
    """Planes (N, 3072) and labels by batch name."""
    rng = np.random.default_rng(0)
    return {
        name: (rng.integers(0, 256, (per_batch, 3072), np.uint8), rng.integers(0, 10, per_batch).tolist())
        for name in [*TRAIN, "test_batch"]
    }


def cifar10_python(batches=None):
    files = {"batches.meta": pickle.dumps({"label_names": list(CIFAR10_NAMES)}, protocol=2), "readme.html": b"<html>"}
    for name, (data, labels) in (batches or cifar10_batches()).items():
        files[name] = pickle.dumps({b"data": data, b"labels": labels, b"batch_label": b"x"}, protocol=2)
    return {f"cifar-10-batches-py/{name}": content for name, content in files.items()}


def cifar10_binary(batches=None):
    files = {"batches.meta.txt": "\n".join([*CIFAR10_NAMES, ""]).encode()}
    for name, (data, labels) in (batches or cifar10_batches()).items():
        files[f"{name}.bin"] = np.concatenate([np.array(labels, np.uint8)[:, None], data], 1).tobytes()
    return {f"cifar-10-batches-bin/{name}": content for name, content in files.items()}


def cifar100(count=30):
    rng = np.random.default_rng(1)
    python, binary = {}, {}
    for name in ("train", "test"):
        data = rng.integers(0, 256, (count, 3072), np.uint8)
        coarse, fine = rng.integers(0, 20, count), rng.integers(0, 100, count)
        batch = {"data": data, "coarse_labels": coarse.tolist(), "fine_labels": fine.tolist()}
        python[f"cifar-100-python/{name}"] = pickle.dumps(batch)
        labels = np.stack([coarse, fine], 1).astype(np.uint8)
        binary[f"cifar-100-binary/{name}.bin"] = np.concatenate([labels, data], 1).tobytes()
    return python, binary


def archived(root, file_name, files, port=1):
    """Writes the files as an archive and returns the download that accepts it."""
    with tarfile.open(root / file_name, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    checksum = hashlib.sha256((root / file_name).read_bytes()).hexdigest()
    return Download(f"https://127.0.0.1:{port}/{file_name}", file_name, sha256=checksum)


def unpacked(root, files):
    for name, content in files.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    return root


def load(root, *downloads, **options):
    return load_cifar10(root=root, archives=downloads or CIFAR10_ARCHIVES, **{"download": False, **options})


def assert_holds(data, batches):
    names = [*TRAIN, "test_batch"]
    planes = np.concatenate([batches[name][0] for name in names]).reshape(-1, 3, 32, 32)
    labels = [label for name in names for label in batches[name][1]]
    read = torch.cat([split.images.read(torch.arange(len(split))) for split in (data.train, data.test)])
    np.testing.assert_array_equal(read.numpy(), planes)
    assert [*data.train.labels.tolist(), *data.test.labels.tolist()] == labels
    assert data.train.images.pixels.is_contiguous()


def test_python_and_binary_archive_and_folder_give_the_same(tmp_path):
    roots = [tmp_path / name for name in ("python", "binary", "python_dir", "binary_dir")]
    for root in roots:
        root.mkdir()
    python = load(roots[0], archived(roots[0], "cifar-10-python.tar.gz", cifar10_python()))
    binary = load(roots[1], archived(roots[1], "cifar-10-binary.tar.gz", cifar10_binary()))
    folders = [load(unpacked(roots[2], cifar10_python())), load(unpacked(roots[3], cifar10_binary()))]
    inside = load(roots[2] / "cifar-10-batches-py")
    for data in (python, binary, *folders, inside):
        assert_holds(data, cifar10_batches())
        assert data.fingerprint == python.fingerprint
        assert data.class_names == CIFAR10_NAMES
        assert data.val is None
        assert (data.preprocessing.image_size, data.preprocessing.channels) == (32, 3)
    assert python.warnings == ()
    assert "no checksum vouches" in folders[0].warnings[0]
    assert "20 training and 4 test images" in folders[0].warnings[1]


def test_second_start_needs_the_converted_images_only(tmp_path):
    download = archived(tmp_path, "cifar-10-python.tar.gz", cifar10_python())
    first = load(tmp_path, download)
    (tmp_path / "cifar-10-python.tar.gz").unlink()
    second = load(tmp_path, download)
    assert_holds(second, cifar10_batches())
    assert second.fingerprint == first.fingerprint
    assert second.class_names == first.class_names


def test_damaged_converted_images_are_made_again(tmp_path):
    download = archived(tmp_path, "cifar-10-python.tar.gz", cifar10_python())
    load(tmp_path, download)
    (converted,) = tmp_path.glob("*.arrays")
    good = converted.read_bytes()
    converted.write_bytes(good[:-5] + b"X" + good[-4:])
    assert_holds(load(tmp_path, download), cifar10_batches())
    assert converted.read_bytes() == good


def test_images_converted_from_another_archive_are_not_used(tmp_path):
    load(tmp_path, archived(tmp_path, "cifar-10-python.tar.gz", cifar10_python()))
    others = cifar10_batches(per_batch=2)
    assert_holds(load(tmp_path, archived(tmp_path, "cifar-10-python.tar.gz", cifar10_python(others))), others)


def test_read_only_folder_does_without_converted_images():
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        download = archived(root, "cifar-10-python.tar.gz", cifar10_python())
        root.chmod(0o555)
        was_root = os.geteuid() == 0
        if was_root:
            os.seteuid(65534)
        try:
            assert_holds(load(root, download), cifar10_batches())
            assert not list(root.glob("*.arrays"))
        finally:
            if was_root:
                os.seteuid(0)
            root.chmod(0o755)


def test_archive_with_a_wrong_checksum_is_not_opened(tmp_path):
    archived(tmp_path, "cifar-10-python.tar.gz", cifar10_python())
    with pytest.raises(DataError, match="is not the published file"):
        load(tmp_path)


def test_missing_data_says_what_would_do(tmp_path):
    with pytest.raises(DataError, match=r"cifar-10-python\.tar\.gz \(170\.5 MB\) is not in") as caught:
        load(tmp_path)
    text = "\n".join(caught.value.lines())
    assert "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz" in text
    assert "cifar-10-binary.tar.gz, cifar-10-batches-py, cifar-10-batches-bin" in text
    assert len(caught.value.lines()) <= 5


def test_mirror_is_asked_instead(tmp_path):
    with pytest.raises(DataError, match=r"address: https://mirror\.example/cifar/cifar-10-python\.tar\.gz"):
        load(tmp_path, mirror="https://mirror.example/cifar/")


def test_archive_is_downloaded_over_https_and_read(tmp_path, monkeypatch):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=str(tmp_path), **kwargs)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            download = archived(tmp_path, "cifar-10-python.tar.gz", cifar10_python(), server.server_address[1])
            data = load(tmp_path / "data", download, download=True)
        finally:
            server.shutdown()
            thread.join(10)
    assert_holds(data, cifar10_batches())
    assert (tmp_path / "data" / "cifar-10-python.tar.gz").exists()


def test_relative_root_and_home_are_resolved(tmp_path, monkeypatch):
    unpacked(tmp_path, cifar10_python())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(".").fingerprint == load("~").fingerprint


class Hostile:
    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_hostile_batch_is_refused_and_does_not_run(tmp_path):
    files = cifar10_python() | {
        "cifar-10-batches-py/data_batch_3": pickle.dumps({"data": Hostile(tmp_path / "marker")})
    }
    download = archived(tmp_path, "cifar-10-python.tar.gz", files)
    with pytest.raises(DataError, match=r"data_batch_3 was refused: it asks to run posix\.mkdir"):
        load(tmp_path, download)
    assert not (tmp_path / "marker").exists()
    assert not list(tmp_path.glob("*.arrays"))


def test_cifar100_gives_fine_or_coarse_labels_from_one_conversion(tmp_path):
    python, binary = cifar100()
    download = archived(tmp_path, "cifar-100-python.tar.gz", python)
    fine = load_cifar100(root=tmp_path, archives=[download], download=False)
    coarse = load_cifar100(root=tmp_path, archives=[download], download=False, label="coarse")
    assert len(list(tmp_path.glob("*.arrays"))) == 1
    stored = pickle.loads(python["cifar-100-python/test"])
    assert fine.test.labels.tolist() == stored["fine_labels"]
    assert coarse.test.labels.tolist() == stored["coarse_labels"]
    assert (fine.class_names, coarse.class_names) == (CIFAR100_FINE_NAMES, CIFAR100_COARSE_NAMES)
    assert fine.fingerprint != coarse.fingerprint
    (tmp_path / "other").mkdir()
    other = load_cifar100(root=unpacked(tmp_path / "other", binary), download=False, archives=CIFAR100_ARCHIVES)
    assert other.fingerprint == fine.fingerprint


def test_unknown_kind_of_label_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.label = medium must be fine or coarse"):
        load_cifar100(root=tmp_path, label="medium")


def test_bad_batch_of_a_folder_is_refused_with_its_path(tmp_path):
    files = cifar10_binary() | {"cifar-10-batches-bin/data_batch_2.bin": bytes(3072)}
    with pytest.raises(DataError, match=r"cifar-10-batches-bin: data_batch_2\.bin has 3,072 bytes") as caught:
        load(unpacked(tmp_path, files))
    assert str(tmp_path) in caught.value.message
    assert len(caught.value.lines()) <= 6
