"""From the words of a command line to checked, plain settings.

With `cli.py` the only module that knows Hydra and OmegaConf; it does not import torch, so that a typing error is
answered within a second.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cvtrain import schema, targets
from cvtrain.arguments import FLAGS, Arguments, parse_arguments, without_no_experiment
from cvtrain.composer import Composer, plain_settings, with_values
from cvtrain.config import TRAINED_GROUPS, Config, config_dir
from cvtrain.errors import ConfigError
from cvtrain.help import GROUPS, options_of, options_with
from cvtrain.inheritance import resumed_config, set_one_length, take_over, trained_config
from cvtrain.origins import Origins
from cvtrain.ruleset import RULES
from cvtrain.suggestions import nearest, no_value, unknown_flag, unknown_key, unknown_option

_TASKS_OF_TRAINED_MODELS = ("evaluate", "predict", "export")
_MAX_CHARACTERS = 600


def compose(arguments: Sequence[str]) -> Config:
    """Composes and checks the settings that a command line asks for.

    Args:
        arguments: The command line without the program's name.

    Returns:
        Plain settings, every key present, every value of the right type and range.

    Raises:
        ConfigError: All problems at once: unknown keys and options, wrong types and ranges, clashes.
        CheckpointError: `resume=` or `checkpoint=` names what holds no run.
    """
    return compose_parsed(parse_arguments(arguments))


def compose_parsed(parsed: Arguments) -> Config:
    """As `compose`, for a command line that has been parted into flags and settings."""
    with Composer(parsed) as hydra:
        return _checked(parsed, hydra)


class JobComposer:
    """Composes many command lines that differ in their settings alone; what they have in common is done once.

    Args:
        parsed: Flags that all have.
    """

    def __init__(self, parsed: Arguments) -> None:
        self._parsed, self._composer = parsed, Composer(parsed)

    def compose(self, words: Sequence[str]) -> Config:
        """The settings of one job.

        Raises:
            ConfigError: All problems at once.
        """
        (found,) = self.compose_all([words])
        if isinstance(found, ConfigError):
            raise found
        return found

    def compose_all(self, jobs: Sequence[Sequence[str]]) -> list[Config | ConfigError]:
        """The settings of each job, or all that is wrong with it."""
        found: list[Config | ConfigError] = []
        with self._composer as hydra:
            for words in jobs:
                try:
                    parsed = replace(self._parsed, settings=without_no_experiment(words))
                    found.append(_checked(parsed, hydra))
                except ConfigError as error:
                    found.append(error)
        return found

    def hydra_problems(self, words: Sequence[str], *, experiment: Sequence[str]) -> list[str]:
        """What Hydra does not take of settings of its own, together with an experiment."""
        groups = [word for word in words if word.lstrip("+~").startswith("hydra/")]
        problems, chosen = [], list(experiment)
        with self._composer as hydra:
            for word in [*groups, *(word for word in words if word not in groups)]:
                try:
                    hydra.compose([*chosen, word])
                except ConfigError as error:
                    problems.append(_explain_hydras(word, hydra) or error.problems[0])
                else:
                    chosen += [word] if word in groups else []
        return problems


def _explain_hydras(word: str, hydra: Composer) -> str | None:
    """The sentence for a setting of Hydra's own that it does not take; None for an option that there is."""
    key, _, value = word.lstrip("+~").partition("=")
    options = hydra.hydras_options(key) if "/" in key else []
    if value in options:
        return None
    return unknown_option(key, value, options) if options else f"{word}: Hydra has no such setting, or not this value"


def _checked(parsed: Arguments, hydra: Composer) -> Config:
    problems: list[str] = []
    try:
        config = _compose(parsed, hydra, problems)
    except ConfigError as error:
        raise ConfigError(_in_short([*problems, *error.problems]), hint=error.hint) from None
    if problems:
        raise ConfigError(_in_short(_with_device(problems, config)))
    return config


def _in_short(problems: list[str]) -> list[str]:
    """The same without the tails of words that are too long to be read."""
    return [problem if len(problem) <= _MAX_CHARACTERS else f"{problem[:_MAX_CHARACTERS]}..." for problem in problems]


def launcher_and_sweeper(parsed: Arguments) -> tuple[str, str]:
    """Those of Hydra's that the root config or an experiment chooses, where none is typed.

    Raises:
        ConfigError: The configs cannot be composed.
    """
    composed = _experiment(parsed)
    if composed is None:
        with Composer(parsed) as hydra:
            composed = hydra.compose([])
    chosen = composed.hydra.runtime.choices
    return str(chosen["hydra/launcher"]), str(chosen["hydra/sweeper"])


