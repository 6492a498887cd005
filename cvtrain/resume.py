"""Whether a checkpoint may be gone on from: of the same settings, the same data, the same model.

Knows saved states and the words for what does not fit; not training, nor files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cvtrain import schema
from cvtrain.config import RESUME_MAY_CHANGE, TRAINED_GROUPS, Config, masked
from cvtrain.data.facts import DataFacts
from cvtrain.engine.checkpoint import load_newest
from cvtrain.engine.device import is_out_of_memory
from cvtrain.errors import CheckpointError, ConfigError, CvtrainError, DivergedError


def check_same_settings(saved: Mapping[str, Any], config: Config) -> None:
    """Refuses to go on with other settings than the checkpoint was made with, as when config.yaml was edited.

    Raises:
        ConfigError: With both values of every setting that differs.
    """

    def defining(settings: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: masked(settings)[key] for key in ("seed", *TRAINED_GROUPS)}
        return {k: v for k, v in schema.leaves(kept) if k not in RESUME_MAY_CHANGE}

    before, now = defining(saved), defining(config)
    problems = [
        f"{key}={now.get(key)}: this run was made with {key}={before.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if problems:
        raise ConfigError(problems, hint="put config.yaml back as it was, or start a new run")


def check_same_data(saved: Mapping[str, Any], facts: DataFacts) -> None:
    """Refuses to go on with other images than before.

    Raises:
        CheckpointError: The data or the split has changed.
    """
    before = DataFacts.from_plain(dict(saved))
    if before.class_names != facts.class_names:
        raise CheckpointError(
            f"the data have other classes than the checkpoint: {', '.join(facts.class_names)[:80]}"
            f" instead of {', '.join(before.class_names)[:80]}"
        )
    if (before.fingerprint, before.split_hash) != (facts.fingerprint, facts.split_hash):
        counts = f"{sum(facts.class_counts)} training images instead of {sum(before.class_counts)}"
        raise CheckpointError(
            f"the data have changed since this run was started ({counts} or other content)",
            hint="start a new run, or put the data back",
        )


def check_length(config: Config, *, step: int, steps_per_epoch: int) -> None:
    """Refuses a length that a run has passed already.

    Raises:
        ConfigError: Such a length.
    """
    length = config["trainer"]
    key, unit = ("epochs", steps_per_epoch) if length["epochs"] else ("steps", 1)
    if step > length[key] * unit:
        raise ConfigError(f"trainer.{key}={length[key]}: this run has taken {step / unit:g} {key} already")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns whatever goes wrong while a state is taken over into a sentence about its file.

    Raises:
        CheckpointError: The state is not what it should be.
    """
    try:
        yield
    except DivergedError as error:
        raise CheckpointError(f"{path} cannot be used: {error.message}") from None
    except CvtrainError:
        raise
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        raise CheckpointError(f"{path} does not fit this run: {first_line(error)}") from error


def load_weights(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Puts the weights of a checkpoint that are meant to be used, averaged ones if it has them, into a model.

    Raises:
        CheckpointError: They belong to another model.
    """
    trainer = state["trainer"]
    try:
        model.load_state_dict(trainer["model"])
        if trainer["average"] is not None:
            with torch.no_grad():
                for parameter, average in zip(model.parameters(), trainer["average"]["averages"], strict=True):
                    parameter.copy_(average)
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"the checkpoint belongs to another model: {first_line(error)}") from None


def load_best(model: nn.Module, folder: Path, step: int | None, *, note: Callable[[str], None]) -> None:
    """Puts the weights of the best checkpoint in a folder, which was made at `step`, into a model.

    Raises:
        CheckpointError: There is none, it is damaged, or it is another one.
    """
    best = load_newest(folder, "best")
    if best is None:
        raise CheckpointError(f"there is no best checkpoint in {folder}")
    for sentence in best.notes:
        note(sentence)
    if best.state["trainer"]["step"] != step:
        raise CheckpointError(f"{best.path} is not the best checkpoint of this run, which was made at step {step}")
    load_weights(model, best.state)


def first_line(error: BaseException) -> str:
    """The first two lines of a foreign error, as one."""
    return " ".join(line.strip() for line in str(error).splitlines()[:2]) or type(error).__name__
