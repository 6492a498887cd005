"""Where a trained model lies: the checkpoint that a file, or the folder of a run, stands for.

Knows names of files and what a run was told to keep; not models.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cvtrain.engine.checkpoint import Loaded, list_checkpoints, load_newest, read_checkpoint
from cvtrain.errors import CheckpointError


def find_checkpoint(path: Path, *, setting: str = "checkpoint") -> Loaded:
    """Reads the checkpoint that a path names: a file, or of a run folder the one that the run was tested with.

    That is the best one, or the newest when there is no best one or the run was told not to restore it.

    Args:
        path: Of a file or a folder.
        setting: What names the path, for messages.

    Raises:
        CheckpointError: There is none that can be used.
    """
    path = path.expanduser()
    if path.is_file():
        return Loaded(read_checkpoint(path), path)
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    if not path.exists():
        raise CheckpointError(f"{setting}={path}: there is no such file or folder", hint=_newest_runs())
    loaded = _best(folder, setting)
    if loaded is None or not _restores_best(loaded.state):
        loaded = load_newest(folder, "step", set_aside=False) or loaded
    if loaded is None:
        raise CheckpointError(f"{setting}={path}: the folder holds no checkpoint", hint=_newest_runs())
    return loaded


def _best(folder: Path, setting: str) -> Loaded | None:
    """The best checkpoint; never another one in its place without being asked."""
    try:
        return load_newest(folder, "best", set_aside=False)
    except CheckpointError as error:
        others = [f.path for f in list_checkpoints(folder, "step")]
        raise CheckpointError(error.message, hint=f"type {setting}={others[-1]}" if others else None) from None


def _restores_best(state: dict[str, Any]) -> bool:
    try:
        return bool(state["config"]["trainer"]["early_stopping"]["restore_best"])
    except (KeyError, TypeError):
        return True  # `from_state` says what is wrong with it


def _newest_runs() -> str:
    runs: Iterable[Path] = Path("outputs").glob("train/*/*/checkpoints")
    newest = sorted((run.parent for run in runs), key=lambda run: run.name)[-1:]
    return f"the newest run here is {newest[0]}" if newest else "train a model first: cvtrain"
