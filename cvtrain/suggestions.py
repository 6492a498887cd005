"""Words for names that do not exist (keys, options, flags, variables), with what was probably meant.

Knows names only, not what they stand for.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known word most like `word`, or None when none comes close."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return found[0] if found else None


def probable_key(key: str, known: list[str]) -> str | None:
    """The known key that was probably meant: a sibling, a key of the same name elsewhere, or one that looks alike."""
    node, _, name = key.rpartition(".")
    siblings = [k for k in known if k.rpartition(".")[0] == node]
    match = nearest(name, [k.rpartition(".")[2] for k in siblings])
    if match:
        return f"{node}.{match}" if node else match
    same_name = [k for k in known if k.rpartition(".")[2] == name]
    return same_name[0] if same_name else nearest(key, known)


def unknown_key(key: str, known: list[str]) -> str:
    """The sentence for a key that does not exist, with the key that was probably meant."""
    match = probable_key(key, known)
    if match:
        return f"unknown key {key}: did you mean {match}?"
    node = key.rpartition(".")[0]
    siblings = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == node]
    if node and siblings:
        return f"unknown key {key}: {node} has {', '.join(siblings)}"
    return f"unknown key {key}: cvtrain --cfg job shows all keys"


def unknown_option(group: str, option: str, options: Sequence[str]) -> str:
    """The sentence for an option that does not exist, with the nearest and all there are."""
    match = nearest(option, options, cutoff=0.5)
    meant = f"did you mean {group}={match}? " if match else ""
    return f"unknown option {group}={option}: {meant}There are {', '.join(options)}"


def unknown_flag(flag: str, value: str, keys: list[str], flags: Sequence[str]) -> str:
    """The sentence for a flag that does not exist: another flag was meant, or a setting."""
    other = nearest(flag, [f for f in flags if f.startswith("--")], cutoff=0.75)
    if other:
        return f"unknown flag {flag}: did you mean {other}?"
    match = probable_key(flag.lstrip("-").replace("-", "_"), keys)
    meant = f"did you mean {match}={value or 'VALUE'}?" if match else "settings are written GROUP.KEY=VALUE"
    return f"unknown flag {flag}: {meant}"


def no_value(word: str, options: Mapping[str, Sequence[str]], keys: list[str]) -> str:
    """The sentence for a word without `=`: an option whose group was left out, or a key without its value."""
    for group, names in options.items():
        if word in names:
            return f"{word}: did you mean {group}={word}?"
    return f"{word}: a setting is written {probable_key(word, [*options, *keys]) or 'KEY'}=VALUE"


def unresolved(key: str, written: Any, error: BaseException) -> str:
    """The sentence for a value that is to be filled in, or refers to what is not there."""
    if written == "???":
        return f"{key}: is needed; type {key}=VALUE"
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    if match := re.search(r"\$\{oc\.env:.*", reason):
        reason = match[0].rstrip("'")
    elif match := re.search(r"Environment variable '([^']+)' not found", reason):
        reason = f"the environment variable {match[1]} is not set"
    elif match := re.search(r"Interpolation key '([^']+)' not found", reason):
        reason = f"there is no key {match[1]}"
    elif isinstance(error, RecursionError) or reason.startswith("Recursive"):
        reason = "it refers to itself"
    return f"{key}={written}: {reason}"


def no_environment(name: str) -> str:
    """The sentence for a variable of the environment that a config may not read."""
    return f'${{oc.env:{name}}} is not for configs; type KEY="${name}", or name the variable CVTRAIN_...'