def arms_of_experiment(parsed: Arguments) -> dict[str, str]:
    """What an experiment sweeps over with --multirun: values by key, as they would be typed, without typed keys.

    An experiment states it as `hydra.sweeper.params`, Hydra's own place for it.

    Raises:
        ConfigError: The configs cannot be composed.
    """
    composed = _experiment(parsed)
    if composed is None:
        return {}
    params = composed.hydra.sweeper.params
    typed = {word.lstrip("+~").partition("=")[0] for word in parsed.settings}
    return {str(k): str(v) for k, v in (params or {}).items() if v is not None and k not in typed}


def _experiment(parsed: Arguments) -> Any:
    """What the experiment that was typed composes to; None where none was, or one that does not exist."""
    chosen = [word for word in parsed.settings if word.startswith("experiment=")]
    with Composer(parsed) as hydra:
        if not chosen or chosen[-1].partition("=")[2] not in hydra.options("experiment"):
            return None  # what is wrong with it is told when all is composed
        return hydra.compose(chosen[-1:])


def _compose(parsed: Arguments, hydra: Composer, problems: list[str]) -> Config:
    for flag, value in parsed.unknown:
        problems.append(unknown_flag(flag, value, [*hydra.groups, *hydra.known_keys()], FLAGS))
    overrides = _parse_overrides(parsed.settings, hydra, problems)
    words = {o.key_or_group: o.value() for o in overrides if not o.is_delete()}
    if words.get("resume") is not None:
        typed = list(words.items())
        config, more = resumed_config(Path(str(words["resume"])), typed, hydra.groups, defaults_of=hydra.defaults_of)
        problems += more
        problems += targets.plugin_problems(config.get("plugins"), typed="plugins" in words)
        problems += targets.name_problems(config)
        return config
    return _new_config(overrides, hydra, problems)


def located(error: ConfigError, config: Config, arguments: Sequence[str]) -> ConfigError:
    """The same error about settings of a command line, with where those come from that were not typed."""
    choices = [f"{group}={option}" for group, option in config["choices"].items() if option is not None]
    if config.get("resume") is not None:
        return error
    try:
        with Composer(parse_arguments(arguments)) as hydra:
            origins = Origins(hydra.parts_of(choices), typed=config["typed"], settings=config)
    except ConfigError:  # of a trained model with options that are not here
        return error
    return ConfigError([origins.located(problem) for problem in error.problems], hint=error.hint)


def _with_device(problems: list[str], config: Config) -> list[str]:
    """Adds a missing accelerator to problems that are reported anyway; only then is torch worth importing for it."""
    device = schema.look_up(config, "trainer.device")[1]
    if RULES["trainer.device"].problem(device) is None and device not in ("auto", "cpu"):
        from cvtrain.engine.device import device_problem

        problem = device_problem(device)
        return problems + ([problem] if problem else [])
    return problems


# ---------------------------------------------------------------------------------------------- the words typed


