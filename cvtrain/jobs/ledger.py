"""The folder of a sweep: what was typed, a folder for each job, the leaderboard.

Knows files; neither processes nor what a job does.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cvtrain.config import masked
from cvtrain.errors import CheckpointError, OutputError
from cvtrain.outputs import RunDir, missing_folders, new_folder
from cvtrain.record import git_state, versions
from cvtrain.sweeps import leaderboard
from cvtrain.sweeps.job_folder import JobFolder, JobRecord
from cvtrain.sweeps.leaderboard import Job, JobResult
from cvtrain.sweeps.stored_sweep import read_result


@dataclass(frozen=True)
class Command:
    """The command line of a sweep, to be typed again.

    Args:
        settings: Words, secrets masked.
        config_dir: The folder of the user's own configs.
        config_name: The root config.
        has_secrets: Whether something is masked.
    """

    settings: Sequence[str]
    config_dir: str | None
    config_name: str
    has_secrets: bool


class Ledger:
    """A sweep as its folder tells it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._missing: list[Path] = []
        self.leaderboard_path = path / "leaderboard.csv"
        self.comparison_path = path / "comparison.json"
        self._command_path = path / "sweep.json"
        self._command_before: str | None = None
        self._results: dict[str, tuple[tuple[int, int, int], JobResult]] = {}

    @classmethod
    def open(cls, parent: Path, *, name: str | None, suffix: str | None = None) -> Ledger:
        """The folder of a sweep, made if it is not there; without a name a new one, named by the time.

        Raises:
            OutputError: It cannot be made or written.
        """
        missing = missing_folders(parent / (name or "new"))
        ledger = cls(new_folder(parent, suffix=suffix) if name is None else cls._made(parent, name))
        ledger._missing = [ledger.path, *missing[1:]] if missing else []
        return ledger

    @staticmethod
    def _made(parent: Path, name: str) -> Path:
        try:
            (parent / name).mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise OutputError(f"{parent / name} is no folder", hint="choose another sweep.name=NAME") from None
        except OSError as error:
            raise OutputError(
                f"cannot write to the output folder {parent}: {error.strerror}",
                hint="choose another one with output_dir=FOLDER",
            ) from None
        return parent / name

    def take_back_command(self) -> None:
        """Lets the command before stand again, after one of which no job could be run."""
        if self._command_before is not None:
            with contextlib.suppress(OutputError):
                RunDir(self.path).write_text(self._command_path, self._command_before)

    def discard_if_empty(self) -> None:
        """Removes a folder that was made for jobs which never started, and those above it that were made for it."""
        if self._missing and not self.folders():
            shutil.rmtree(self.path, ignore_errors=True)
            for folder in self._missing[1:]:
                with contextlib.suppress(OSError):  # another run has come to live there
                    folder.rmdir()

    def write_command(self, command: Command) -> None:
        """Notes what was typed.

        Raises:
            OutputError: The disk is full or not writable.
        """
        with contextlib.suppress(OSError, ValueError):
            self._command_before = self._command_path.read_text(encoding="utf-8")
        try:
            RunDir(self.path).write_text(self._command_path, json.dumps(asdict(command), indent=2) + "\n")
        except OutputError:
            self.discard_if_empty()
            raise

    def read_command(self) -> Command:
        """What was typed.

        Raises:
            CheckpointError: It cannot be read.
        """
        try:
            return Command(**json.loads(self._command_path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            raise CheckpointError(
                f"{self._command_path}, which holds the command of this sweep, is gone or damaged",
                hint=f"type the command again, with sweep.name={self.path.resolve().name}",
            ) from None

    def folder(self, config_hash: str) -> JobFolder:
        """The home of the job with such settings."""
        return JobFolder(self.path / config_hash[:16])

    def folders(self) -> list[JobFolder]:
        """The homes of all jobs that were ever begun here."""
        return [JobFolder(path.parent) for path in sorted(self.path.glob("*/job.json"))]

    def differences(self, names: Collection[str] | None) -> list[str]:
        """What jobs that are here already do not share with those of a command: its grid, the versions, the commit.

        Args:
            names: Folders of the command's jobs; None where a search decides.
        """
        records = {folder.path.name: record for folder in self.folders() if (record := folder.read())}
        done = [record for record in records.values() if record.status == "done"]
        others = [name for name in records if names is not None and name not in names]
        return [*_other_grid(self.path, records, others), *_other_versions(done), *_other_commits(done)]

    # -------------------------------------------------------------------------------------------- results

    def results(self, waiting: Mapping[str, Mapping[str, str]] | None = None) -> list[JobResult]:
        """Every job with its figures.

        Args:
            waiting: Words by key of jobs that may not have been begun, by the name of their folder.
        """
        found = {folder.path.name: self._result(folder) for folder in self.folders()}
        for name, overrides in (waiting or {}).items():
            if name in found:  # the words of this command, which may be others for the same settings
                found[name] = replace(found[name], overrides={k: str(masked(v, k)) for k, v in overrides.items()})
            else:
                found[name] = leaderboard.read_jobs([Job(overrides, None, None)])[0]
        ordered = [*(waiting or {}), *(name for name in found if name not in (waiting or {}))]
        return [found[name] for name in ordered]

    def _result(self, folder: JobFolder) -> JobResult:
        """Read anew only where something was written: a sweep has hundreds of jobs, and looks after each."""
        with contextlib.suppress(OSError):
            status = (folder.path / "job.json").stat()
            written = status.st_mtime_ns, status.st_ino, status.st_size  # a clock may tick once in milliseconds
            known = self._results.get(folder.path.name)
            if known and known[0] == written and known[1].status in ("done", "failed", "pruned"):
                return known[1]
            result = read_result(folder)
            self._results[folder.path.name] = (written, result)
            return result
        return read_result(folder)

    def write_leaderboard(self, results: Sequence[JobResult], *, swept: Collection[str] | None) -> None:
        """Replaces leaderboard.csv; only one process at a time does.

        Raises:
            OutputError: The disk is full or not writable.
        """
        try:
            lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise OutputError(f"cannot write to {self.path}: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            leaderboard.write_csv(self.leaderboard_path, results, swept=swept)
        finally:
            os.close(lock)


def _other_grid(path: Path, records: Mapping[str, JobRecord], others: Sequence[str]) -> list[str]:
    if not others:
        return []
    jobs = f"{len(others)} jobs" if len(others) > 1 else "a job"
    common = set.intersection(*(set(record.overrides.items()) for record in records.values()))
    words = [f"{key}={word}" for key, word in records[others[0]].overrides.items() if (key, word) not in common]
    return [f"{path} holds {jobs} of another grid" + (f", such as {' '.join(words)}" if words else "")]


def _other_versions(done: Sequence[JobRecord]) -> list[str]:
    found = []
    for package, now in versions().items():
        before = sorted({record.versions[package] for record in done if package in record.versions} - {now})
        if before:
            found.append(f"jobs of this sweep were run with {package} {', '.join(before)}; this is {now}")
    return found


def _other_commits(done: Sequence[JobRecord]) -> list[str]:
    git = git_state(Path.cwd())
    now = str(git["commit"])[:10] if git else ""
    before = sorted({str(record.git.get("commit"))[:10] for record in done if record.git} - {now})
    return [f"jobs of this sweep were run at commit {', '.join(before)}; this is {now}"] if now and before else []
