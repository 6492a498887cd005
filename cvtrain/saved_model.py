"""The model that a checkpoint describes: read, looked at, and made again, whoever has written the file.

Knows states, settings and models; neither pictures nor how training goes on. Nothing in a state is believed: every part
of it is of the right kind before it is used, and the model is compared with the weights while it still takes no memory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from cvtrain import build, schema
from cvtrain.config import TRAINED_GROUPS, Config, are_choices
from cvtrain.data.facts import DataFacts
from cvtrain.engine.checkpoint import Loaded
from cvtrain.engine.device import is_out_of_memory
from cvtrain.errors import CheckpointError, ConfigError
from cvtrain.resume import first_line

_PRECISIONS = ("fp32", "bf16", "fp16")
_MAX_SETTINGS = 10_000
"""Values in the settings of a run, those in lists counted too."""
_SPARE_TENSORS = 1_000
"""Beyond four times as many as are saved: some models are made with parts that are replaced at once."""


@dataclass(frozen=True)
class SavedModel:
    """What a checkpoint says of a trained model.

    Args:
        path: The file.
        step: Steps that its weights have been trained.
        config: The settings that it was trained with.
        facts: Of the data that it was trained on.
        precision: `fp32`, `bf16` or `fp16`.
        weights: Every tensor of the model by name, finite.
        averages: Averaged parameters, in the order of the model's, or None.
        notes: Sentences about damaged checkpoints that were passed over.
    """

    path: Path
    step: int
    config: Config
    facts: DataFacts
    precision: str
    weights: Mapping[str, Tensor]
    averages: list[Tensor] | None
    notes: tuple[str, ...] = ()


def read_model(loaded: Loaded) -> SavedModel:
    """The trained model in a state.

    Raises:
        CheckpointError: Something is missing, or is not what it must be.
    """
    state, path = loaded.state, loaded.path
    config = read_config(loaded)
    try:
        trainer = state["trainer"]
        average = trainer["average"]
        saved = SavedModel(
            path=path,
            step=trainer["step"],
            config=config,
            facts=DataFacts.from_plain(state["facts"]),
            precision=state["precision"],
            weights=_tensors(trainer["model"]),
            averages=None if average is None else list(_tensors(dict(enumerate(average["averages"]))).values()),
            notes=loaded.notes,
        )
        if type(saved.step) is not int or saved.step < 0:
            raise ValueError("a number of steps")
        if saved.precision not in _PRECISIONS:
            raise ValueError(f"a precision of {', '.join(_PRECISIONS)}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _lacks(path, error) from None
    _check_finite(saved)
    return saved


def read_config(loaded: Loaded) -> Config:
    """The settings in a state: of the right kinds and ranges, and not too many; `plugins` are left out.

    Raises:
        CheckpointError: They are not.
    """
    try:
        config: Config = {**loaded.state["config"], "plugins": []}
        if not are_choices(config["choices"]):
            raise TypeError("options chosen")
        for group in TRAINED_GROUPS:
            if not isinstance(config[group], dict) or config["choices"][group] is None:
                raise TypeError(f"settings of {group}")
        if not isinstance(config["seed"], int):
            raise TypeError("seed")
    except (KeyError, TypeError) as error:
        raise _lacks(loaded.path, error) from None
    if sum(_num_values(value) for value in config.values()) > _MAX_SETTINGS:
        raise CheckpointError(f"{loaded.path} cannot be used: it has more than {_MAX_SETTINGS:,} settings")
    made_again = {group: config[group] for group in ("model", "loss")}
    problems = schema.problems_of(made_again, made_again)
    if problems:
        raise CheckpointError(f"{loaded.path} cannot be used: {problems[0]}")
    return config


def _num_values(value: Any) -> int:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return 1 + sum(map(_num_values, inside))


def _lacks(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path} is not a checkpoint of cvtrain: it lacks {str(error)[:120]}")


def _tensors(named: Any) -> dict[str, Tensor]:
    if not isinstance(named, dict) or not all(isinstance(tensor, Tensor) for tensor in named.values()):
        raise TypeError("tensors by name")
    return {str(name): tensor.detach() for name, tensor in named.items()}


def _check_finite(saved: SavedModel) -> None:
    named = [*saved.weights.items(), *(("an averaged weight", tensor) for tensor in saved.averages or ())]
    for name, tensor in named:
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise CheckpointError(f"{saved.path} cannot be used: {name} is not a finite number")


# ------------------------------------------------------------------------------------------------ made again


def remake(saved: SavedModel, config: Config) -> tuple[nn.Module, nn.Module]:
    """The model with its weights, averaged ones if there are any, and its loss.

    Args:
        saved: What the checkpoint says.
        config: Its settings, with what the user may change.

    Raises:
        CheckpointError: The settings make no model, or one that the weights do not belong to.
    """
    config = build.without_pretrained(config)
    try:
        loss_fn = build.loss(config, saved.facts)
        with contextlib.suppress(NotImplementedError), torch.device("meta"), _no_more_than(saved):
            # Some constructors compute with tensors, which takes a device with numbers: those are not tried.
            _check_same(build.model(config, saved.facts, num_outputs=loss_fn.num_outputs), saved)
        model = build.model(config, saved.facts, num_outputs=loss_fn.num_outputs)
    except ConfigError as error:
        raise CheckpointError(f"{saved.path} cannot be used: {error.problems[0]}", hint=error.hint) from None
    except (TypeError, ValueError, RuntimeError, AttributeError, LookupError, ArithmeticError) as error:
        if is_out_of_memory(error):
            raise
        # What a class that is allowed says to arguments that it does not know.
        raise CheckpointError(f"{saved.path} cannot be used: its settings make no model: {first_line(error)}") from None
    _check_same(model, saved)
    model.load_state_dict(saved.weights)
    with torch.no_grad():
        for parameter, average in zip(model.parameters(), saved.averages or (), strict=False):
            parameter.copy_(average)
    return model, loss_fn


@contextlib.contextmanager
def _no_more_than(saved: SavedModel) -> Iterator[None]:
    """Stops the making of a model of many more tensors than are saved, as settings of a million layers ask for."""
    most, count = 4 * len(saved.weights) + _SPARE_TENSORS, 0

    def registered(_module: nn.Module, _name: str, _parameter: Tensor | None) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise CheckpointError(
                f"{saved.path} cannot be used: its settings make a model of more than {most:,} tensors,"
                f" and it holds {len(saved.weights):,}"
            )

    hook = register_module_parameter_registration_hook(registered)
    try:
        yield
    finally:
        hook.remove()


def _check_same(model: nn.Module, saved: SavedModel) -> None:
    """Compares names, shapes and kinds of numbers.

    Raises:
        CheckpointError: With what differs.
    """
    own = model.state_dict()
    differing = [name for name in own if name not in saved.weights or _kind(own[name]) != _kind(saved.weights[name])]
    differing += [name for name in saved.weights if name not in own]
    if differing:
        more = f", and {len(differing) - 3} more" if len(differing) > 3 else ""
        raise CheckpointError(
            f"{saved.path} cannot be used: its weights belong to another model than its settings"
            f" ({', '.join(differing[:3])[:200]}{more})"
        )
    shapes = [parameter.shape for parameter in model.parameters()]
    if saved.averages is not None and [average.shape for average in saved.averages] != shapes:
        raise CheckpointError(f"{saved.path} cannot be used: its averaged weights are not those of its model")


def _kind(tensor: Tensor) -> tuple[torch.Size, torch.dtype]:
    return tensor.shape, tensor.dtype
