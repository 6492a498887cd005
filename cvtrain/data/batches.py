"""Batches of images on the device, from memory or from files, in an order that depends on (seed, epoch) alone.

Knows nothing of augmentation or models. Both ways yield the same batches: the number of workers changes nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from cvtrain.data.images import ImageSet, ImageStore, MemoryImages
from cvtrain.data.reading_processes import FEWER, deaths_explained, end_with, start_process, started
from cvtrain.errors import CvtrainError, DataError, MemoryLimitError
from cvtrain.seeding import derive_seed, permutation, seed_generators


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
        chunks = chunks if chosen is None else [chunk[chosen(len(chunk))] for chunk in chunks]
        return self._batches(chunks, [derive_seed(self.seed, "read", epoch, n) for n in range(start, len(self))])

    def in_order(self) -> Iterator[Batch]:
        """Every image once, in the order of the indices."""
        chunks = [self.indices[low:high] for low, high in self.bounds]
        return self._batches(chunks, [derive_seed(self.seed, "read", n) for n in range(len(self))])

    def _batches(self, chunks: list[Tensor], seeds: list[int]) -> Iterator[Batch]:
        for chunk, images in zip(chunks, self._reader.read_all(chunks, seeds), strict=True):
            labels = self.labels[chunk].to(self.device, non_blocking=True)
            indices = chunk.to(self.device, non_blocking=True)
            yield Batch(images.to(self.device, non_blocking=True), labels, indices)


class _Reader:
    def read_all(self, chunks: list[Tensor], seeds: list[int]) -> Iterator[Tensor]:
        """The images `(B, C, H, W)` of each chunk of indices; a reader of the user's may draw, from these seeds."""
        raise AssertionError("a reader reads")


class _MemoryReader(_Reader):
    def __init__(self, images: MemoryImages, device: torch.device) -> None:
        self.device = torch.device("cpu")
        if device.type == "cuda" and images.pixels.nbytes < 0.25 * torch.cuda.mem_get_info(device)[0]:
            self.device = device  # small data sets live on the GPU: no transfer in the loop
        self.images = MemoryImages(images.pixels.to(self.device))

    def read_all(self, chunks: list[Tensor], _seeds: list[int]) -> Iterator[Tensor]:
        return (self.images.read(chunk.to(self.device, non_blocking=True)) for chunk in chunks)


class _FileReader(_Reader):
    """Reads through `DataLoader` workers that stay alive between epochs."""

    def __init__(self, images: ImageStore, num_workers: int, *, pin: bool) -> None:
        self._chunks = _Chunks()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's opinion of how many processes a machine should have
            self._loader = DataLoader(
                _ReadChunk(images),
                sampler=self._chunks,
                batch_size=None,
                num_workers=num_workers,
                persistent_workers=num_workers > 0,
                prefetch_factor=2 if num_workers else None,
                worker_init_fn=start_process if num_workers else None,
                pin_memory=pin,
                generator=torch.Generator(),  # else the loader draws its seed from the global generator
            )
        end_with(self, self._loader)

    def read_all(self, chunks: list[Tensor], seeds: list[int]) -> Iterator[Tensor]:
        self._chunks.chunks = list(zip(chunks, seeds, strict=True))
        with deaths_explained(self._loader):
            for images in started(self._loader):
                if isinstance(images, _Failure):
                    raise images.error
                yield images


class _Chunks(Sampler[tuple[Tensor, int]]):
    """Tells the loader which chunks to read next, and from which seed."""

    def __init__(self) -> None:
        self.chunks: list[tuple[Tensor, int]] = []

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return iter(self.chunks)

    def __len__(self) -> int:
        return len(self.chunks)


@dataclass(frozen=True)
class _Failure:
    """A user's error, carried out of a worker as a value: as an exception it would arrive wrapped in a traceback.

    Args:
        kind: Of the error.
        words: Its message and its hint.
    """

    kind: type[DataError] | type[MemoryLimitError]
    words: tuple[str, str | None]

    @property
    def error(self) -> CvtrainError:
        """The error again."""
        return self.kind(self.words[0], hint=self.words[1])


class _ReadChunk(Dataset):
    def __init__(self, images: ImageStore) -> None:
        self.images = images

    def __getitem__(self, chunk_and_seed: tuple[Tensor, int]) -> Tensor | _Failure:
        chunk, seed = chunk_and_seed
        seed_generators(seed, device_type="cpu")
        try:
            images = self.images.read(chunk)
        except DataError as error:
            return _Failure(DataError, (error.message, error.hint))
        if get_worker_info() is None:
            return images
        try:
            return images.share_memory_()
        except RuntimeError as error:  # on the way to the main process it would be lost, and waited for for ever
            reason = str(error).splitlines()[0]
            return _Failure(MemoryLimitError, (f"a batch of images cannot be handed over: {reason}", FEWER))

    def __len__(self) -> int:
        return self.images.shape[0]
