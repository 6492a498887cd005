"""The page of a sweep: what it shows, its leaderboard, its arms, the curves of its jobs, and the jobs that failed.

Knows the folder of a sweep and the template; neither how jobs are run nor when the page is made.
"""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvtrain.errors import CheckpointError
from cvtrain.outputs import RunDir
from cvtrain.pages import arm_charts, arm_views
from cvtrain.pages.arm_views import Headline
from cvtrain.pages.leaderboard_view import leaderboard_table, names_of
from cvtrain.pages.run_commands import command_for_page
from cvtrain.pages.run_curves import CurveCharts, RunCurve, curve_charts, read_curve
from cvtrain.pages.search_view import search_view
from cvtrain.report.page import PageTooLargeError, write_page
from cvtrain.report.words import percent
from cvtrain.sweeps.arms import arms_of
from cvtrain.sweeps.command import command_again
from cvtrain.sweeps.from_json import StoredComparison, comparison_from_json, stored
from cvtrain.sweeps.leaderboard import JobResult
from cvtrain.sweeps.stored_sweep import StoredJob, StoredSweep, read_json, read_sweep
from cvtrain.sweeps.verdict import compare

MAX_ARMS = 100
"""Of more arms the page does not compare all pairs, which takes seconds: `comparison.json` holds what they show."""

MAX_COMPARISON_BYTES = 20_000_000
"""Of 200 arms or so."""

MAX_FAILURES = 50

STATUSES = ("done", "running", "waiting", "stopped", "pruned", "failed")


@dataclass(frozen=True)
class Failure:
    """A job that is not done.

    Args:
        name: Of the job.
        status: How it stands.
        error: Why.
        exit_code: None where it did not end by itself.
        log: Path of its log, as seen from the page; nothing where there is none.
        command: What to type to run it alone.
    """

    name: str
    status: str
    error: str
    exit_code: int | None
    log: str
    command: str


def write_sweep_page(folder: Path) -> Path:
    """Makes the page of a sweep from its folder, finished or not, and replaces `report.html`.

    Raises:
        CheckpointError: The folder holds no sweep.
        OutputError: The disk is full or not writable.
    """
    folder = folder.expanduser().resolve()
    sweep = read_sweep(folder)
    if not sweep.jobs and not sweep.settings:
        raise CheckpointError(f"{folder} holds no sweep: there is neither a sweep.json nor a job in it")
    content = _content(sweep)
    try:
        return write_page(RunDir(folder).report_path, "sweep.html", **content)
    except PageTooLargeError:  # thousands of jobs with long words
        without = {"curves": CurveCharts((), (), ("The curves are left out: with them the page would be too large.",))}
        return write_page(RunDir(folder).report_path, "sweep.html", **(content | without))


def _content(sweep: StoredSweep) -> dict[str, Any]:
    comparison = _comparison(sweep)
    arms = comparison.arms if comparison else ()
    failures = _failures(sweep)
    return {
        "title": f"Sweep {sweep.path.name}",
        "again": command_for_page(sweep.path),
        "headline": _headline(sweep, comparison),
        "counts": _counts(sweep.results),
        "facts": [*_facts(sweep), *_facts_of_runs(sweep.jobs)],
        "sentences": list(comparison.sentences) if comparison else [],
        "remarks": _remarks(sweep, comparison),
        "search": search_view(sweep.search) if sweep.search else None,
        "leaderboard": leaderboard_table(sweep),
        "arms": arm_views.arms_table(arms) if len(arms) > 1 or comparison else None,
        "seeds_chart": arm_charts.seeds_chart(arms),
        "lr_chart": arm_charts.lr_chart(arms),
        "pairs": arm_views.pairs_table(comparison.pairs, best=arms[0].arm.name)
        if len(arms) > 2 and comparison
        else None,
        "cost_charts": arm_charts.cost_charts(arms),
        "costs": arm_views.costs_table(arms) if len(arms) > 1 else None,
        "curves": curve_charts(_curves(sweep)),
        "failures": failures[:MAX_FAILURES],
        "num_more_failures": max(0, len(failures) - MAX_FAILURES),
        "command": command_to_go_on(sweep),
        "typed": shlex.join(["cvtrain", "--multirun", *sweep.settings]) if sweep.settings else "",
    }


# ------------------------------------------------------------------------------------------------- what it shows


def _comparison(sweep: StoredSweep) -> StoredComparison | None:
    """The arms compared: read back where that was done with these very jobs, else done here; None for a search.

    The jobs of a search were chosen by what earlier ones reached, so that they are no arms.
    """
    if sweep.search:
        return None
    tried = [result for result in sweep.results if result.is_done or result.status != "done"]  # as at a sweep's end
    if len(tried) < 2 or not any(result.is_done for result in tried):
        return None
    comparison = _read_comparison(sweep.path / "comparison.json")
    if comparison and _identities(comparison.jobs) == _identities(tried):
        return comparison
    if len(arms_of(tried, swept=_swept(sweep))) > MAX_ARMS:
        return None
    return stored(compare(tried, swept=_swept(sweep)))


def _read_comparison(path: Path) -> StoredComparison | None:
    """What the end of a sweep has left; None where it is gone, damaged, or so large that reading it takes seconds."""
    try:
        is_small = path.stat().st_size <= MAX_COMPARISON_BYTES
        return comparison_from_json(read_json(path), path) if is_small else None
    except (OSError, CheckpointError):
        return None


def _swept(sweep: StoredSweep) -> tuple[str, ...]:
    return (*sweep.swept, "seed")


