"""docs/config.md, the reference of all settings, from the config files.

Reads the YAML files, with their comments, and the rules of `cvtrain.ruleset`; composes nothing.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from cvtrain.help import GROUPS, options_of
from cvtrain.schema import rule_for

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "configs"

_HEAD = """\
# All settings

Every group, option and key, with defaults and what a value may be. This page is made from the files in `configs/` by
`python -m docs`; change those, not this.

* `group=option` chooses an option, `group.key=value` sets a key: `cvtrain model=vgg11_bn optimizer.lr=0.1`.
* Where options differ in a default, that of the default option (or the usual one) comes first; the others follow with
  their options in brackets.
  A key that only some options have names them.
* `cvtrain ... --cfg job` prints what a command would use, and does nothing. `cvtrain --help` lists groups and options.
* A misspelt key, or a value of the wrong kind, is told before anything starts, with the nearest right word.

"""
_HYDRA = """\
## `hydra/launcher` and `hydra/sweeper`

Of `--multirun` alone. `hydra/launcher=isolated` (the default) runs each job in a process of its own, `basic` in the
command's own; `joblib`, `submitit_local` and `submitit_slurm` come with the extras: [sweeps.md](sweeps.md).
`hydra/sweeper=grid` (the default) runs every combination; `search` looks for good values, and has keys of its own:
[search.md](search.md).
"""


@dataclass(frozen=True)
class Setting:
    """A key of an option: its default, and the comment beside it."""

    default: Any
    comment: str


@dataclass(frozen=True)
class Option:
    """A config file: its name, the comment at its head, and its settings by dotted key."""

    name: str
    head: str
    settings: Mapping[str, Setting]


@functools.cache
def read_option(group: str, path: Path) -> Option:
    """An option of a group with what it takes over from other options of the group."""
    text = path.read_text(encoding="utf-8")
    comments = [line[1:].strip() for line in text.splitlines() if line.startswith("#")]
    package = next((c.removeprefix("@package ") for c in comments if c.startswith("@package")), group)
    prefix = "" if package == "_global_" else f"{package}."
    content: Any = OmegaConf.to_container(OmegaConf.load(path))
    inherited: dict[str, Setting] = {}
    for entry in content.get("defaults", []):
        if isinstance(entry, str) and entry != "_self_" and (path.parent / f"{entry}.yaml").is_file():
            inherited |= read_option(group, path.parent / f"{entry}.yaml").settings
    own = dict(_settings(yaml.compose(text), content, lines=text.splitlines(), prefix=prefix))
    for key, setting in own.items():
        if not setting.comment and key in inherited:
            own[key] = Setting(setting.default, inherited[key].comment)
    return Option(path.stem, _first_comment(text), inherited | own)


def _first_comment(text: str) -> str:
    """The sentences at the head of a file, without the commands that it shows."""
    lines = []
    for line in text.splitlines():
        if not line.startswith("#") or line.startswith(("#   ", "# cvtrain ", "# Expected:")):
            if lines:
                break
        elif not line.startswith("# @package"):
            lines.append(line[1:].strip())
    return " ".join(lines)


def _settings(node: yaml.Node, content: Any, *, lines: Sequence[str], prefix: str) -> Iterator[tuple[str, Setting]]:
    """Every `(dotted key, setting)` of a file; `defaults`, code and what is Hydra's own are left out."""
    if not isinstance(node, yaml.MappingNode):
        return
    for key_node, value_node in node.value:
        key = f"{prefix}{key_node.value}"
        if key_node.value in ("defaults", "_target_", "hydra", "task"):
            continue
        if isinstance(value_node, yaml.MappingNode) and value_node.value:
            yield from _settings(value_node, content[key_node.value], lines=lines, prefix=f"{key}.")
        else:
            end = value_node.end_mark
            rest = lines[end.line][end.column :] if end.line < len(lines) else ""
            yield key, Setting(content[key_node.value], rest.partition("#")[2].strip())


# ------------------------------------------------------------------------------------------------------- the page


