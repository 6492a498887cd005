"""What was typed when a sweep was begun that is to go on.

Knows words and the folder of a sweep. What a folder says may come from anyone, so code that it names is typed anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cvtrain.arguments import parse_arguments
from cvtrain.errors import ConfigError
from cvtrain.jobs.grid import key_of
from cvtrain.jobs.ledger import Ledger
from cvtrain.sweeps.command import command_again, has_to_be_typed
from cvtrain.sweeps.stored_sweep import is_sweep


@dataclass(frozen=True)
class TypedBefore:
    """A command line.

    Args:
        words: Without the program's name.
        folder: Of the sweep.
    """

    words: tuple[str, ...]
    folder: Path


def typed_before(arguments: Sequence[str]) -> TypedBefore | None:
    """What was typed to begin the sweep whose folder `resume=` names; None where it names none.

    Raises:
        CheckpointError: It cannot be read.
        ConfigError: It held secrets, which are not written down, or code that is not named again; or it is to be
            changed.
    """
    typed = parse_arguments([word for word in arguments if word not in ("--multirun", "-m")])
    named = [word.partition("=")[2].strip("'\"") for word in typed.settings if word.startswith("resume=")]
    if not named or not is_sweep(Path(named[-1]).expanduser()):
        return None
    folder = Path(named[-1]).expanduser()
    command = Ledger(folder).read_command()
    anew = f"type its command again, with sweep.name={folder.name}"
    if command.has_secrets:
        raise ConfigError(f"{folder} was begun with a password or a key, which is not written down", hint=anew)
    more = [word for word in typed.settings if not word.startswith("resume=")]
    if code := [word for word in command.settings if has_to_be_typed(word) and word not in more]:
        raise ConfigError(
            [f"{word[:200]}: is read from {folder}, and has to be typed" for word in code],
            hint=f"if this sweep is your own: {command_again(folder, command.settings)[:400]}",
        )
    if other := [word for word in more if not key_of(word).startswith("sweep.") and word not in command.settings]:
        raise ConfigError(
            [f"{word}: resume= of a sweep takes settings of sweep alone" for word in other],
            hint=f"type its command again, changed, with sweep.name={folder.name}",
        )
    typed_keys = {key_of(word) for word in more}
    kept = [word for word in command.settings if key_of(word) not in typed_keys]
    configs = ["--config-dir", command.config_dir] if command.config_dir else []
    return TypedBefore((*configs, "--config-name", command.config_name, *kept, *more), folder)
