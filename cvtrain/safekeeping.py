"""The checkpoints of one run: written when asked, the best one marked, a full disk survived.

Knows files and the console's warnings; not what a state holds, nor when it is time to save.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from cvtrain.engine.checkpoint import (
    CheckpointFile,
    Loaded,
    list_checkpoints,
    load_newest,
    mark_best,
    prune,
    save_checkpoint,
)
from cvtrain.errors import CheckpointError, OutputError
from cvtrain.outputs import RunDir


class Safekeeping:
    """Writes the states of a run.

    Args:
        run_dir: Where they go.
        keep: Newest checkpoints kept, beside the best.
        warn: Takes a sentence for the user.
    """

    def __init__(self, run_dir: RunDir, *, keep: int, warn: Callable[[str], None]) -> None:
        self.run_dir, self.keep, self.warn = run_dir, keep, warn
        self.saved_at = time.monotonic()
        self._unsaved_best: tuple[dict[str, Any], int] | None = None
        self._failed = False

    def save(self, state: dict[str, Any], step: int, *, is_best: bool = False, must: bool = False) -> bool:
        """Writes a checkpoint; when that fails training goes on with one warning, and the next save tries again.

        Args:
            state: Tensors and plain values.
            step: Steps taken so far.
            is_best: The weights are the best so far: keep them under a second name.
            must: The run depends on this checkpoint: an error is an error.

        Returns:
            Whether it is on the disk.

        Raises:
            OutputError: It could not be written, and `must`.
        """
        try:
            if self._unsaved_best and not is_best:
                mark_best(self._write(*self._unsaved_best))
            file = self._write(state, step)
            if is_best:
                mark_best(file)
            self._unsaved_best = None
            prune(file, keep=self.keep)
        except OutputError as error:
            if must:
                raise
            if is_best:  # later steps change the weights in place: what could not be written is kept in memory
                self._unsaved_best = copied(state), step
            if not self._failed:
                self.warn(f"{error.message}; training goes on, and the next save tries again")
            self._failed = True
        else:
            self._failed = False
        self.saved_at = time.monotonic()
        return not self._failed

    def go_on_from(self, checkpoint: Loaded) -> None:
        """Brings the folder to where a checkpoint is, and says what in it is not as it was left.

        A process may have died at any moment after writing it, and a disk may have changed anything since.

        Raises:
            OutputError: A file cannot be written.
        """
        state, run_dir = checkpoint.state, self.run_dir
        if state["is_best"]:
            steps = list_checkpoints(run_dir.checkpoint_dir, "step")
            mark_best(next(file for file in steps if file.path == checkpoint.path))
        elif state["selection"]["best"]:
            self._look_for_best(state["selection"]["best"]["step"])
        if not run_dir.cut_metrics(state["metrics_num_bytes"]):
            self.warn(f"{run_dir.metrics_path} is shorter than it was: rows are missing")
        elif state.get("metrics_sha256") not in (None, run_dir.metrics_checksum()):
            self.warn(f"{run_dir.metrics_path} has been changed since it was written: its rows may be wrong")
        if run_dir.card_path.exists() and not run_dir.read_card():
            self.warn(f"{run_dir.card_path} was damaged, and is written again")

    def _look_for_best(self, step: int) -> None:
        """Says at the start, and not at the end, that the best weights are lost; better ones may still come."""
        try:
            best = load_newest(self.run_dir.checkpoint_dir, "best")
            what = None if best and best.state["trainer"]["step"] == step else "is gone"
        except CheckpointError as error:
            what = f"cannot be used ({error.message.splitlines()[-1]})"
        except (KeyError, TypeError):
            what = "cannot be used (it holds no steps)"
        if what:
            self.warn(f"the best checkpoint, of step {step}, {what}: only a better one can be tested")

    def _write(self, state: dict[str, Any], step: int) -> CheckpointFile:
        run_dir = self.run_dir
        state = {**state, "metrics_sha256": run_dir.metrics_checksum()}
        return save_checkpoint(run_dir.checkpoint_dir, state, step=step, sync_first=run_dir.sync_metrics)


def copied(state: Any) -> Any:
    """A state whose tensors are copies."""
    if isinstance(state, dict):
        return {k: copied(v) for k, v in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(copied(v) for v in state)
    return state.clone() if isinstance(state, torch.Tensor) else state
