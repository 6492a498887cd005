"""Everything that can be found wrong with the jobs of a grid before the first of them starts, all at once.

Knows settings and the trial that a run begins with; reads no data.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from cvtrain.compose import JobComposer
from cvtrain.config import Config
from cvtrain.errors import ConfigError
from cvtrain.jobs.stream import Words

TRAINING_TASKS = ("train", "sample_size_sweep")


def compose_jobs(composer: JobComposer, jobs: Sequence[Words]) -> dict[Words, Config]:
    """The settings of every job.

    Raises:
        ConfigError: The problems of all jobs, each once.
    """
    found = composer.compose_all(jobs)
    problems = [problem for each in found if isinstance(each, ConfigError) for problem in each.lines()]
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)))
    return {words: each for words, each in zip(jobs, found, strict=True) if not isinstance(each, ConfigError)}


def distinct_configs(configs: Iterable[Config]) -> list[Config]:
    """One job of every combination of model, data, loss, optimizer and schedule."""
    return list({_combination(config): config for config in configs}.values())


def trial_problems(configs: Iterable[Config]) -> list[str]:
    """Makes model, loss, optimizer and schedule of every job on trial, where no numbers are.

    Returns:
        The problems of all, each once.
    """
    from cvtrain.check import check  # and torch, which a typing error need not wait for

    problems: list[str] = []
    for config in configs:
        try:
            check(config, trains=config["task"] in TRAINING_TASKS)
        except ConfigError as error:
            problems += error.lines()
    return list(dict.fromkeys(problems))


def launcher_problems(configs: Iterable[Config], launcher: str) -> list[str]:
    """What Hydra's launcher cannot start."""
    if launcher.startswith("submitit") or not any(config["trainer"].get("distributed") for config in configs):
        return []
    return [
        "trainer=ddp: a job of a multirun is one process; run it alone:"
        " torchrun --nproc-per-node N -m cvtrain trainer=ddp ..., or let hydra/launcher=submitit_slurm"
        " hydra.launcher.tasks_per_node=N start its processes"
    ]


def _combination(config: Config) -> str:
    """What a trial depends on: neither seeds nor the learning rate."""
    parts = {group: config.get(group) for group in ("task", "data", "augment", "model", "loss", "scheduler", "trainer")}
    optimizer = {key: value for key, value in config["optimizer"].items() if key != "lr"}
    return json.dumps({**parts, "optimizer": optimizer, "plugins": config["plugins"]}, sort_keys=True, default=str)
