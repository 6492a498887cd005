"""The leaderboard of a sweep as a table that can be sorted, and the names that its jobs have on a page.

Knows jobs as rows; neither files nor what a good result is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cvtrain.report.page_parts import Cell, Column
from cvtrain.report.words import NOTHING, Kind
from cvtrain.sweeps.leaderboard import JobResult, merit
from cvtrain.sweeps.stored_sweep import StoredJob, StoredSweep

_FIGURES: dict[str, tuple[str, Kind, str]] = {
    "best_epoch": ("best epoch", "number", "Of the weights that were tested."),
    "val_accuracy": ("validation", "percent", "Accuracy of those weights."),
    "test_accuracy": ("test", "percent", "Accuracy; choose nothing by it."),
    "seconds": ("time", "seconds", "Of the whole job."),
    "images_per_second": ("images/s", "count", "In training."),
    "num_parameters": ("parameters", "count", ""),
}
_TONES = {"done": "good", "failed": "bad", "damaged": "bad"}


@dataclass(frozen=True)
class JobNames:
    """How the jobs of a sweep are called where there is little room: `adam lr=0.1 seed=3`.

    Args:
        swept: The keys that differ between jobs.
        names_seeds: Whether jobs differ in their seeds.
    """

    swept: Sequence[str]
    names_seeds: bool

    def arm(self, result: JobResult) -> str:
        """What a job shares with those that differ from it in their seeds alone."""
        keys = [key for key in self.swept if key.rpartition(".")[2] != "seed"]
        return brief_words({key: result.overrides[key] for key in keys if key in result.overrides}) or "all jobs"

    def job(self, result: JobResult) -> str:
        """What tells a job from the others."""
        if not result.overrides:
            return "a job without settings"
        seed = f"seed={result.seed}" if self.names_seeds and result.seed is not None else ""
        arm = self.arm(result)
        return seed if seed and arm == "all jobs" else " ".join(filter(None, (arm, seed)))


def brief_words(settings: Mapping[str, str]) -> str:
    """`sgd lr=0.1` for `optimizer=sgd optimizer.lr=0.1`; a key whose last part others have too is written out."""
    lasts = [key.rpartition(".")[2] for key in settings]
    return " ".join(
        word if "." not in key and word[:1].isalpha() else f"{last if lasts.count(last) == 1 else key}={word}"
        for (key, word), last in zip(settings.items(), lasts, strict=True)
    )


def names_of(sweep: StoredSweep) -> JobNames:
    """How the jobs of a sweep are called."""
    return JobNames(sweep.swept, len({result.seed for result in sweep.results}) > 1)


def leaderboard_table(sweep: StoredSweep) -> tuple[list[Column], list[list[object]]]:
    """Columns and a row for each job, best validation accuracy first, as in `leaderboard.csv`."""
    ranked = sorted(sweep.jobs, key=lambda job: -merit(job.result))
    figures = [name for name in _FIGURES if any(getattr(job.result, name) is not None for job in sweep.jobs)]
    keys = [_key_column(key, sweep.jobs) for key in sweep.swept]
    columns = [
        Column("job", "text", "Leads to the report of the job."),
        *keys,
        Column("seed", "number"),
        Column("status"),
        *(Column(*_FIGURES[name]) for name in figures),
    ]
    return columns, [_row(sweep, job, keys, figures) for job in ranked]


def _key_column(key: str, jobs: Sequence[StoredJob]) -> Column:
    words = [word for job in jobs if (word := job.result.overrides.get(key)) is not None]
    return Column(key, "number" if words and all(_number(word) is not None for word in words) else "text")


def _row(sweep: StoredSweep, job: StoredJob, keys: Sequence[Column], figures: Sequence[str]) -> list[object]:
    result = job.result
    has_page = job.name is not None and (sweep.path / job.name / "report.html").is_file()
    return [
        Cell((job.name or NOTHING)[:8], path=f"{job.name}/report.html" if has_page else ""),
        *(_word_cell(result.overrides.get(column.name), column) for column in keys),
        result.seed,
        Cell(result.status, tone=_TONES.get(result.status, "")),
        *(getattr(result, name) for name in figures),
    ]


def _word_cell(word: str | None, column: Column) -> Cell | None:
    """A word as it was typed, sorted by its value where it is a number."""
    return None if word is None else Cell(word, _number(word) if column.is_number else None)


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None
