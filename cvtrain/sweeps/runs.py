"""Runs as their folders tell them, wherever they were made: by one command each, or as the jobs of a sweep.

Knows run folders, folders of sweeps and patterns of names; not how runs are compared.
"""

from __future__ import annotations

import glob
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvtrain.config import Config, load_config
from cvtrain.errors import CheckpointError
from cvtrain.sweeps.leaderboard import Job, JobResult, read_jobs

TAKES = "runs=[A,B] takes folders such as outputs/train/digits-lenet/<time> or outputs/sweeps/<name>"


@dataclass(frozen=True)
class StoredRun:
    """What a folder says of a training.

    Args:
        path: Of the folder, absolute.
        config: As it was saved.
        card: The run card; empty where there is none that can be read.
        job: What the sweep that it belongs to wrote of it in `job.json`; empty outside of sweeps.
    """

    path: Path
    config: Config
    card: Mapping[str, Any]
    job: Mapping[str, Any]

    def result(self, words: Mapping[str, str]) -> JobResult:
        """The run as a row of a table.

        Args:
            words: The settings that tell it from the others.
        """
        status = self.job.get("status")
        job = Job(
            overrides=words,
            run_dir=self.path,
            exit_code=self.card.get("exit_code"),
            error=self.job.get("error"),
            status=status if status in ("failed", "pruned") else None,
        )
        return read_jobs([job])[0]


@dataclass(frozen=True)
class FoundFolders:
    """Where runs were found.

    Args:
        named: Folders of runs, absolute, as often as they were named.
        num_not_begun: Jobs of sweeps that left no settings: they wait, or failed before they had any.
    """

    named: tuple[Path, ...]
    num_not_begun: int

    @property
    def runs(self) -> tuple[Path, ...]:
        """Each once."""
        return tuple(dict.fromkeys(self.named))

    @property
    def named_twice(self) -> tuple[Path, ...]:
        """Those that several names led to."""
        return tuple(path for path in self.runs if self.named.count(path) > 1)


def find_runs(names: Sequence[str]) -> FoundFolders:
    """The folders of runs that are named.

    Args:
        names: Each a run folder, a folder that holds run folders, such as that of a sweep, or a pattern of such names.

    Raises:
        CheckpointError: All names that lead to no run.
    """
    problems, found, num_not_begun = [], [], 0
    for name in names:
        paths = _expanded(name)
        runs = [run.resolve() for path in paths for run in _runs_in(path)]
        if not runs:
            problems.append(_no_run(name, paths))
        found += runs
        num_not_begun += sum(len(_not_begun(path)) for path in paths)
    if problems:
        raise CheckpointError("\n".join(problems), hint=TAKES)
    return FoundFolders(tuple(found), num_not_begun)


def _expanded(name: str) -> list[Path]:
    """The folder of that name, or those that it is a pattern of."""
    path = Path(name).expanduser()
    if path.is_dir() or not glob.has_magic(name):
        return [path]
    return [Path(match) for match in sorted(glob.glob(str(path))) if Path(match).is_dir()]


def _runs_in(path: Path) -> list[Path]:
    """The folder itself where it is that of a run, else those that it holds."""
    if (path / "config.yaml").is_file():
        return [path]
    return sorted(config.parent for config in path.glob("*/config.yaml"))


def _not_begun(path: Path) -> list[Path]:
    return [job.parent for job in path.glob("*/job.json") if not (job.parent / "config.yaml").is_file()]


def _no_run(name: str, paths: Sequence[Path]) -> str:
    if not paths:
        return f"{name}: no folder has such a name"
    if not any(path.is_dir() for path in paths):
        return f"{name}: there is no such folder"
    return f"{name} holds no run: there is no config.yaml in it, nor in its folders"


def read_runs(paths: Sequence[Path]) -> list[StoredRun]:
    """Reads trainings.

    Args:
        paths: From `find_runs`.

    Raises:
        CheckpointError: All folders that cannot be read, or hold another task than a training.
    """
    found, problems = [], []
    for path in paths:
        try:
            config = load_config(path)
        except CheckpointError as error:
            problems.append(error.message)
            continue
        if config.get("task") == "train":
            found.append(StoredRun(path, config, _plain(path / "run.json"), _plain(path / "job.json")))
        else:
            problems.append(f"{path} holds a run of task={config.get('task')}, no training")
    if problems:
        raise CheckpointError("\n".join(problems), hint=TAKES)
    return found


def _plain(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where it is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def are_sample_size_sweeps(paths: Sequence[Path]) -> bool:
    """Whether one of the folders at least is that of a sample-size sweep."""
    return any(load_config(path).get("task") == "sample_size_sweep" for path in paths)


def folder_name(name: str) -> str:
    """A name without what a path, or a word of a command line, must not hold."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("_.") or "_"