def _parse_overrides(words: Sequence[str], hydra: Composer, problems: list[str]) -> list[Any]:
    """The settings among the words; what is wrong with the others becomes problems."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    if "=" in words:
        raise ConfigError("a setting is written without spaces: KEY=VALUE")
    parser, overrides = OverridesParser.create(), []
    for word in words:
        if "=" not in word and not word.startswith("~"):
            options = {group: hydra.options(group) for group in hydra.groups}
            problems.append(no_value(word, options, hydra.known_keys()))
            continue
        try:
            override = parser.parse_override(word)
        except HydraException:
            override = None
        if override is None or not override.key_or_group or override.package is not None:
            problems.append(f"{schema.shown(word)}: cannot be read; quote special characters: 'key=\"a, b\"'")
            continue
        if override.is_sweep_override():
            problems.append(f"{word}: several values need --multirun; a list is written [a,b]")
        else:
            overrides.append(override)
    return overrides


# ---------------------------------------------------------------------------------------------- a new command


def _new_config(overrides: list[Any], hydra: Composer, problems: list[str]) -> Config:
    """The settings of a command that continues no run; adds to `problems` whatever is wrong with them."""
    choices, values = _part_overrides(overrides, hydra, problems)
    words = {o.key_or_group: o.value() for o in values if not o.is_delete()}
    trained = None
    if choices.get("task") in _TASKS_OF_TRAINED_MODELS and words.get("checkpoint") is not None:
        trained = trained_config(Path(str(words["checkpoint"])))
    inherited = {g: c for g, c in trained["choices"].items() if g in TRAINED_GROUPS} if trained else {}
    chosen = {g: c for g, c in inherited.items() if c in hydra.options(g)} | choices
    words_chosen = [f"{group}={option}" for group, option in chosen.items()]
    composed = _compose_values(hydra, words_chosen, values, problems)
    num_of_words = len(problems)  # those until here are about words as they were typed
    problems += hydra.foreign_hydra_settings(composed, typed=words_chosen)
    selected = hydra.selected(composed, words_chosen)
    experiment = selected.pop("experiment", None)
    # A trainer of the user's is measured by the packaged one: code reads its keys, and no `_target_` lists them.
    is_packaged = selected.get("trainer") in (None, *options_of("trainer", config_dir()))
    options = selected if is_packaged else {**selected, "trainer": "default"}
    reference = hydra.defaults_of([f"{group}={option}" for group, option in options.items()])
    config, typed = plain_settings(composed, reference, problems), sorted({o.key_or_group for o in overrides})
    set_one_length(config, typed, reference)
    if trained is not None:
        problems += take_over(config, trained, typed=typed, choices=choices)
        reference |= {group: trained[group] for group in TRAINED_GROUPS if group not in choices}
        selected = {**trained["choices"], **choices, **{group: selected[group] for group in ("task", "tracker")}}
    problems += schema.problems_of(
        config, reference, explain=functools.partial(_explain, config=config, selected=selected)
    )
    problems += schema.idle_settings(config, typed)
    if config.get("task") != selected.get("task"):
        problems.append(f"task: {config.get('task')} in a file is not {selected.get('task')}, the option chosen")
    problems += targets.plugin_problems(config.get("plugins"), typed="plugins" in words)
    problems += targets.name_problems(config)
    if config.get("resume") is not None:  # else it would have come here by another way
        problems.append(f"resume={schema.shown(config['resume'])} stands in a file: a run is continued by typing it")
    if problems:
        origins = Origins(hydra.parts_of(words_chosen), typed=typed, settings=config)
        problems[num_of_words:] = [origins.located(problem) for problem in problems[num_of_words:]]
    return {**config, "choices": {**selected, "experiment": experiment}, "typed": typed}


def _part_overrides(overrides: list[Any], hydra: Composer, problems: list[str]) -> tuple[dict[str, str], list[str]]:
    """Parts overrides into chosen options and values; what cannot be had becomes a problem."""
    choices: dict[str, str] = {}
    values = []
    for override in overrides:
        key, group = override.key_or_group, override.key_or_group in hydra.groups
        value = None if override.is_delete() else override.value()
        if key.partition(".")[0].partition("/")[0] == "hydra":
            problems.append(f"{override.input_line}: settings of Hydra work with --multirun only")
        elif group and key == "experiment" and value is None:
            choices[key] = "null"
        elif group and value is None:
            problems.append(f"{override.input_line}: {key} cannot be left out; type {key}=OPTION")
        elif group and (unknown := hydra.unknown_options(key, value)):
            problems.append(unknown_option(key, schema.shown(unknown[0]), hydra.options(key)))
        elif group:
            choices[key] = schema.shown(value)
        elif override.is_delete():
            problems.append(f"{override.input_line}: no key can be left out; give it another value")
        else:
            values.append(override)
    return choices, values


def _compose_values(hydra: Composer, choices: list[str], values: list[Any], problems: list[str]) -> Any:
    """The composition with all values; where one does not fit into it, that is a problem, and it is left out."""
    composed, misfits = with_values(hydra.compose_choices(choices), values)
    for override in misfits:
        written = override.input_line.lstrip("+")
        problems.append(f"{written}: {written.partition('=')[0].rpartition('.')[0]} holds no keys")
    return composed


def _explain(key: str, known: list[str], *, config: Config, selected: dict[str, str]) -> str:
    """The sentence for an unknown key: another option of its group has it, a group was meant, or another key."""
    group = key.partition(".")[0] if "." in key else "task"
    others = options_with(config_dir(), key)
    if others and selected.get(group):
        return f"unknown key {key}: {group}={selected[group]} has none; {', '.join(others[:6])} have it"
    if "." not in key and (match := nearest(key, GROUPS)):
        value = schema.shown(config[key])
        option = value if value in options_of(match, config_dir()) else "OPTION"
        return f"unknown key {key}: did you mean {match}={option}?"
    return unknown_key(key, known)
