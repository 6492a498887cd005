"""Settings that come from an earlier run: of one that is continued, or of a trained model that is used.

Knows settings as plain dictionaries; not how a command line becomes settings.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from cvtrain import schema
from cvtrain.config import RESUME_MAY_CHANGE, TRAINED_GROUPS, Config, config_dir, load_config
from cvtrain.errors import CheckpointError
from cvtrain.help import options_of
from cvtrain.schema import Settings
from cvtrain.suggestions import unknown_key


def resumed_config(
    run: Path,
    typed_values: Sequence[tuple[str, Any]],
    groups: Collection[str],
    *,
    defaults_of: Callable[[list[str]], Settings],
) -> tuple[Config, list[str]]:
    """The settings that a run was started with, plus the few that a resuming command may change.

    Args:
        run: The folder of the run.
        typed_values: `(key or group, value)` as typed.
        groups: The names of all groups.
        defaults_of: Gives the packaged settings of `group=option` words.

    Returns:
        The settings, and what was typed that cannot be had.

    Raises:
        CheckpointError: The folder holds no run.
    """
    config = _run_config(run)
    config["trainer"].setdefault("distributed", False)  # runs of earlier versions have no such key
    choices, problems = config.pop("choices"), []
    _choose_tracker(config, choices, dict(typed_values).get("tracker"), defaults_of=defaults_of)
    defaults = dict(schema.leaves(config))
    changed = copy.deepcopy(config)
    changed["plugins"] = []  # code is named by the user, never by a file
    for key, value in typed_values:
        if key == "resume":
            continue
        if (key, value) == ("trainer", "ddp"):  # says how many processes go on, and no more
            _put(changed, "trainer.distributed", True)
        elif key in groups:
            same = choices.get(key) == schema.shown(value)
            problems += [] if same else [_fixed(key, choices.get(key), value)]
        elif key == "plugins":
            changed["plugins"] = value
        elif key not in defaults:
            problems.append(unknown_key(key, list(defaults)))
        elif key not in RESUME_MAY_CHANGE and not key.startswith("tracker.") and value != defaults[key]:
            problems.append(_fixed(key, defaults[key], value))
        else:
            _put(changed, key, value)
    typed = sorted(key for key, _ in typed_values)
    set_one_length(changed, typed, config)
    option = choices.get("trainer") if choices.get("trainer") in options_of("trainer", config_dir()) else "default"
    reference = {**config, "trainer": defaults_of([f"trainer={option}"])["trainer"]}
    problems += schema.problems_of(changed, reference)
    return {**changed, "resume": str(run), "choices": choices, "typed": typed}, problems


def _choose_tracker(
    config: Config, choices: dict[str, Any], option: Any, *, defaults_of: Callable[[list[str]], Settings]
) -> None:
    """Lets a run that goes on be told to another tracker, or to none, if one is named: that changes no result."""
    if option is None:
        return
    choices["tracker"] = schema.shown(option)
    config.pop("tracker", None)
    config.update({k: v for k, v in defaults_of([f"tracker={schema.shown(option)}"]).items() if k == "tracker"})


def _run_config(run: Path) -> Config:
    """The settings of a run folder, which may have come from anywhere, with all parts that code relies on.

    Raises:
        CheckpointError: The folder holds no run, or its settings have lost their shape.
    """
    config, path = load_config(run), Path(run) / "config.yaml"
    if config.get("task") not in options_of("task", config_dir()):
        raise CheckpointError(f"{path}: task={schema.shown(config.get('task'))} is no task of cvtrain")
    for group in (*TRAINED_GROUPS, "choices"):
        if not isinstance(config.get(group), dict):
            raise CheckpointError(f"{path}: {group}={schema.shown(config.get(group))} is no group of settings")
    odd = [name for name, option in config["choices"].items() if not isinstance(option, str | None)]
    if odd or not all(isinstance(key, str) for key in config):
        raise CheckpointError(f"{path}: choices.{odd[0] if odd else ''} is no name of an option")
    return config


def _fixed(key: str, before: Any, now: Any) -> str:
    return f"{key}={schema.shown(now)}: this run was made with {key}={schema.shown(before)}; start a new run"


def trained_config(checkpoint: Path) -> Config:
    """The settings that a run folder, or the run of a checkpoint file, was trained with.

    Raises:
        CheckpointError: There is neither.
    """
    path = checkpoint.expanduser()
    folders = (path, path.parent) if path.is_dir() else (path.parent.parent, path.parent)
    for folder in folders:
        if (folder / "config.yaml").is_file():
            config = _run_config(folder)
            if config["task"] == "sample_size_sweep":
                raise CheckpointError(
                    f"checkpoint={checkpoint}: {folder} is a sample-size sweep, and names no trained model",
                    hint=f"with keep_models=true each training keeps one: checkpoint={folder}/runs/n00010-r00",
                )
            return config
    from cvtrain.finding import find_checkpoint  # a lone file explains itself, but torch is needed to read it
    from cvtrain.saved_model import read_config

    return read_config(find_checkpoint(path))


def take_over(config: Config, trained: Config, *, typed: Sequence[str], choices: Mapping[str, str]) -> list[str]:
    """Replaces what was not typed by what a model was trained with.

    Args:
        config: Changed in place.
        trained: The settings of the trained model.
        typed: The keys and groups on the command line.
        choices: The options on the command line.

    Returns:
        What was typed that contradicts the model.
    """
    problems = []
    for group in ("model", "loss"):
        before = trained["choices"].get(group)
        if choices.get(group, before) != before:
            problems.append(f"{group}={choices[group]}: the checkpoint was trained with {group}={before}")
    if "data.permute_pixels" in typed:
        before, now = trained["data"].get("permute_pixels"), schema.look_up(config, "data.permute_pixels")[1]
        if now != before:
            key = "data.permute_pixels"
            problems.append(f"{key}={schema.shown(now)}: the checkpoint was trained with {key}={schema.shown(before)}")
    for group in TRAINED_GROUPS:
        if group in choices:
            continue
        settings = copy.deepcopy(trained[group])
        for key in typed:
            if key.startswith(f"{group}."):
                _put({group: settings}, key, schema.look_up(config, key)[1])
        config[group] = settings
    if "trainer.device" not in typed:
        config["trainer"]["device"] = "auto"
    if "trainer" not in choices and "trainer.distributed" not in typed and config["trainer"].get("distributed"):
        config["trainer"]["distributed"] = False  # as many processes as trained it are not needed to use it
    if "seed" not in typed:
        config["seed"] = trained["seed"]
    return problems


def set_one_length(config: Config, typed: Sequence[str], defaults: Mapping[str, Any]) -> None:
    """Lets a length that was set, in epochs or in steps, replace the default of the other kind.

    What was typed goes before what a file says. Two lengths from the same place stay, and clash.

    Args:
        config: Changed in place.
        typed: The keys on the command line.
        defaults: The settings before anything was set.
    """
    trainer, before = config.get("trainer"), defaults.get("trainer")
    if not isinstance(trainer, dict) or not isinstance(before, Mapping):
        return
    lengths = ("epochs", "steps")
    chosen = [k for k in lengths if f"trainer.{k}" in typed] or [
        k for k in lengths if k in trainer and trainer[k] != before.get(k)
    ]
    if len(chosen) == 1 and trainer[chosen[0]] is not None:
        trainer["steps" if chosen == ["epochs"] else "epochs"] = None


def _put(config: Config, key: str, value: Any) -> None:
    *nodes, name = key.split(".")
    for node in nodes:
        config = config[node]
    config[name] = value
