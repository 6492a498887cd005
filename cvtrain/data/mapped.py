"""Images that several processes read from one copy: pixels in a file that each of them maps into its memory.

Knows image data, not processes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from cvtrain.data.images import ImageData, ImageSet, MemoryImages
from cvtrain.errors import OutputError


@dataclass(frozen=True)
class MappedPixels:
    """Where pixels lie.

    Args:
        path: A file that holds them and nothing else.
        shape: `(N, H, W, C)`.
        dtype: Of each number.
    """

    path: Path
    shape: tuple[int, int, int, int]
    dtype: torch.dtype

    def open(self) -> Tensor:
        """The pixels; the pages are shared until they are written to, which changes no file."""
        size = self.shape[0] * self.shape[1] * self.shape[2] * self.shape[3]
        return torch.from_file(str(self.path), shared=False, size=size, dtype=self.dtype).view(self.shape)


@dataclass(frozen=True)
class SharedData:
    """Image data with the pixels left out; small enough to be sent to another process.

    Args:
        data: A split with an entry in `mapped` has labels and names, but no images.
        mapped: Pixels of `train`, `val`, `test`, where these are held in memory.
    """

    data: ImageData
    mapped: dict[str, MappedPixels]

    def open(self) -> ImageData:
        """The data as they were."""
        splits = {}
        for name, pixels in self.mapped.items():
            bare = getattr(self.data, name)
            splits[name] = ImageSet(MemoryImages(pixels.open()), bare.labels, bare.names)
        return replace(self.data, **splits)


def share(data: ImageData, folder: Path) -> SharedData:
    """Writes the pixels that are held in memory to files of a folder; images that lie in files stay there.

    Args:
        data: As a source hands it over.
        folder: An existing one, which the caller removes when nobody needs it any more.

    Raises:
        OutputError: The disk is full or not writable.
    """
    mapped: dict[str, MappedPixels] = {}
    bare = {}
    for name in ("train", "val", "test"):
        images = getattr(data, name)
        if images is None or not isinstance(images.images, MemoryImages):
            continue
        pixels = images.images.pixels.contiguous()
        path = folder / f"{name}.pixels"
        try:
            pixels.numpy().tofile(path)
        except OSError as error:
            raise OutputError(f"{path} could not be written: {error.strerror or error}") from None
        mapped[name] = MappedPixels(path, tuple(pixels.shape), pixels.dtype)
        bare[name] = _Bare(images.labels, images.names)
    return SharedData(replace(data, **bare), mapped)


@dataclass(frozen=True)
class _Bare:
    """An image set without its images."""

    labels: Tensor
    names: object
