"""From the words of a command line to checked, plain settings.

With `cli.py` the only module that knows Hydra and OmegaConf; it does not import torch, so that a typing error is
answered within a second.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from cvtrain import schema
from cvtrain.config import Config, config_dir, load_config
from cvtrain.errors import ConfigError

RESUME_MAY_CHANGE = (
    "trainer.epochs",
    "trainer.steps",
    "trainer.device",
    "trainer.eval_batch_size",
    "trainer.early_stopping.patience",
    "trainer.checkpoint.every_minutes",
    "trainer.checkpoint.keep",
    "data.root",
    "data.loader",
    "data.num_workers",
    "data.cache_dir",
    "data.memory_limit_gb",
    "data.download",
    "plugins",
)
"""What a command that resumes may set anew: length, place and speed, but nothing that defines the run."""

_TASKS_OF_TRAINED_MODELS = ("evaluate", "predict")

_TRAINED_GROUPS = ("data", "augment", "model", "loss", "optimizer", "scheduler", "trainer")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(message, hint="settings are written group.key=value; see cvtrain --help")


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parts a command line into flags and overrides.

    Raises:
        ConfigError: A flag that does not exist.
    """
    parser = _Parser(add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--config-dir", "-cd", default=None)
    parser.add_argument("--config-name", "-cn", default="config")
    parsed, rest = parser.parse_known_intermixed_args(list(arguments))
    if rest:
        name, _, value = rest[0].lstrip("-").partition("=")
        hint = f"write {name.replace('-', '_')}={value or 'VALUE'}; see cvtrain --help"
        raise ConfigError(f"unknown flag {rest[0]}: settings are written group.key=value", hint=hint)
    return parsed


def compose(arguments: Sequence[str]) -> Config:
    """Composes and checks the settings that a command line asks for.

    Args:
        arguments: The command line without the program's name.

    Returns:
        Plain settings, every key present, every value of the right type and range.

    Raises:
        ConfigError: All problems at once: unknown keys and options, wrong types and ranges, clashes.
        CheckpointError: `resume=` names a folder that holds no run.
    """
    parsed = parse_arguments(arguments)
    overrides = _parse_overrides(parsed.overrides)
    words = {o.key_or_group: o.value() for o in overrides}
    with _Hydra(_user_config_dir(parsed.config_dir)) as hydra:
        if words.get("resume") is not None:
            return _compose_resumed(Path(str(words["resume"])), overrides, hydra)
        trained = None
        if words.get("task") in _TASKS_OF_TRAINED_MODELS and words.get("checkpoint") is not None:
            trained = trained_config(Path(str(words["checkpoint"])))
        return _compose_new(parsed.config_name, overrides, hydra, trained)


def _user_config_dir(given: str | None) -> Path | None:
    if given is None:
        return None
    folder = Path(given).expanduser().resolve()
    if not folder.is_dir():
        raise ConfigError(f"--config-dir {given}: there is no such folder")
    return folder


class _Hydra:
    """Hydra, set up for composing with the packaged configs and, after them, the user's."""

    def __init__(self, user_dir: Path | None) -> None:
        self.search_path = [f"hydra.searchpath=[file://{user_dir}]"] if user_dir else []

    def __enter__(self) -> _Hydra:
        from hydra import initialize_config_dir
        from hydra.core.global_hydra import GlobalHydra

        # In a multirun Hydra is at work around us: its state is put back afterwards.
        self._outer = GlobalHydra.get_state()
        GlobalHydra.instance().clear()
        self._context = initialize_config_dir(str(config_dir()), version_base="1.3")
        self._context.__enter__()
        self.loader = GlobalHydra.instance().config_loader()
        if self.search_path:
            # Option lists must know the user's folder too, before anything is composed.
            self.compose("config", [])
        return self

    def __exit__(self, *exception: object) -> None:
        from hydra.core.global_hydra import GlobalHydra

        self._context.__exit__(*exception)
        GlobalHydra.set_state(self._outer)

    def compose(self, config_name: str, overrides: list[str]) -> Any:
        from hydra import compose

        return compose(config_name, overrides=self.search_path + overrides, return_hydra_config=True)

    def options(self, group: str) -> list[str]:
        return [o for o in self.loader.get_group_options(group) if not o.startswith("_")]

    def groups(self) -> list[str]:
        return [g for g in self.loader.list_groups("") if g != "hydra"]


def _parse_overrides(words: Sequence[str]) -> list[Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    parser, overrides, problems = OverridesParser.create(), [], []
    for word in words:
        if "=" not in word and not word.startswith("~"):
            problems.append(f"{word}: a setting is written KEY=VALUE")
            continue
        try:
            overrides.append(parser.parse_override(word))
        except HydraException:
            problems.append(f"{word}: cannot be read; quote special characters: 'key=\"a, b\"'")
    problems += [
        f"{o.input_line}: several values need --multirun; a list is written [a,b]"
        for o in overrides
        if o.is_sweep_override()
    ]
    if problems:
        raise ConfigError(problems)
    return overrides


def _compose_new(config_name: str, overrides: list[Any], hydra: _Hydra, trained: Config | None) -> Config:
    choices, values, problems = _part_overrides(overrides, hydra)
    chosen = {**_choices_of(trained, hydra), **choices}
    # A `++` sets a key whether it exists or not; the comparison with the reference finds those that do not.
    forced = [o.input_line if o.is_delete() else f"++{o.input_line.lstrip('+')}" for o in values]
    composed = _run_hydra(hydra, config_name, [f"{g}={c}" for g, c in chosen.items()] + forced)
    selected = _selected(composed, hydra.groups())
    experiment = selected.pop("experiment", None)
    reference = _plain(_run_hydra(hydra, "config", [f"{g}={c}" for g, c in selected.items()]))
    config, typed = _plain(composed), sorted({o.key_or_group for o in overrides})
    _length_once(config, typed)
    if trained is not None:
        problems += _take_over(config, trained, typed=typed, choices=choices)
        selected = {**trained["choices"], **choices, "task": selected["task"]}
    problems += schema.problems_of(config, reference)
    if problems:
        raise ConfigError(_with_device(problems, config))
    return {**config, "choices": {**selected, "experiment": experiment}, "typed": typed}


def _choices_of(trained: Config | None, hydra: _Hydra) -> dict[str, str]:
    """The options that a trained model was made with, as far as they exist here."""
    if trained is None:
        return {}
    chosen = {g: trained["choices"].get(g) for g in _TRAINED_GROUPS}
    return {g: c for g, c in chosen.items() if c in hydra.options(g)}


def _take_over(config: Config, trained: Config, *, typed: list[str], choices: dict[str, str]) -> list[str]:
    """Replaces what was not typed by what the model was trained with; returns what contradicts the model."""
    problems = []
    for group in ("model", "loss"):
        before = trained["choices"].get(group)
        if choices.get(group, before) != before:
            problems.append(f"{group}={choices[group]}: the checkpoint was trained with {group}={before}")
    for group in _TRAINED_GROUPS:
        if group in choices:
            continue
        settings = copy.deepcopy(trained[group])
        for key in typed:
            if key.startswith(f"{group}."):
                _put({group: settings}, key, _get(config, key))
        config[group] = settings
    if "trainer.device" not in typed:
        config["trainer"]["device"] = "auto"
    if "seed" not in typed:
        config["seed"] = trained["seed"]
    return problems


def trained_config(checkpoint: Path) -> Config:
    """The settings that a run folder, or the run of a checkpoint file, was trained with.

    Raises:
        CheckpointError: There is neither.
    """
    path = checkpoint.expanduser()
    folders = (path, path.parent) if path.is_dir() else (path.parent.parent, path.parent)
    for folder in folders:
        if (folder / "config.yaml").is_file():
            return load_config(folder)
    from cvtrain.classifier import find_checkpoint  # a lone file explains itself, but torch is needed to read it

    return find_checkpoint(path).state["config"]


def _part_overrides(overrides: list[Any], hydra: _Hydra) -> tuple[dict[str, str], list[Any], list[str]]:
    """Parts overrides into chosen options and values; options that do not exist become problems."""
    groups, choices, values, problems = hydra.groups(), {}, [], []
    for override in overrides:
        key = override.key_or_group
        if key not in groups:
            values.append(override)
            continue
        option, options = str(override.value()), hydra.options(key)
        if option in options or override.value() is None:
            choices[key] = "null" if override.value() is None else option
        else:
            problems.append(_unknown_option(key, option, options))
    return choices, values, problems


def _unknown_option(group: str, option: str, options: list[str]) -> str:
    match = schema.nearest(option, options, cutoff=0.5)
    meant = f"did you mean {group}={match}? " if match else ""
    return f"unknown option {group}={option}: {meant}There are {', '.join(options)}"


def _selected(composed: Any, groups: list[str]) -> dict[str, str]:
    choices = composed.hydra.runtime.choices
    return {group: str(choices[group]) for group in groups if choices.get(group) is not None}


def _run_hydra(hydra: _Hydra, config_name: str, overrides: list[str]) -> Any:
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    try:
        return hydra.compose(config_name, overrides)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        first_lines = [line.strip() for line in str(error).splitlines() if line.strip()][:3]
        raise ConfigError("the config cannot be composed: " + " ".join(first_lines)) from None


def _plain(composed: Any) -> Config:
    """The settings as plain, resolved containers, without Hydra's own."""
    from omegaconf import OmegaConf, open_dict
    from omegaconf.errors import OmegaConfBaseException

    with open_dict(composed):
        composed.pop("hydra")
    try:
        return OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(str(error).splitlines()[0]) from None


def _length_once(config: Config, typed: Sequence[str]) -> None:
    """Lets a typed length of one kind replace the default of the other; two typed lengths stay, and clash."""
    trainer = config.get("trainer")
    if not isinstance(trainer, dict) or {"trainer.epochs", "trainer.steps"} <= set(typed):
        return
    if trainer.get("steps") is not None and "trainer.epochs" not in typed:
        trainer["epochs"] = None
    elif trainer.get("epochs") is not None and "trainer.epochs" in typed:
        trainer["steps"] = None


def _with_device(problems: list[str], config: Config) -> list[str]:
    """Adds a missing accelerator to problems that are reported anyway; only then is torch worth importing for it."""
    device = config.get("trainer", {}).get("device")
    if isinstance(device, str) and device not in ("auto", "cpu"):
        from cvtrain.engine.device import device_problem

        problem = device_problem(device)
        return problems + ([problem] if problem else [])
    return problems


# ---------------------------------------------------------------------------------------------------- resume


def _compose_resumed(run: Path, overrides: list[Any], hydra: _Hydra) -> Config:
    """The settings that a run was started with, plus the few that a resuming command may change."""
    config = load_config(run)
    choices, typed = config.pop("choices"), sorted({o.key_or_group for o in overrides})
    defaults, groups, problems = dict(schema.leaves(config)), hydra.groups(), []
    changed = copy.deepcopy(config)
    for override in overrides:
        key, value = override.key_or_group, override.value()
        if key == "resume":
            continue
        if key in groups:
            problems += [] if choices.get(key) == value else [_fixed(key, choices.get(key), value)]
        elif key not in defaults:
            problems.append(schema.unknown_key(key, list(defaults)))
        elif key not in RESUME_MAY_CHANGE and value != defaults[key]:
            problems.append(_fixed(key, defaults[key], value))
        else:
            _put(changed, key, value)
    _length_once(changed, typed)
    problems += schema.problems_of(changed, config)
    if problems:
        raise ConfigError(problems)
    return {**changed, "resume": str(run), "choices": choices, "typed": typed}


def _fixed(key: str, before: Any, now: Any) -> str:
    return f"{key}={now}: this run was made with {key}={before}; start a new run to change it"


def _put(config: Config, key: str, value: Any) -> None:
    *nodes, name = key.split(".")
    for node in nodes:
        config = config[node]
    config[name] = value


def _get(config: Config, key: str) -> Any:
    value: Any = config
    for name in key.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value