def page() -> str:
    """The whole page."""
    defaults = _defaults()
    parts = [_HEAD, _root_section()]
    for group, meaning in GROUPS.items():
        options = [read_option(group, CONFIGS / group / f"{name}.yaml") for name in options_of(group, CONFIGS)]
        parts.append(_group_section(group, meaning, options, default=defaults.get(group)))
    return "\n".join([*parts, _HYDRA])


def _defaults() -> dict[str, Any]:
    """The option of each group that is taken when none is typed."""
    entries = OmegaConf.load(CONFIGS / "config.yaml").defaults
    return {group: option for entry in entries if not isinstance(entry, str) for group, option in entry.items()}


def _root_section() -> str:
    root = read_option("", CONFIGS / "config.yaml")
    settings = {key.removeprefix("."): setting for key, setting in root.settings.items()}
    return "## The top level\n\n" + _table([Option("config", "", settings)], default="config")


def _group_section(group: str, meaning: str, options: Sequence[Option], *, default: Any) -> str:
    lines = [f"## `{group}`", "", f"{meaning[0].upper()}{meaning[1:]}".rstrip(". ") + ".", ""]
    lines += ["| option | what it is |", "|---|---|"]
    lines += [f"| `{o.name}`{' (default)' if o.name == default else ''} | {_cell(o.head)} |" for o in options]
    if group == "experiment":  # they set keys of other groups, and have none of their own
        lines += ["", "What each asks, and what was measured: [experiments.md](experiments.md)."]
    else:
        lines += ["", _table(options, default=default).rstrip("\n")]
    return "\n".join(lines) + "\n"


def _table(options: Sequence[Option], *, default: str | None) -> str:
    """A row per key and meaning, in the order of the files."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for option in sorted(options, key=lambda o: -len(o.settings)):
        for key, setting in option.settings.items():
            rows.setdefault((key, setting.comment), {})[option.name] = setting.default
    order = list(dict.fromkeys(key for key, _ in rows))
    lines = ["| key | default | a value is | meaning |", "|---|---|---|---|"]
    for (key, comment), found in sorted(rows.items(), key=lambda row: order.index(row[0][0])):
        meaning = "" if comment == accepted(key, found) else comment
        cells = (_cell(accepted(key, found, or_null=True)), _cell(meaning))
        lines.append(f"| `{key}`{_only(found, options)} | {_values(found, first=default)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def accepted(key: str, found: Mapping[str, Any], *, or_null: bool = False) -> str:
    """What a value of a key may be, in words."""
    rule = rule_for(key, _usual(found))
    return rule.describe + (" or null" if or_null and rule.optional and rule.describe != "anything" else "")


def _only(found: Mapping[str, Any], options: Sequence[Option]) -> str:
    """Which options have a key, where not all do."""
    others = [option.name for option in options if option.name not in found]
    if not others:
        return ""
    return f" (all but {_names(others)})" if len(others) <= 2 < len(found) else f" ({_names(sorted(found))})"


def _usual(found: Mapping[str, Any]) -> Any:
    """The default that most options have; null, which says nothing about the kind, only where all have it."""
    values = [value for value in found.values() if value is not None] or [None]
    return max(values, key=lambda value: values.count(value))


def _values(found: Mapping[str, Any], *, first: str | None) -> str:
    """The default of the option that is taken when none is typed, or the usual one; the others with their options."""
    by_value: dict[str, list[str]] = {}
    for option, value in found.items():
        by_value.setdefault(_typed(value), []).append(option)
    usual, *others = sorted(by_value.items(), key=lambda item: (first not in item[1], -len(item[1])))
    return "; ".join([f"`{usual[0]}`", *(f"`{value}` ({_names(sorted(names))})" for value, names in others)])


def _typed(value: Any) -> str:
    """A value as it is typed."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(_typed, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}: {_typed(v)}" for key, v in value.items()) + "}"
    return str(value)


def _names(names: Sequence[str]) -> str:
    return ", ".join(names)


def _cell(text: str) -> str:
    """Text that stays inside of one cell of a table, whatever it holds."""
    text = re.sub(r"\s+", " ", text)
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
