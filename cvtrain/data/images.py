"""The shape in which every data source hands over its images, labels and facts.

Does not know where images come from, nor what is done with them later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from cvtrain.data.image_file import FileStamp
    from cvtrain.data.statistics import Statistics

Progress = Callable[[int, int, str], None]
"""Called as `progress(done, total, what)`, e.g. `progress(512, 60000, "decoding images")`; never prints by itself."""


class ImageStore(Protocol):
    """Images of one size that can be read by index."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """`(N, C, H, W)`."""

    def read(self, indices: Tensor) -> Tensor:
        """The images at `indices` (int64, `(B,)`), `(B, C, H, W)`: uint8 in 0..255, or float32 of the same unit."""


@dataclass(frozen=True)
class MemoryImages:
    """Images held in memory.

    Args:
        pixels: uint8 `(N, H, W, C)`, C-contiguous, 0..255. Rows of pixels lie together, which is what makes
            cropping and channels-last training fast. Where 256 levels are too coarse: float32 of the same unit
            (255 is 1.0), of any range.
    """

    pixels: Tensor

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """`(N, C, H, W)`."""
        n, height, width, channels = self.pixels.shape
        return n, channels, height, width

    def read(self, indices: Tensor) -> Tensor:
        """Copies of the images at `indices` (int64, `(B,)`), `(B, C, H, W)` in channels-last memory order."""
        return self.pixels.index_select(0, indices).permute(0, 3, 1, 2)


@dataclass(frozen=True)
class ImageSet:
    """One split: images, labels, and what to call each image.

    Args:
        images: `N` images of one size.
        labels: int64 `(N,)`, each in `0..num_classes-1`.
        names: A name per image (a path relative to the root) for tables of predictions; None: the index serves.
        stamps: Of the file of each image, where they are files: how it is recognised when a run goes on.
    """

    images: ImageStore
    labels: Tensor
    names: Sequence[str] | None = None
    stamps: Sequence[FileStamp] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def __post_init__(self) -> None:
        assert self.images.shape[0] == len(self.labels), "one label per image"
        assert self.labels.dtype == torch.int64, "labels are int64"


@dataclass(frozen=True)
class Preprocessing:
    """How a picture from anywhere becomes an input: the rule that training used and prediction must repeat.

    Args:
        image_size: Height and width of the square input, in pixels.
        channels: 1 (grey), 3 (RGB), or the number of coordinates of a point.
        resize: `stretch` ignores the aspect ratio; `crop` scales the shorter side and cuts the centre;
            `pad` scales the longer side and fills with black.
        permute_pixels: Seed of the fixed order that the pixels of every image are put into; None leaves them.
    """

    image_size: int
    channels: int
    resize: str = "crop"
    permute_pixels: int | None = None

    @property
    def is_point(self) -> bool:
        """Whether an input is no picture but a single pixel: a point, whose coordinates stand where channels do."""
        return self.image_size == 1


@dataclass(frozen=True)
class ImageData:
    """A data set as its source hands it over.

    Args:
        train: Images to train on; validation images are carved from them when `val` is None.
        val: The source's own validation split, if it has one.
        test: Images that are looked at once, at the very end.
        class_names: The name of label 0, 1, ...
        preprocessing: How a picture from outside becomes such an image.
        fingerprint: SHA-256 (hex) over what the source read: file list or pixels, and labels. The same data give
            the same fingerprint on every machine and with every way of loading.
        warnings: Sentences that the user should see (skipped files, a missing class, ...).
        statistics: Mean and standard deviation to normalise by; None: they are measured on the training images.
        originals: Height, width and channels that some pictures had before; none: those of the images.
    """

    train: ImageSet
    val: ImageSet | None
    test: ImageSet
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    fingerprint: str
    warnings: tuple[str, ...] = field(default=())
    statistics: Statistics | None = None
    originals: tuple[tuple[int, int, int], ...] = ()
