"""Where settings come from that nobody typed: which file and line, or whose default.

Asked only when something is wrong. Knows config files and the sentences of problems; not how files are composed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from cvtrain import schema
from cvtrain.config_file import key_lines, shown_path
from cvtrain.errors import ConfigError

_MAX_NAMED = 2
_HEAD = re.compile(r"(?:unknown key )?'?(?P<key>[A-Za-z_]\w*(?:\.\w+)*)'?(?=: | stands in a file|=.*: )")
_KEY = re.compile(r"(?<![\w.=/])(?:[a-z_]\w*(?:\.\w+)+|[a-z_]+(?==))")


@dataclass(frozen=True)
class Part:
    """A file that settings were composed of.

    Args:
        path: Where it lies.
        package: The dotted name that its keys lie below; empty where they lie at the top.
        option: `group/option`, or the name of a root config.
        is_packaged: Whether it came with cvtrain.
    """

    path: Path
    package: str
    option: str
    is_packaged: bool


class Origins:
    """Finds the file that set a value last.

    Args:
        parts: The files, later ones win.
        typed: Keys and groups of the command line, which need no explanation.
        settings: What all was composed to.
    """

    def __init__(self, parts: Sequence[Part], *, typed: Collection[str], settings: schema.Settings) -> None:
        self._parts, self._typed, self._settings = parts, typed, settings
        self._lines: dict[Path, dict[str, int]] = {}

    def of(self, key: str) -> str | None:
        """In words, where a key got its value; None where it was typed, or nobody can tell."""
        names = key.split(".")
        above = {".".join(names[:i]) for i in range(min(2, len(names)), len(names) + 1)}
        if any(each in above or each.startswith(f"{key}.") for each in self._typed):
            return None
        for part in reversed(self._parts):
            line = self._line(part, key)
            if line is None:
                continue
            if not part.is_packaged:
                return f"{shown_path(part.path)}, line {line}"
            group, _, option = part.option.rpartition("/")
            if group:
                return f"experiment={option}" if group == "experiment" else f"the default of {group}={option}"
        return None

    def located(self, problem: str) -> str:
        """A sentence about settings, with where those come from that were not typed."""
        if head := _HEAD.match(problem):
            key, end = head["key"], head.end()
            found, value = schema.look_up(self._settings, key)
            if found and problem[end:].startswith(f"={schema.shown(value)}:"):
                end += len(f"={schema.shown(value)}")
            if words := self.of(key):
                return f"{problem} ({words})" if problem[end:].startswith("=") else _put(problem, at=end, words=words)
        return self._with_all_named(problem)

    def _with_all_named(self, problem: str) -> str:
        """The sentence, and after it where the settings that it speaks of come from."""
        named = []
        for key in dict.fromkeys(_KEY.findall(problem)):
            found, value = schema.look_up(self._settings, key)
            if found and value is not None and (origin := self.of(key)):
                named.append(f"{key}: {origin}")
        return f"{problem} ({'; '.join(named[:_MAX_NAMED])})" if named else problem

    def _line(self, part: Part, key: str) -> int | None:
        """The line of a part that sets a key, or sets at once all that it lies in; None where it does neither."""
        inside = key.removeprefix(f"{part.package}.") if part.package else key
        if part.package and inside == key:
            return None
        if part.path not in self._lines:
            try:
                text = part.path.read_text(encoding="utf-8-sig")
                self._lines[part.path] = key_lines(text, name=shown_path(part.path))
            except (ConfigError, OSError, ValueError):
                self._lines[part.path] = {}
        lines, names = self._lines[part.path], inside.split(".")
        above = [".".join(names[:i]) for i in range(len(names), 0, -1)]
        nearest = next((each for each in above if each in lines), None)
        is_whole = nearest == inside or not any(each.startswith(f"{nearest}.") for each in lines)
        return lines[nearest] if nearest and is_whole else None


def _put(problem: str, *, at: int, words: str) -> str:
    return f"{problem[:at]} ({words}){problem[at:]}"
