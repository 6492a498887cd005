"""The command that goes on with a sweep.

Knows words of command lines; neither what they set nor how jobs are run.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from cvtrain.hydra_settings import may_be_read_back


def command_again(folder: Path, settings: Sequence[str]) -> str:
    """The command that goes on with a sweep of these settings."""
    return shlex.join(["cvtrain", f"resume={folder}", *filter(has_to_be_typed, settings)])


def has_to_be_typed(word: str) -> bool:
    """Whether a word must not be taken from the file that it was written into."""
    key, _, value = word.lstrip("+~").partition("=")
    return not may_be_read_back(key, value)