def _identities(results: Sequence[JobResult]) -> Counter[tuple[str | None, str, float | None]]:
    """What tells whether two lists are of the same jobs in the same state, wherever the folder is now."""
    return Counter(
        (result.run_dir.name if result.run_dir else None, result.status, result.test_accuracy) for result in results
    )


def _headline(sweep: StoredSweep, comparison: StoredComparison | None) -> Headline | None:
    """The best arm with its mean, or the best job of a search, by its validation accuracy; None without a result."""
    if comparison:
        return arm_views.headline(comparison, num_test=_num_test(sweep.jobs))
    able = [result for result in sweep.results if result.is_done and result.val_accuracy is not None]
    if not able:
        return None
    top = max(able, key=lambda result: result.val_accuracy or 0.0)
    is_chosen = len(able) > 1
    which = f"the best of {len(able)} jobs" if is_chosen else "one run"
    return Headline(
        figure=percent(top.val_accuracy),
        name=names_of(sweep).arm(top),
        words=f"validation accuracy, {which}; test {percent(top.test_accuracy)}",
        conclusion="Part of the best of many is luck: its test accuracy is the fairer figure." if is_chosen else "",
    )


def _counts(results: Sequence[JobResult]) -> list[tuple[str, int]]:
    """How many jobs there are in each state, those that are none left out."""
    counts = Counter(result.status for result in results)
    return [(status, counts[status]) for status in STATUSES if counts[status]]


def _facts(sweep: StoredSweep) -> list[tuple[str, str]]:
    """What differs between the jobs: the values of each key where there are few, else how many there are."""
    num_seeds = len({result.seed for result in sweep.results if result.seed is not None})
    values = [
        (key, list(dict.fromkeys(result.overrides.get(key, "default") for result in sweep.results)))
        for key in sweep.swept
    ]
    shown = [(key, ", ".join(words) if len(words) <= 8 else f"{len(words)} values") for key, words in values]
    return [*shown, *([("seeds", str(num_seeds))] if num_seeds > 1 else [])]


def _facts_of_runs(jobs: Sequence[StoredJob]) -> list[tuple[str, str]]:
    """Data and device of the first job that tells them: all share what is not swept."""
    card, num_test = _card_of_first(jobs), _num_test(jobs)
    named = [("data", card.get("data")), ("test images", num_test and f"{num_test:,}"), ("device", card.get("device"))]
    return [(name, str(value)) for name, value in named if value]


def _num_test(jobs: Sequence[StoredJob]) -> int | None:
    test = _card_of_first(jobs).get("test")
    num_images = test.get("num_images") if isinstance(test, Mapping) else None
    return num_images if isinstance(num_images, int) else None


def _card_of_first(jobs: Sequence[StoredJob]) -> dict[str, Any]:
    """The run card of the first job that is done."""
    run_dir = next((job.result.run_dir for job in jobs if job.result.is_done and job.result.run_dir), None)
    return RunDir(run_dir).read_card() if run_dir else {}


def _remarks(sweep: StoredSweep, comparison: StoredComparison | None) -> list[str]:
    """What makes the page less than it seems to be."""
    remarks = []
    num_open = sum(result.status in ("running", "waiting") for result in sweep.results)
    if num_open:
        remarks.append(f"{num_open} of {len(sweep.results)} jobs are not finished: figures and order may change.")
    if not sweep.settings:
        remarks.append("sweep.json is gone or damaged: what was typed is not known.")
    if comparison is None and not sweep.search and len(arms_of(sweep.results, swept=_swept(sweep))) > MAX_ARMS:
        remarks.append(
            f"More than {MAX_ARMS} arms: comparison.json, written when the sweep ends, holds what they show."
        )
    return remarks


# ------------------------------------------------------------------------------------------------- jobs


def _curves(sweep: StoredSweep) -> list[RunCurve]:
    """The curves of all jobs that were evaluated; jobs that differ in their seeds alone are one arm."""
    curves, names = [], names_of(sweep)
    for job in sweep.jobs:
        if job.result.run_dir is None:
            continue
        rank = -1.0 if job.result.val_accuracy is None else job.result.val_accuracy
        curve = read_curve(job.result.run_dir, name=names.job(job.result), arm=names.arm(job.result), rank=rank)
        curves += [curve] if curve else []
    return curves


def _failures(sweep: StoredSweep) -> list[Failure]:
    names = names_of(sweep)
    lost = [job for job in sweep.jobs if job.result.status in ("failed", "stopped") or job.result.error]
    return [
        Failure(
            name=names.job(job.result),
            status=job.result.status,
            error=job.result.error or "no reason given",
            exit_code=job.exit_code,
            log=f"{job.name}/log.txt" if job.name and (sweep.path / job.name / "log.txt").is_file() else "",
            command=command_alone(sweep, job.result),
        )
        for job in lost
    ]


# ------------------------------------------------------------------------------------------------- commands


def command_to_go_on(sweep: StoredSweep) -> str:
    """What runs the jobs that are not done, failed ones once more; nothing where what was typed is not known."""
    if not sweep.settings or sweep.has_secrets:
        return ""
    again = " sweep.retry_failed=true" if "sweep.retry_failed=false" in sweep.settings else ""
    return command_again(sweep.path, sweep.settings) + again


def command_alone(sweep: StoredSweep, result: JobResult) -> str:
    """What trains a job of a sweep by itself, in a new folder."""
    own = [f"{key}={word}" for key, word in result.overrides.items() if not key.startswith(("sweep.", "hydra"))]
    flags = ["--config-dir", sweep.config_dir] if sweep.config_dir else []
    return shlex.join(["cvtrain", *flags, *own])
