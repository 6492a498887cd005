"""The life of a run as its card tells it: running, then done, stopped or failed, whatever happens.

Knows the run card and how errors map to it; not what a run does.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import subprocess
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cvtrain.config import Config, config_hash, typed_settings
from cvtrain.engine.distributed.rank import rank_from_environment
from cvtrain.errors import (
    ConfigError,
    CvtrainError,
    DivergedError,
    InterruptedBySignal,
    MemoryLimitError,
    NotLearningError,
    OutputError,
    ProcessFailedError,
)
from cvtrain.launch import resume_command
from cvtrain.outputs import RunDir
from cvtrain.signals import Interruption

DONE = {"status": "done", "exit_code": 0, "error": None}
"""What the card of a run says that has come to its end."""


def new_card(config: Config) -> dict[str, Any]:
    """The run card at the start: what is known before any data are read."""
    return {
        "status": "running",
        "exit_code": None,
        "error": None,
        "stop_reason": None,
        "task": config["task"],
        "name": config["name"],
        "data": config["choices"]["data"],
        "model": config["choices"]["model"],
        "seed": config["seed"],
        "config_hash": config_hash(config),
        "typed": typed_settings(config),
        "versions": versions(),
        "git": git_state(Path.cwd()),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "warnings": [],
    }


@contextlib.contextmanager
def recorded(run_dir: RunDir, card: dict[str, Any], *, discard_if_config_is_wrong: bool = False) -> Iterator[None]:
    """Keeps the run card true while the block runs, and closes the folder after it.

    Args:
        run_dir: The folder of the run.
        card: Changed in place by the block; written at the start and at the end.
        discard_if_config_is_wrong: A new run that never started, because of its config or because even that could not
            be written, leaves no folder.
    """
    try:
        run_dir.write_card(card)
        yield
        card.update(DONE)
        run_dir.write_card(card)
    except ConfigError as error:
        if discard_if_config_is_wrong and not any(run_dir.checkpoint_dir.glob("*")):
            run_dir.discard()
        else:
            _write_failure(run_dir, card, error, error.exit_code)
        raise
    except CvtrainError as error:
        if discard_if_config_is_wrong and isinstance(error, OutputError) and not run_dir.config_path.exists():
            run_dir.discard()
            raise
        if isinstance(error, ProcessFailedError) and error.hint is None:
            error.hint = f"continue with: {resume_command(run_dir.path, rank_from_environment())}"
        _write_failure(run_dir, card, error, error.exit_code)
        raise
    except Interruption as interruption:
        error = interruption.error
        if card["task"] in ("train", "sample_size_sweep"):
            error.hint = f"continue with: {resume_command(run_dir.path, rank_from_environment())}"
        _write_failure(run_dir, card, error, error.exit_code)
        raise
    except BaseException as error:
        with contextlib.suppress(OutputError):
            run_dir.write_text(run_dir.error_path, traceback.format_exc())
        error.add_note(f"cvtrain-traceback: {run_dir.error_path}")
        limit = memory_limit_of(error)
        _write_failure(run_dir, card, limit or error, limit.exit_code if limit else 1)
        raise
    finally:
        run_dir.close()


def memory_limit_of(error: BaseException) -> MemoryLimitError | None:
    """The error to show when memory ran out where no one expected it, as while a model was made; else None."""
    from cvtrain.engine.device import is_out_of_memory  # torch, if it is not loaded yet

    if not is_out_of_memory(error):
        return None
    hint = "type a smaller trainer.batch_size, trainer.eval_batch_size or data.image_size"
    return MemoryLimitError("out of memory", hint=hint)


def _write_failure(run_dir: RunDir, card: dict[str, Any], error: BaseException, exit_code: int) -> None:
    stopped = isinstance(error, InterruptedBySignal)
    message = error.message if isinstance(error, CvtrainError) else f"{type(error).__name__}: {error}"
    card.update(status="stopped" if stopped else "failed", exit_code=exit_code, error=message)
    reasons = {InterruptedBySignal: "signal", DivergedError: "diverged", NotLearningError: "not_learning"}
    if type(error) in reasons:
        card["stop_reason"] = reasons[type(error)]
    run_dir.log(message)
    with contextlib.suppress(OutputError):  # the disk may be what failed
        run_dir.write_card(card)


def versions() -> dict[str, str]:
    """The versions that a result depends on, read without importing anything."""
    found = {"python": platform.python_version()}
    for package in ("cvtrain", "torch", "torchvision", "numpy", "pillow", "hydra-core"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and cleanliness of the user's own repository; None outside of one."""
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return None

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.SubprocessError):
        return None
