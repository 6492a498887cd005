"""MNIST and Fashion-MNIST from their four idx files.

Does not know how files get onto the machine, nor what is done with the images.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cvtrain.data.archives import read_compressed
from cvtrain.data.arrays import image_data
from cvtrain.data.download import fetch
from cvtrain.data.images import ImageData, Progress
from cvtrain.data.published import Download, data_folder, matches, verify
from cvtrain.errors import DataError

_SIZE = 28
_NUM_CLASSES = 10
_MAX_BYTES = 100_000_000  # the largest official file holds 47 MB
_IMAGES_MAGIC, _LABELS_MAGIC = 0x00000803, 0x00000801

_TRAIN_IMAGES, _TRAIN_LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
_TEST_IMAGES, _TEST_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"

# MD5: the publishers' pages. SHA-256: the ones that many independent projects pin for the same files.
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_FILES = (
    Download(
        address=_MNIST + _TRAIN_IMAGES,
        file_name=_TRAIN_IMAGES,
        size_bytes=9_912_422,
        sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        md5="f68b3c2dcbeaaa9fbdd348bbdeb94873",
    ),
    Download(
        address=_MNIST + _TRAIN_LABELS,
        file_name=_TRAIN_LABELS,
        size_bytes=28_881,
        sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        md5="d53e105ee54ea40749a09fcbcd1e9432",
    ),
    Download(
        address=_MNIST + _TEST_IMAGES,
        file_name=_TEST_IMAGES,
        size_bytes=1_648_877,
        sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        md5="9fb629c4189551a2d022fa330f9573f3",
    ),
    Download(
        address=_MNIST + _TEST_LABELS,
        file_name=_TEST_LABELS,
        size_bytes=4_542,
        sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        md5="ec29112dd5afa0611ce80d1b7f02629c",
    ),
)
# The publishers' repository; their other address is http only.
_FASHION = "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/"
FASHION_MNIST_FILES = (
    Download(
        address=_FASHION + _TRAIN_IMAGES,
        file_name=_TRAIN_IMAGES,
        size_bytes=26_421_880,
        sha256="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        md5="8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    ),
    Download(
        address=_FASHION + _TRAIN_LABELS,
        file_name=_TRAIN_LABELS,
        size_bytes=29_515,
        sha256="a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        md5="25c81989df183df01b3e8a0aad5dffbe",
    ),
    Download(
        address=_FASHION + _TEST_IMAGES,
        file_name=_TEST_IMAGES,
        size_bytes=4_422_102,
        sha256="346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        md5="bef4ecab320f06d8554ea6380940ec79",
    ),
    Download(
        address=_FASHION + _TEST_LABELS,
        file_name=_TEST_LABELS,
        size_bytes=5_148,
        sha256="67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        md5="bb300cfdad3c16e7a12a480ee83cd310",
    ),
)
MNIST_NAMES = tuple(str(digit) for digit in range(_NUM_CLASSES))
FASHION_MNIST_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def load_mnist(
    *,
    root: Path | str,
    download: bool = True,
    mirror: str | None = None,
    files: Sequence[Download] = MNIST_FILES,
    progress: Progress | None = None,
) -> ImageData:
    """MNIST: 60,000 training and 10,000 test images of handwritten digits, uint8 `(N, 28, 28, 1)`.

    The files may lie in `root`, `root/mnist` or `root/MNIST/raw` (where they are fetched to), compressed or not.

    Args:
        root: The data folder.
        download: Fetch what is missing.
        mirror: https folder that holds the same four files.
        files: Training images and labels, test images and labels.
        progress: Told about bytes fetched.

    Source: LeCun, Bottou, Bengio & Haffner 1998, "Gradient-Based Learning Applied to Document Recognition", III.A.

    Raises:
        DataError: A file is missing and cannot be fetched, or is damaged or of a wrong shape.
    """
    return _load("MNIST", "mnist", MNIST_NAMES, root, download, mirror, files, progress)


def load_fashion_mnist(
    *,
    root: Path | str,
    download: bool = True,
    mirror: str | None = None,
    files: Sequence[Download] = FASHION_MNIST_FILES,
    progress: Progress | None = None,
) -> ImageData:
    """Fashion-MNIST: 60,000 training and 10,000 test images of clothes, uint8 `(N, 28, 28, 1)`.

    The files may lie in `root`, `root/fashion_mnist` or `root/FashionMNIST/raw` (where they are fetched to).

    Args:
        root: The data folder.
        download: Fetch what is missing.
        mirror: https folder that holds the same four files.
        files: Training images and labels, test images and labels.
        progress: Told about bytes fetched.

    Source: Xiao, Rasul & Vollgraf 2017, arXiv 1708.07747.

    Raises:
        DataError: As for `load_mnist`.
    """
    return _load("FashionMNIST", "fashion_mnist", FASHION_MNIST_NAMES, root, download, mirror, files, progress)


def _load(
    folder_name: str,
    option: str,
    class_names: tuple[str, ...],
    root: Path | str,
    download: bool,
    mirror: str | None,
    files: Sequence[Download],
    progress: Progress | None,
) -> ImageData:
    folder = data_folder(root)
    own = folder / folder_name / "raw"
    paths = []
    for file in files:
        path = _find(file, own=(own, folder / option), shared=folder)
        if path is None:
            path = fetch(file.from_mirror(mirror), own, enabled=download, progress=progress)
        paths.append(path)
    train, test = (_read_split(*paths[start : start + 2]) for start in (0, 2))
    unpacked = [path for path in paths if path.suffix != ".gz"]
    warnings = (f"{unpacked[0].parent} holds unpacked files: no checksum vouches for them",) if unpacked else ()
    return image_data(train, test, class_names=class_names, warnings=warnings)


def _find(file: Download, *, own: Sequence[Path], shared: Path) -> Path | None:
    """The compressed file where it verifies, else the unpacked one; None when there is neither.

    MNIST and Fashion-MNIST use the same names: a file in the shared folder counts only if it is the right one.
    """
    for path in (place / file.file_name for place in own):
        if path.is_file():
            verify(path, file)
            return path
    if matches(shared / file.file_name, file):
        return shared / file.file_name
    plain = (place / file.file_name.removesuffix(".gz") for place in (*own, shared))
    return next((path for path in plain if path.is_file()), None)


def _read_split(images_path: Path, labels_path: Path) -> tuple[np.ndarray, np.ndarray]:
    pixels = _read_idx(images_path, _IMAGES_MAGIC, 3)
    if pixels.shape[1:] != (_SIZE, _SIZE) or not len(pixels):
        raise DataError(f"{images_path} holds {' x '.join(map(str, pixels.shape))} values; N x 28 x 28 are expected")
    labels = _read_idx(labels_path, _LABELS_MAGIC, 1)
    if len(labels) != len(pixels):
        raise DataError(f"{images_path} has {len(pixels):,} images, but {labels_path.name} has {len(labels):,} labels")
    if labels.max() >= _NUM_CLASSES:
        raise DataError(f"{labels_path} holds the label {labels.max()}; 0 to {_NUM_CLASSES - 1} are expected")
    return pixels[..., None], labels


def _read_idx(path: Path, magic: int, dims: int) -> np.ndarray:
    """A file of the idx format: a number that tells the kind, the sizes, then bytes.

    Source: LeCun, Cortes & Burges, "The MNIST database of handwritten digits", file formats.
    """
    content = read_compressed(path, max_bytes=_MAX_BYTES)
    header = struct.Struct(f">{1 + dims}I")
    if len(content) < header.size or (numbers := header.unpack_from(content))[0] != magic:
        raise DataError(f"{path} is no idx file of {'images' if dims == 3 else 'labels'}")
    shape = numbers[1:]
    expected = header.size + int(np.prod(shape, dtype=object))
    if len(content) != expected:
        raise DataError(f"{path} announces {expected:,} bytes and has {len(content):,}")
    return np.frombuffer(content, np.uint8, offset=header.size).reshape(shape)
