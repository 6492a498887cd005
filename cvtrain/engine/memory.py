"""Work on a batch that is done again in smaller parts where memory does not suffice.

Knows errors, devices and words; not what is computed.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from cvtrain.engine.device import is_out_of_memory
from cvtrain.errors import MemoryLimitError

MAX_HALVINGS = 4
"""Then the batch is 16 times too large, and something else is wrong with it."""

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Words:
    """What is said; each may name `batch_size`, `num_parts` and `part_size`.

    Args:
        failure: What could not be done.
        hint: What to type then.
        warning: What was done in smaller parts, and what to type next time.
    """

    failure: str
    hint: str
    warning: str


TRAINING = Words(
    failure="out of memory in a step of {batch_size} images",
    hint="type a smaller trainer.batch_size, data.image_size or model",
    warning="out of memory in a step of {batch_size} images: steps are now computed in {num_parts} parts of"
    " {part_size} images, with the same batch and, but for rounding, the same gradient (batch normalisation sees a"
    " part at a time); next time type trainer.accumulate={num_parts}",
)
EVALUATION = Words(
    failure="out of memory while evaluating {batch_size} images",
    hint="type a smaller trainer.eval_batch_size, data.image_size or model",
    warning="out of memory while evaluating {batch_size} images at once: now {part_size} at a time, which changes no"
    " result; next time type trainer.eval_batch_size={part_size}",
)


class PartedWork:
    """Computes batches in as many parts as memory asks for, up to 16 times as many as at first.

    Args:
        words: What is said.
        device: Whose memory it is.
        num_parts: At first.
        smallest: Images in the smallest part that can be computed.
        warn: Takes a sentence for the user.

    Attributes:
        num_parts: Now; only ever grows.
    """

    def __init__(
        self,
        words: Words,
        device: torch.device,
        *,
        num_parts: int = 1,
        smallest: int = 1,
        warn: Callable[[str], None] = lambda _sentence: None,
    ) -> None:
        self.words, self.device, self.num_parts, self.warn = words, device, num_parts, warn
        self._most_parts, self._smallest = num_parts * 2**MAX_HALVINGS, smallest

    def compute(
        self, work: Callable[[int], _Result], *, batch_size: int, undo: Callable[[], None] = lambda: None
    ) -> _Result:
        """Does the work, again from the start in twice as many parts each time that memory does not suffice.

        Args:
            work: Takes the number of parts.
            batch_size: Images in all parts together.
            undo: Takes back what an attempt has done.

        Raises:
            MemoryLimitError: Nor does it in the smallest parts.
        """
        before = self.num_parts
        while True:
            try:
                result = work(self.num_parts)
                break
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(batch_size, error, undo)
            # The error is gone here, and with its traceback the frames that held the tensors of the attempt.
            undo()
            free_memory(self.device)
        if self.num_parts > before:
            self.warn(self.words.warning.format(**self._sizes(batch_size)))
        return result

    def _halve(self, batch_size: int, error: BaseException, undo: Callable[[], None]) -> None:
        most = max(batch_size // self._smallest, 1)
        if self.num_parts >= most or 2 * self.num_parts > self._most_parts:
            undo()
            sizes = self._sizes(batch_size)
            also = " and also in {num_parts} parts of {part_size} images" if sizes["num_parts"] > 1 else ""
            raise MemoryLimitError((self.words.failure + also).format(**sizes), hint=self.words.hint) from error
        self.num_parts *= 2

    def _sizes(self, batch_size: int) -> dict[str, int]:
        num_parts = max(min(self.num_parts, batch_size // self._smallest), 1)
        return {"batch_size": batch_size, "num_parts": num_parts, "part_size": -(-batch_size // num_parts)}


def free_memory(device: torch.device) -> None:
    """Gives memory back that nothing refers to any more; a GPU's cache may hold it in pieces that are too small."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
