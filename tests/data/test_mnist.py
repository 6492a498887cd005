import gzip
import hashlib
import struct

import numpy as np
import pytest
import torch

from cvtrain.data.mnist import (
    FASHION_MNIST_FILES,
    FASHION_MNIST_NAMES,
    MNIST_FILES,
    MNIST_NAMES,
    load_fashion_mnist,
    load_mnist,
)
from cvtrain.data.published import Download
from cvtrain.errors import DataError


def idx(array):
    return struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape) + array.tobytes()


def content(seed=0, count=12):
    """The four files, unpacked, by their packed names."""
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 256, (n, 28, 28), np.uint8) for n in (count, count // 2)]
    labels = [rng.integers(0, 10, n, np.uint8) for n in (count, count // 2)]
    arrays = (images[0], labels[0], images[1], labels[1])
    return {file.file_name: idx(array) for file, array in zip(MNIST_FILES, arrays, strict=True)}


def written(folder, files, *, packed=True):
    """Writes the files and returns the downloads that accept them."""
    folder.mkdir(parents=True, exist_ok=True)
    downloads = []
    for name, data in files.items():
        data = gzip.compress(data) if packed else data
        (folder / (name if packed else name.removesuffix(".gz"))).write_bytes(data)
        downloads.append(Download(f"https://127.0.0.1:1/{name}", name, sha256=hashlib.sha256(data).hexdigest()))
    return downloads


def load(root, files=MNIST_FILES):
    return load_mnist(root=root, files=files, download=False)


@pytest.mark.parametrize("folder", ["", "mnist", "MNIST/raw"])
def test_packed_files_are_found_and_read(tmp_path, folder):
    data = load(tmp_path, written(tmp_path / folder, content()))
    packed = content()["train-images-idx3-ubyte.gz"]
    expected = np.frombuffer(packed, np.uint8, offset=16).reshape(12, 1, 28, 28)
    np.testing.assert_array_equal(data.train.images.read(torch.arange(12)).numpy(), expected)
    assert data.train.labels.tolist() == list(content()["train-labels-idx1-ubyte.gz"][8:])
    assert (len(data.test), data.val, data.warnings) == (6, None, ())
    assert data.class_names == MNIST_NAMES
    assert (data.preprocessing.image_size, data.preprocessing.channels) == (28, 1)


def test_unpacked_files_give_the_same_and_a_warning(tmp_path):
    packed = load(tmp_path / "a", written(tmp_path / "a", content()))
    written(tmp_path / "b" / "MNIST" / "raw", content(), packed=False)
    unpacked = load(tmp_path / "b")
    assert unpacked.fingerprint == packed.fingerprint
    assert "no checksum vouches" in unpacked.warnings[0]


def test_mnist_and_fashion_mnist_are_not_mixed_up(tmp_path):
    fashion = written(tmp_path, content(seed=1))
    mnist = written(tmp_path / "MNIST" / "raw", content(seed=0))
    one = load(tmp_path, mnist)
    other = load_fashion_mnist(root=tmp_path, files=fashion, download=False)
    assert one.fingerprint != other.fingerprint
    assert other.class_names == FASHION_MNIST_NAMES
    (tmp_path / "MNIST").rename(tmp_path / "gone")
    with pytest.raises(DataError, match="is not in"):
        load(tmp_path, mnist)


def test_packed_file_with_a_wrong_checksum_is_refused(tmp_path):
    written(tmp_path / "MNIST" / "raw", content())
    with pytest.raises(DataError, match="is not the published file"):
        load(tmp_path)


def test_missing_file_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte\.gz \(9\.9 MB\) is not in .*raw") as caught:
        load(tmp_path)
    assert "https://ossci-datasets.s3.amazonaws.com/mnist/" in caught.value.message
    with pytest.raises(DataError, match=r"address: https://mirror\.example/train-images-idx3-ubyte\.gz"):
        load_mnist(root=tmp_path, download=False, mirror="https://mirror.example")


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("train-images-idx3-ubyte.gz", b"", "no idx file of images"),
        ("train-images-idx3-ubyte.gz", b"<html>not found</html>", "no idx file of images"),
        ("train-images-idx3-ubyte.gz", idx(np.zeros(12, np.uint8)) + bytes(99), "no idx file of images"),
        ("train-images-idx3-ubyte.gz", idx(np.zeros((12, 28, 28), np.uint8))[:-1], "announces 9,424 bytes and has"),
        ("train-images-idx3-ubyte.gz", struct.pack(">4I", 0x803, *[2**32 - 1] * 3), "announces"),
        ("train-images-idx3-ubyte.gz", idx(np.zeros((12, 20, 28), np.uint8)), "12 x 20 x 28 values"),
        ("train-images-idx3-ubyte.gz", idx(np.zeros((0, 28, 28), np.uint8)), "0 x 28 x 28 values"),
        ("t10k-labels-idx1-ubyte.gz", idx(np.zeros(5, np.uint8)), "has 6 images, but .* has 5 labels"),
        ("t10k-labels-idx1-ubyte.gz", idx(np.full(6, 10, np.uint8)), "holds the label 10; 0 to 9"),
    ],
)
def test_bad_file_is_refused_by_name(tmp_path, name, data, reason):
    downloads = written(tmp_path, content() | {name: data})
    with pytest.raises(DataError, match=reason) as caught:
        load(tmp_path, downloads)
    assert name in caught.value.message


def test_truncated_packed_file_is_refused(tmp_path):
    (tmp_path / "raw").mkdir()
    downloads = written(tmp_path, content())
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    downloads[0] = Download(downloads[0].address, path.name, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
    with pytest.raises(DataError, match="damaged or cut short"):
        load(tmp_path, downloads)


def test_tables_name_the_four_files_in_order():
    for files in (MNIST_FILES, FASHION_MNIST_FILES):
        assert [file.file_name.split("-idx")[0] for file in files] == [
            *("train-images", "train-labels"),
            *("t10k-images", "t10k-labels"),
        ]
        assert all(file.address == file.address.rpartition("/")[0] + "/" + file.file_name for file in files)
