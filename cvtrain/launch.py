"""Whether the processes that a launcher has started suit what is to be done, and how to start them.

Knows settings as plain dictionaries and the environment; not torch, nor how processes work together.
"""

from __future__ import annotations

from pathlib import Path

from cvtrain.config import Config
from cvtrain.engine.distributed.rank import Rank, launch_command, rank_from_environment
from cvtrain.errors import ConfigError

_EXAMPLE = "torchrun --nproc-per-node 2 -m cvtrain"


def is_shared(config: Config) -> bool:
    """Whether settings ask for several processes that train one model."""
    return bool(config["trainer"].get("distributed", False))  # settings of earlier versions have no such key


def check_launch(config: Config) -> Rank | None:
    """Which of several processes this one is; None where it works alone.

    Raises:
        ConfigError: There are several and the settings are for one, or the other way round; a batch is too small.
    """
    rank, started = rank_from_environment(), _is_launched()
    if is_shared(config) and config["task"] != "train":
        raise ConfigError(f"trainer=ddp is for task=train; task={config['task']} works in one process: leave it out")
    if is_shared(config) and not started:
        raise ConfigError("trainer=ddp needs several processes", hint=f"type: {_words(config)}")
    if rank is None:
        return None
    if config["task"] != "train":
        raise ConfigError(f"{rank.size} processes were started, and task={config['task']} is for one: type cvtrain ...")
    if not is_shared(config):
        raise ConfigError(
            f"{rank.size} processes were started, and each would train the same",
            hint="add trainer=ddp to train one model with all of them, or start one process: cvtrain ...",
        )
    batch_size = config["trainer"]["batch_size"]
    if batch_size < rank.size:
        raise ConfigError(
            f"trainer.batch_size={batch_size} is the batch of all processes together, and there are {rank.size}",
            hint=f"type trainer.batch_size={rank.size} or more, or start fewer processes",
        )
    return rank


def refuse_several(what: str) -> None:
    """Refuses what starts processes of its own.

    Raises:
        ConfigError: This is one of several processes.
    """
    rank = rank_from_environment()
    if rank is not None:
        raise ConfigError(f"{rank.size} processes were started, and {what} starts its own: type cvtrain ...")


def resume_command(run: Path, rank: Rank | None) -> str:
    """What goes on with a run in as many processes as now."""
    if rank is None:
        return f"cvtrain resume={run}"
    nodes = rank.size // rank.local_size
    return f"{launch_command(rank.local_size, num_machines=nodes)} resume={run}"


def _is_launched() -> bool:
    import os

    return bool(os.environ.get("RANK") and os.environ.get("WORLD_SIZE"))


def _words(config: Config) -> str:
    if config["resume"] is not None:
        return f"{_EXAMPLE} resume={config['resume']}, or go on in one process: trainer.distributed=false"
    return f"{_EXAMPLE} trainer=ddp ..."
