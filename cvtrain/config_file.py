"""A config file as text: looked through before anything is made of it, for mistakes, size, and where each key stands.

Knows YAML and how much a config may hold; not what its keys mean.
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from cvtrain.errors import ConfigError

MAX_BYTES = 100_000
MAX_VALUES = 10_000
"""With aliases written out: nine lines of them can stand for billions."""
MAX_DEPTH = 30


def shown_path(path: Path) -> str:
    """A path as it is told: from the current folder where it lies in it."""
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def read_config_text(path: Path) -> str:
    """The text of a config file that can be made into settings.

    Raises:
        ConfigError: It cannot be read, is no YAML, or holds more than a config does; with line and column.
    """
    name = shown_path(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{name} cannot be read: {os.strerror(error.errno or 0)}") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{name} is larger than {MAX_BYTES // 1000} kB: that is no config")
    try:
        text = data.decode("utf-8-sig")  # the mark that some editors begin a file with would hide its first line
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{name}, line {line}: is not UTF-8 text; save the file as UTF-8") from None
    key_lines(text, name=name)
    return text


def key_lines(text: str, *, name: str) -> dict[str, int]:
    """The line of every key, by its dotted name; items of lists are numbered.

    Read as a stream of events, so that neither depth nor aliases cost more than their text.

    Raises:
        ConfigError: The text is no YAML, or holds more than a config does.
    """
    import yaml

    survey = _Survey(name)
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            survey.take(event, type(event).__name__)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        lines = text.splitlines()
        found = lines[mark.line] if mark and mark.line < len(lines) else ""
        tab = "; indent with spaces, not with tabs" if "\t" in found[: len(found) - len(found.lstrip())] else ""
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{name}{where}: is no YAML: {error.problem}{tab}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{name}: is no YAML: {str(error).splitlines()[0]}") from None
    return survey.lines


@dataclasses.dataclass
class _Node:
    """A list or a mapping that has begun and not ended.

    Args:
        path: Its dotted name.
        anchor: The name that aliases know it by.
        keys: Of a mapping, those that it has had; None of a list.
        key: The one whose value comes next.
        num_items: In it so far.
        num_values: In it so far, those in its items counted too.
    """

    path: str
    anchor: str | None
    keys: set[str] | None
    key: str | None = None
    num_items: int = 0
    num_values: int = 1

    def wants_key(self) -> bool:
        return self.keys is not None and self.key is None


class _Survey:
    """What is known of a file after some of its events."""

    def __init__(self, name: str) -> None:
        self.lines: dict[str, int] = {}
        self._name, self._open, self._num_documents = name, list[_Node](), 0
        self._num_values_of: dict[str, int] = {}

    def take(self, event: Any, kind: str) -> None:
        """Looks at the next event of the file."""
        if kind == "DocumentStartEvent":
            self._num_documents += 1
            if self._num_documents > 1:
                self._refuse(event, "a config is one document; --- begins another")
        elif kind == "ScalarEvent":
            self._scalar(event)
        elif kind == "AliasEvent":
            if event.anchor not in self._num_values_of:
                is_open = event.anchor in [node.anchor for node in self._open]
                self._refuse(event, f"*{event.anchor} {'refers to itself' if is_open else 'is no anchor above'}")
            self._add(event, self._num_values_of[event.anchor])
        elif kind in ("SequenceStartEvent", "MappingStartEvent"):
            self._begin(event, is_mapping=kind == "MappingStartEvent")
        elif kind in ("SequenceEndEvent", "MappingEndEvent"):
            node = self._open.pop()
            if node.anchor:
                self._num_values_of[node.anchor] = node.num_values
            self._add(event, node.num_values)

    def _scalar(self, event: Any) -> None:
        if not self._open and event.value:
            self._refuse(event, "a config is made of KEY: VALUE lines")
        if event.anchor:
            self._num_values_of[event.anchor] = 1
        node = self._open[-1] if self._open else None
        if node is None or node.keys is None or not node.wants_key():
            self._add(event, 1)
            return
        path = f"{node.path}.{event.value}" if node.path else event.value
        if event.value in node.keys:
            self._refuse(event, f"{path} stands there twice, first in line {self.lines.get(path)}")
        node.keys.add(event.value)
        node.key = event.value
        self.lines.setdefault(path, event.start_mark.line + 1)

    def _begin(self, event: Any, *, is_mapping: bool) -> None:
        above = self._open[-1] if self._open else None
        if above is None and not is_mapping:
            self._refuse(event, "a config is made of KEY: VALUE lines, and is no list")
        if above is not None and above.wants_key():
            self._refuse(event, "a key is a word")
        if len(self._open) >= MAX_DEPTH:
            self._refuse(event, f"is nested deeper than {MAX_DEPTH} levels")
        name = "" if above is None else above.key if above.keys is not None else str(above.num_items)
        path = f"{above.path}.{name}" if above and above.path else name or ""
        self._open.append(_Node(path, event.anchor, set() if is_mapping else None))

    def _add(self, event: Any, num_values: int) -> None:
        """Counts a value in the node that it lies in."""
        if not self._open:
            return
        node = self._open[-1]
        if node.wants_key():
            self._refuse(event, "a key is a word")
        node.key = None
        node.num_items += 1
        node.num_values += num_values
        if node.num_values > MAX_VALUES:
            self._refuse(event, f"holds more than {MAX_VALUES:,} values")

    def _refuse(self, event: Any, reason: str) -> None:
        mark = event.start_mark
        raise ConfigError(f"{self._name}, line {mark.line + 1}, column {mark.column + 1}: {reason}")
