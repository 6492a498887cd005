"""Batches of images on the device, from memory or from files, in an order that depends on (seed, epoch) alone.

Knows nothing of augmentation or models. Both ways yield the same batches: the number of workers changes nothing.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from cvtrain.data.images import ImageSet, ImageStore, MemoryImages
from cvtrain.errors import DataError
from cvtrain.seeding import permutation


@dataclass(frozen=True)
class Batch:
    """Some images and labels.

    Args:
        images: `(B, C, H, W)` on the device, uint8 or float32 as they are stored.
        labels: int64 `(B,)` on the device.
        indices: int64 `(B,)` on the device: which images of the data set these are.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor


def batch_bounds(num_images: int, batch_size: int) -> list[tuple[int, int]]:
    """Where each batch of an epoch begins and ends.

    No image is dropped. A last batch of a single image joins the one before it, because batch normalisation cannot
    take the variance of one.
    """
    bounds = [(start, min(start + batch_size, num_images)) for start in range(0, num_images, batch_size)]
    if batch_size > 1 and len(bounds) > 1 and num_images % batch_size == 1:
        bounds[-2:] = [(bounds[-2][0], num_images)]
    return bounds


class Batches:
    """The batches of one split.

    Args:
        image_set: The images that `indices` points into.
        indices: int64 `(N,)`, the images of this split.
        batch_size: Images per batch; fewer images make one smaller batch.
        device: Where batches are put.
        seed: Of the order.
        num_workers: Processes that read files; 0 reads in this one. Images in memory need none.
    """

    def __init__(
        self,
        image_set: ImageSet,
        indices: Tensor,
        *,
        batch_size: int,
        device: torch.device,
        seed: int = 0,
        num_workers: int = 0,
    ) -> None:
        self.indices = indices
        self.labels = image_set.labels
        self.device = device
        self.seed = seed
        self.bounds = batch_bounds(len(indices), batch_size)
        self._reader: _Reader
        if isinstance(image_set.images, MemoryImages):
            self._reader = _MemoryReader(image_set.images, device)
        else:
            self._reader = _FileReader(image_set.images, num_workers, pin=device.type == "cuda")

    def __len__(self) -> int:
        return len(self.bounds)

    @property
    def num_images(self) -> int:
        """Images per epoch."""
        return len(self.indices)

    def shuffled(self, epoch: int, *, start: int = 0, chosen: Callable[[int], Tensor] | None = None) -> Iterator[Batch]:
        """The batches of an epoch in random order.

        Args:
            epoch: From 0.
            start: Number of the first batch.
            chosen: Gives, for the size of a batch, the positions in it of the images to take; None takes all.
        """
        order = self.indices[permutation(len(self.indices), self.seed, "order", epoch)]
        chunks = [order[low:high] for low, high in self.bounds[start:]]
        return self._batches(chunks if chosen is None else [chunk[chosen(len(chunk))] for chunk in chunks])

    def in_order(self) -> Iterator[Batch]:
        """Every image once, in the order of the indices."""
        return self._batches([self.indices[low:high] for low, high in self.bounds])

    def _batches(self, chunks: list[Tensor]) -> Iterator[Batch]:
        for chunk, images in zip(chunks, self._reader.read_all(chunks), strict=True):
            labels = self.labels[chunk].to(self.device, non_blocking=True)
            indices = chunk.to(self.device, non_blocking=True)
            yield Batch(images.to(self.device, non_blocking=True), labels, indices)


class _Reader:
    def read_all(self, chunks: list[Tensor]) -> Iterator[Tensor]:
        """The images `(B, C, H, W)` of each chunk of indices."""
        raise AssertionError("a reader reads")


class _MemoryReader(_Reader):
    def __init__(self, images: MemoryImages, device: torch.device) -> None:
        self.device = torch.device("cpu")
        if device.type == "cuda" and images.pixels.nbytes < 0.25 * torch.cuda.mem_get_info(device)[0]:
            self.device = device  # small data sets live on the GPU: no transfer in the loop
        self.images = MemoryImages(images.pixels.to(self.device))

    def read_all(self, chunks: list[Tensor]) -> Iterator[Tensor]:
        return (self.images.read(chunk.to(self.device, non_blocking=True)) for chunk in chunks)


class _FileReader(_Reader):
    """Reads through `DataLoader` workers that stay alive between epochs."""

    def __init__(self, images: ImageStore, num_workers: int, *, pin: bool) -> None:
        self._chunks = _Chunks()
        self._loader = DataLoader(
            _ReadChunk(images),
            sampler=self._chunks,
            batch_size=None,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            prefetch_factor=2 if num_workers else None,
            worker_init_fn=_start_worker if num_workers else None,
            pin_memory=pin,
            generator=torch.Generator(),  # else the loader draws its seed from the global generator
        )

    def read_all(self, chunks: list[Tensor]) -> Iterator[Tensor]:
        self._chunks.chunks = chunks
        for images in self._loader:
            if isinstance(images, _Unreadable):
                raise DataError(images.reason)
            yield images


class _Chunks(Sampler[Tensor]):
    """Tells the loader which chunks to read next."""

    def __init__(self) -> None:
        self.chunks: list[Tensor] = []

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.chunks)

    def __len__(self) -> int:
        return len(self.chunks)


@dataclass(frozen=True)
class _Unreadable:
    """A user's error, carried out of a worker as a value: as an exception it would arrive wrapped in a traceback."""

    reason: str


class _ReadChunk(Dataset):
    def __init__(self, images: ImageStore) -> None:
        self.images = images

    def __getitem__(self, chunk: Tensor) -> Tensor | _Unreadable:
        try:
            return self.images.read(chunk)
        except DataError as error:
            return _Unreadable(error.message)

    def __len__(self) -> int:
        return self.images.shape[0]


def _start_worker(_worker: int) -> None:
    """A worker leaves signals to the whole process group to the main process; it needs one thread only."""
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_parent_says_so, daemon=True).start()
    torch.set_num_threads(1)


def _end_when_parent_says_so() -> None:
    """A worker that ended at anybody's SIGTERM would look like a crash to a main process that is about to save."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
