"""The processes of one training as each of them sees the others: sums, gathered rows, agreed wishes.

Knows tensors and process groups; not what is trained, nor files. Everything here must be called by all processes in the
same order, but for what says otherwise.
"""

from __future__ import annotations

import gc
import io
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from cvtrain.engine.distributed.board import PATIENCE, Board, quietly, store
from cvtrain.engine.distributed.rank import Rank
from cvtrain.errors import DataError, ProcessFailedError

_LOST = ("connection", "peer", "socket", "broken pipe", "timed out", "timeout", "nccl")
"""Of these, in lower case, one stands in what gloo and nccl say when another process is gone."""

_ABORT_SECONDS = 5.0
"""How long nccl may take to drop what it waits for, before its user is told what went wrong."""


class Wishes(NamedTuple):
    """What one process wants to happen after a step; what all want together is the largest of each.

    Args:
        signum: The signal that asks to stop, or 0.
        save: Whether it is time for a checkpoint.
        give_up: Whether nothing is learnt.
    """

    signum: int = 0
    save: bool = False
    give_up: bool = False


class Team:
    """The processes of one training.

    There are two groups: one for figures on the device of the training (nccl on GPUs, gloo on CPUs), and one of gloo
    for what the host knows, so that agreeing on it never waits for a GPU.

    Args:
        rank: Of this process.
        device: Where its model is.
        board: For words.

    Attributes:
        ask: Gives the wishes of this process; asked in every step.
        heard: What all processes wanted in the last step.
    """

    def __init__(self, rank: Rank, device: torch.device, board: Board) -> None:
        self.rank, self.device, self.board = rank, device, board
        self.ask: Callable[[], Wishes] = Wishes
        self.heard = Wishes()
        self._words: Any = dist.group.WORLD
        self._figures: Any = dist.new_group(backend="nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)

    @property
    def size(self) -> int:
        """How many processes there are."""
        return self.rank.size

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank.is_first

    # ------------------------------------------------------------------------------------------ figures

    def sum(self, tensor: Tensor) -> None:
        """Replaces a tensor on the device by its sum over the processes."""
        with self._together():
            dist.all_reduce(tensor, group=self._figures)

    def start_sum(self, tensor: Tensor) -> Callable[[], None]:
        """As `sum`, in the background; what is returned waits for it."""
        with self._together():
            work = dist.all_reduce(tensor, group=self._figures, async_op=True)
        return self._waiting(work)

    def gather(self, row: Tensor) -> Tensor:
        """`(size, N)` on the device: the row `(N,)` of each process."""
        rows = row.new_empty(self.size * len(row))
        with self._together():
            dist.all_gather_into_tensor(rows, row, group=self._figures)
        return rows.view(self.size, len(row))

    # ------------------------------------------------------------------------------------------ what hosts know

    def start_largest(self, values: Sequence[int]) -> Callable[[], list[int]]:
        """The largest value of each place over the processes, in the background; what is returned waits for it."""
        flags = torch.tensor(values, dtype=torch.int64)
        with self._together():
            work = dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=self._words, async_op=True)
        wait = self._waiting(work)

        def result() -> list[int]:
            wait()
            return flags.tolist()

        return result

    def decide(self) -> Wishes:
        """What all processes want now; between two steps."""
        self.heard = self.wishes_from(self.start_largest([int(wish) for wish in self.ask()])())
        return self.heard

    @staticmethod
    def wishes_from(values: Sequence[int]) -> Wishes:
        """The wishes that stand at the head of agreed values."""
        return Wishes(values[0], bool(values[1]), bool(values[2]))

    def is_so_for_first(self, answer: bool) -> bool:
        """The answer of the first process, given to all."""
        return bool(self.start_largest([int(answer and self.is_first)])()[0])

    def gather_rows(self, rows: Tensor) -> Tensor | None:
        """Rows `(N, ...)` on the CPU of all processes, in their order; None for all but the first process."""
        width = self.start_largest([len(rows), *(rows.shape[1:] if len(rows) else [0] * (rows.ndim - 1))])()
        padded = rows.new_zeros(width)
        padded[: len(rows)] = rows.view(len(rows), *width[1:])
        parts = [torch.empty_like(padded) for _ in range(self.size)] if self.is_first else None
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        with self._together():
            dist.all_gather(counts, torch.tensor([len(rows)]), group=self._words)
            dist.gather(padded, parts, dst=0, group=self._words)
        return torch.cat([part[: int(n)] for part, n in zip(parts, counts, strict=True)]) if parts else None

    def hand_out(self, state: Any) -> Any:
        """Gives all processes a state of tensors and plain values of the first one; nothing is unpickled freely."""
        data = torch.empty(0, dtype=torch.uint8)
        if self.is_first:
            buffer = io.BytesIO()
            torch.save(state, buffer)
            data = torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)
        num_bytes = self.start_largest([len(data)])()[0]
        data = data if self.is_first else torch.empty(num_bytes, dtype=torch.uint8)
        with self._together():
            dist.broadcast(data, src=0, group=self._words)
        if self.is_first:
            return state
        return torch.load(io.BytesIO(data.numpy().data), map_location="cpu", weights_only=True)

    def spread(self, model: nn.Module) -> None:
        """Gives the models of all processes the weights and buffers of the first one's."""
        with self._together(), torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                dense = tensor.detach().contiguous()
                dist.broadcast(dense, src=0, group=self._figures)
                tensor.copy_(dense)

    def check_same(self, facts: dict[str, str]) -> None:
        """Refuses to train on what is not the same for all processes.

        Args:
            facts: What each process found, by what to call it.

        Raises:
            DataError: With the first that differs.
        """
        for name, ours in facts.items():
            theirs = self.hand_out(ours)
            if self.start_largest([int(theirs != ours)])()[0]:
                raise DataError(
                    f"the processes of this training do not have the same {name}"
                    f" (process 0: {theirs[:40]}, process {self.rank.number}: {ours[:40]})"
                )

    # ------------------------------------------------------------------------------------------ turns and ends

    def announce_start(self, words: str) -> None:
        """The first process says, alone, that a training begins."""
        if self.is_first:
            self.board.post("start", words)

    def wait_for_start(self) -> str | None:
        """What the first process has announced, however long that takes; None when it ends without a training.

        Raises:
            ProcessFailedError: Another process has failed.
        """
        self.board.wait_for("start", "end")
        return self.board.read("start")

    @contextmanager
    def first_of_each_machine_first(self) -> Iterator[None]:
        """Lets the first process of a machine go ahead; the others find what it has fetched and decoded."""
        if self.rank.local_number:
            self.board.wait_for(f"ready {self.rank.leader}")
        yield
        if not self.rank.local_number:
            self.board.post(f"ready {self.rank.leader}")

    def leave(self, *, has_failed: bool = False) -> None:
        """Closes the connections; whoever waits for this process in vain is told so by them. May be called alone.

        Args:
            has_failed: Whether others may have gone in the middle of something, which nccl would wait for.
        """
        self._words = self._figures = None
        if has_failed and self.device.type == "cuda":
            abort = threading.Thread(target=dist.distributed_c10d._abort_process_group, daemon=True)
            abort.start()
            abort.join(_ABORT_SECONDS)
        elif dist.is_initialized():
            dist.destroy_process_group()
        gc.collect()  # a connection is closed when nothing refers to its group any more

    @contextmanager
    def _together(self) -> Iterator[None]:
        """Turns the failure of something that all processes do into words.

        Raises:
            ProcessFailedError: With the words of the process that has failed, if it could leave any.
        """
        try:
            yield
        except RuntimeError as error:
            quietly(self.board.raise_failure)
            if not any(word in str(error).lower() for word in _LOST):
                raise
            raise ProcessFailedError(
                f"one of the {self.size} processes of this training has ended without a word ({_first_line(error)})"
            ) from None

    def _waiting(self, work: Any) -> Callable[[], None]:
        def wait() -> None:
            with self._together():
                work.wait()

        return wait


def join(rank: Rank, device: torch.device) -> Team:
    """Meets the other processes.

    Raises:
        ProcessFailedError: One has failed meanwhile, or does not come.
    """
    try:
        board = Board(store(), rank.number)
        board.post(f"here {rank.number}")
        for other in range(rank.size):
            board.wait_for(f"here {other}")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        meeting = dist.PrefixStore("group", store())
        dist.init_process_group("gloo", store=meeting, rank=rank.number, world_size=rank.size, timeout=PATIENCE)
        return Team(rank, device, board)
    except RuntimeError as error:
        raise ProcessFailedError(f"the {rank.size} processes did not find each other: {_first_line(error)}") from None


def _first_line(error: BaseException) -> str:
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return line.rpartition("] ")[2].partition(". This")[0][:100] or line[:100]
