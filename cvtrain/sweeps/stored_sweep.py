"""A sweep as its folder tells it, whoever is at work in it: the jobs, what was typed, what a search has tried.

Knows files; neither processes nor what is made of the figures. Looks only: nothing in the folder is changed, and what
is damaged or half written leaves a job that says so.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvtrain.sweeps import leaderboard
from cvtrain.sweeps.job_folder import JobFolder, JobRecord
from cvtrain.sweeps.leaderboard import Job, JobResult


@dataclass(frozen=True)
class StoredJob:
    """One job of a sweep.

    Args:
        name: Of its folder; None while it waits.
        result: As a row of the leaderboard.
        exit_code: None unless it has ended.
    """

    name: str | None
    result: JobResult
    exit_code: int | None = None


@dataclass(frozen=True)
class StoredSweep:
    """What a folder says of a sweep.

    Args:
        path: Of the folder.
        settings: Words that were typed, secrets masked; none where `sweep.json` is gone or damaged.
        has_secrets: Whether something is masked.
        config_dir: The folder of the user's own configs.
        swept: The keys that differ between jobs, but for `seed`.
        jobs: Those that were begun, by the names of their folders, then those that wait.
        search: The content of `search.json`; None where no search chose the jobs.
    """

    path: Path
    settings: tuple[str, ...]
    has_secrets: bool
    config_dir: str | None
    swept: tuple[str, ...]
    jobs: tuple[StoredJob, ...]
    search: Mapping[str, Any] | None

    @property
    def results(self) -> list[JobResult]:
        """The jobs as rows."""
        return [job.result for job in self.jobs]


def is_sweep(path: Path) -> bool:
    """Whether a folder is that of a sweep, which may have lost the file that says so."""
    return (path / "sweep.json").is_file() or next(path.glob("*/job.json"), None) is not None


def read_sweep(path: Path) -> StoredSweep:
    """Reads the folder of a sweep.

    Raises:
        OSError: The folder itself cannot be read.
    """
    begun = [_stored_job(JobFolder(job.parent)) for job in sorted(path.glob("*/job.json"))]
    header, rows = _table(path / "leaderboard.csv")
    results = [job.result for job in begun]
    keys = header[: header.index("seed")] if "seed" in header else leaderboard.swept_keys(results)
    swept = tuple(key for key in keys if key != "seed")
    known = {_identity(result.overrides, result.seed, swept) for result in results}
    waiting = [
        result for result in _waiting(rows, swept) if _identity(result.overrides, result.seed, swept) not in known
    ]
    command, search = read_json(path / "sweep.json"), read_json(path / "search.json")
    settings, config_dir = command.get("settings"), command.get("config_dir")
    return StoredSweep(
        path=path,
        settings=tuple(map(str, settings)) if isinstance(settings, list) else (),
        has_secrets=bool(command.get("has_secrets")),
        config_dir=config_dir if isinstance(config_dir, str) else None,
        swept=swept,
        jobs=(*begun, *(StoredJob(None, result) for result in waiting)),
        search=search if search else None,
    )


def read_result(folder: JobFolder) -> JobResult:
    """A job as a row of the leaderboard."""
    return _stored_job(folder).result


def _stored_job(folder: JobFolder) -> StoredJob:
    record, state = folder.read(), folder.state()
    is_damaged = record is None and state != "running"
    record = record or JobRecord({}, error="job.json is damaged" if is_damaged else None)
    exit_code = record.exit_code if state in ("done", "failed", "pruned") else None
    run_dir = folder.path if (folder.path / "run.json").is_file() else None
    job = Job(record.overrides, run_dir, exit_code, error=record.error, status=state)
    (result,) = leaderboard.read_jobs([job])
    return StoredJob(folder.path.name, result, exit_code)


def _identity(overrides: Mapping[str, str], seed: int | None, swept: Sequence[str]) -> tuple[Any, ...]:
    return (*(overrides.get(key, "") for key in swept), seed)


def _waiting(rows: Sequence[Mapping[str, str]], swept: Sequence[str]) -> list[JobResult]:
    """The jobs that were not begun when the leaderboard was last written."""
    found = []
    for row in rows:
        if row.get("status") == "waiting":
            overrides = {key: row[key] for key in (*swept, "seed") if row.get(key)}
            found += leaderboard.read_jobs([Job(overrides, None, None)])
    return found


def _table(path: Path) -> tuple[list[str], list[dict[str, str]]]:
    """The header and the rows of a CSV file; nothing where it is gone or damaged."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            return list(reader.fieldnames or ()), list(reader)
    except (OSError, ValueError, csv.Error):
        return [], []


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file holds; nothing where it is gone, damaged, or holds no object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
