"""The commands that make a run again, go on with it and use it, as one types them.

Knows settings and words; neither files nor pages.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cvtrain.config import Config

_PLAIN_TEXT = re.compile(r"[\w./~@:%+-]*\w[\w./~@:%+-]*", re.ASCII)
"""Text that the grammar of overrides takes as it is."""
_WORDS = ("null", "true", "false", "nan", "inf")
"""Those that it takes for something else."""


def command_to_reproduce(card: Mapping[str, Any], config: Config) -> str:
    """What starts the same run anew; a card of an older version tells which options were chosen, not what was typed."""
    typed = card.get("typed")
    if not isinstance(typed, Mapping):
        groups = ("data", "model", "augment", "loss", "optimizer", "scheduler", "trainer")
        choices = config.get("choices", {})
        typed = {group: choices[group] for group in groups if choices.get(group)} | {"seed": config.get("seed", 0)}
    task = [] if card.get("task", "train") == "train" else [f"task={card['task']}"]
    return shlex.join(["cvtrain", *task, *(f"{key}={typed_value(value)}" for key, value in typed.items())])


def commands_to_use(folder: Path, *, can_predict: bool) -> list[tuple[str, str]]:
    """What to type to use a trained model: what for, and the command."""
    found = [("Test it again, or on another split", f"cvtrain task=evaluate checkpoint={_word(folder)}")]
    if can_predict:
        found.insert(0, ("Classify pictures", f"cvtrain task=predict checkpoint={_word(folder)} input=PICTURES"))
    return found


def command_to_continue(folder: Path) -> str:
    """What goes on with a run that has not come to its end."""
    return f"cvtrain resume={_word(folder)}"


def command_for_page(folder: Path) -> str:
    """What makes the page again."""
    return f"cvtrain task=report run={_word(folder)}"


def _word(folder: Path) -> str:
    return shlex.quote(typed_value(str(folder)))


def typed_value(value: Any) -> str:
    """A value in the grammar of Hydra's overrides."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(typed_value, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{typed_value(item)}' for key, item in value.items())}}}"
    if isinstance(value, str):
        return _typed_text(value)
    return str(value)


def _typed_text(text: str) -> str:
    if _PLAIN_TEXT.fullmatch(text) and text.lower() not in _WORDS and not _is_number(text):
        return text
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    trailing = len(escaped) - len(escaped.rstrip("\\"))
    return f"'{escaped}{escaped[len(escaped) - trailing :]}'"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
