"""Everything that can be found wrong with the jobs of a grid before the first of them starts, all at once.

Knows settings and the trial that a run begins with; reads no data.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence

from cvtrain.compose import JobComposer
from cvtrain.config import Config
from cvtrain.errors import ConfigError
from cvtrain.jobs.elsewhere import missing_for
from cvtrain.jobs.grid import alternatives, combinations, each_value_once, is_interval, key_of
from cvtrain.jobs.stream import Words
from cvtrain.sweeps.job_folder import PLACED_TASKS

_OF_OUR_LAUNCHER = ("sweep.jobs", "sweep.fail_fast", "sweep.job_timeout")
"""What `hydra/launcher=isolated` alone does for jobs."""

_OF_ALL_JOBS = ("name", "output_dir", "sweep", "tracker")
"""Settings of which one multirun has one value."""

_OF_HYDRA_BUT_OURS = {
    "hydra.sweep": "the folder of a sweep is output_dir=FOLDER sweep.name=NAME",
    "hydra.run": "the folder of a sweep is output_dir=FOLDER sweep.name=NAME",
    "hydra.output_subdir": "each job has a folder of its own",
    "hydra.job.chdir": "jobs stay in the folder where the command was typed",
    "hydra.mode": "type --multirun",
    "hydra.sweeper.params": "type KEY=VALUES without it",
}
"""Settings of Hydra's own that would have no effect, or a harmful one."""

_NUM_JOBS_AT_ONCE = 100
"""So many jobs are composed in a second or two; of more, each value is tried before the combinations are."""


def word_problems(words: Sequence[str], *, is_grid: bool) -> list[str]:
    """What is wrong with words that name no jobs.

    Args:
        words: As typed, without those of Hydra's own.
        is_grid: Whether every combination is a job; else they are searched.
    """
    problems = [
        f"{key_of(word)}: one multirun has one {key_of(word)}, for all its jobs"
        for word in words
        if key_of(word).partition(".")[0] in _OF_ALL_JOBS and len(alternatives(word)) > 1
    ]
    problems += [f"{word}: names no value" for word in words if not alternatives(word)]
    if is_grid:
        problems += [
            f"{word}: a range of real numbers can be searched (hydra/sweeper=search), not swept over"
            for word in words
            if is_interval(word)
        ]
    return problems


def hydra_problems(
    composer: JobComposer, words: Sequence[str], *, experiment: Sequence[str], launcher: str
) -> list[str]:
    """What is wrong with settings of Hydra's own.

    Args:
        composer: Of the command line.
        words: Of Hydra's own: `hydra/launcher=joblib`, `hydra.launcher.n_jobs=2`.
        experiment: The word that chooses one, which may choose a sweeper too.
        launcher: That is chosen; what it lacks is told elsewhere, and its settings are not known then.
    """
    if missing_for(launcher):
        words = [word for word in words if not key_of(word).startswith(("hydra/launcher", "hydra.launcher."))]
    ours = {word: _ours(key_of(word)) for word in words}
    problems = [f"{word}: {what_to_type}" for word, what_to_type in ours.items() if what_to_type]
    return problems + composer.hydra_problems([word for word in words if not ours[word]], experiment=experiment)


def _ours(key: str) -> str | None:
    return next((words for ours, words in _OF_HYDRA_BUT_OURS.items() if f"{key}.".startswith(f"{ours}.")), None)


def compose_grid(composer: JobComposer, words: Sequence[str], *, is_grid: bool) -> dict[Words, Config]:
    """The settings of every job of a grid; for a search, of jobs that have every value that it may start from.

    Raises:
        ConfigError: The problems of all jobs, each once.
    """
    some = list(each_value_once(words))
    if not is_grid:
        return compose_jobs(composer, some)
    jobs = combinations(words)
    if len(jobs) > _NUM_JOBS_AT_ONCE:
        compose_jobs(composer, some)
    return compose_jobs(composer, jobs)


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
            check(config, trains=config["task"] in PLACED_TASKS)
        except ConfigError as error:
            problems += error.lines()
    return list(dict.fromkeys(problems))


def launcher_problems(configs: Collection[Config], launcher: str) -> list[str]:
    """What a launcher lacks, cannot start, or would take no notice of."""
    problems = [missing] if (missing := missing_for(launcher)) else []
    if not launcher.startswith("submitit") and any(config["trainer"].get("distributed") for config in configs):
        problems.append(
            "trainer=ddp: a job of a multirun is one process; run it alone:"
            " torchrun --nproc-per-node N -m cvtrain trainer=ddp ..., or let hydra/launcher=submitit_slurm"
            " hydra.launcher.tasks_per_node=N start its processes"
        )
    if launcher != "isolated":
        typed = {key for config in configs for key in config["typed"] if not _is_of_task(key, config)}
        problems += [
            f"{key} is for hydra/launcher=isolated; {launcher} has hydra.launcher settings instead, see docs/sweeps.md"
            for key in sorted(typed & set(_OF_OUR_LAUNCHER))
        ]
    return problems


def _is_of_task(key: str, config: Config) -> bool:
    """Whether a setting is one of a sample-size sweep, which has trainings of its own."""
    return key == "sweep.jobs" and config["task"] == "sample_size_sweep"


def _combination(config: Config) -> str:
    """What a trial depends on: neither seeds nor the learning rate."""
    parts = {group: config.get(group) for group in ("task", "data", "augment", "model", "loss", "scheduler", "trainer")}
    optimizer = {key: value for key, value in config["optimizer"].items() if key != "lr"}
    return json.dumps({**parts, "optimizer": optimizer, "plugins": config["plugins"]}, sort_keys=True, default=str)
