"""Which of several processes this one is, as `torchrun` and other launchers tell it in the environment.

Knows variables of the environment; neither torch nor how processes talk to each other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from cvtrain.errors import ConfigError

_NEEDED = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")


@dataclass(frozen=True)
class Rank:
    """One of the processes that train together.

    Args:
        number: 0 to `size - 1`; the first one alone writes and speaks.
        size: How many there are.
        local_number: Among those of this machine: which GPU it takes.
        local_size: How many there are on this machine.
    """

    number: int
    size: int
    local_number: int
    local_size: int

    @property
    def is_first(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.number == 0

    @property
    def leader(self) -> int:
        """The number of the first process of this machine; launchers number the processes of a machine in a row."""
        return self.number - self.local_number


def rank_from_environment(environment: Mapping[str, str] | None = None) -> Rank | None:
    """What a launcher says in RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT and, if told, LOCAL_WORLD_SIZE.

    Any launcher that exports them will do. Without LOCAL_WORLD_SIZE all processes are taken to be on one machine.

    Args:
        environment: None takes that of this process.

    Returns:
        None where this is the only process: no RANK and WORLD_SIZE, or WORLD_SIZE=1.

    Raises:
        ConfigError: A variable is missing or makes no sense.
    """
    environment = os.environ if environment is None else environment
    if not environment.get("RANK") or environment.get("WORLD_SIZE", "1") in ("", "1"):
        return None
    missing = [name for name in _NEEDED if not environment.get(name)]
    if missing:
        raise ConfigError(
            f"the launcher of these processes has set no {', '.join(missing)}",
            hint="start them with torchrun, or export " + " ".join(_NEEDED),
        )
    odd = [f"{name}={environment[name]}" for name in _NUMBERS if not environment[name].isdecimal()]
    if odd:
        raise ConfigError(f"the launcher of these processes has set {', '.join(odd)}, which must be whole numbers")
    number, size, local_number = (int(environment[name]) for name in _NUMBERS[:3])
    told = environment.get("LOCAL_WORLD_SIZE", "")
    local_size = int(told) if told.isdecimal() else size
    if number >= size or local_number >= local_size:
        raise ConfigError(
            f"the launcher of these processes says RANK={number} of WORLD_SIZE={size}"
            f" and LOCAL_RANK={local_number} of LOCAL_WORLD_SIZE={local_size}: ranks count from 0"
        )
    return Rank(number, size, local_number, local_size)


def launch_command(num_local: int, *, num_machines: int = 1) -> str:
    """How a command begins that so many processes work on together, on each of so many machines."""
    nodes = f"--nnodes {num_machines} " if num_machines > 1 else ""
    return f"torchrun {nodes}--nproc-per-node {num_local} -m cvtrain"
