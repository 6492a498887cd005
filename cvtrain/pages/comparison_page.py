"""The page of a comparison: what may be said of the arms, image by image where there are single models; their curves.

Knows the folder that `task=compare` makes, the folders of the runs, which may be gone, and the template.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cvtrain.errors import CheckpointError
from cvtrain.outputs import RunDir
from cvtrain.pages import arm_charts, arm_views
from cvtrain.pages.image_views import image_differences
from cvtrain.pages.leaderboard_view import JobNames
from cvtrain.pages.run_commands import command_for_page
from cvtrain.pages.run_curves import RunCurve, curve_charts, read_curve
from cvtrain.report.page import write_page
from cvtrain.report.page_parts import Cell, Column
from cvtrain.sweeps.from_json import StoredComparison, comparison_from_json
from cvtrain.sweeps.leaderboard import JobResult
from cvtrain.sweeps.stored_sweep import read_json

MAX_ARMS_IN_COLUMNS = 5
"""Of more arms each has a row of settings instead of a column."""


def write_comparison_page(folder: Path) -> Path:
    """Makes the page of a comparison from its folder and replaces `report.html`.

    Raises:
        CheckpointError: The folder holds no comparison, or a damaged one.
        OutputError: The disk is full or not writable.
    """
    folder = folder.expanduser().resolve()
    path = folder / "comparison.json"
    plain = read_json(path)
    if not plain:
        raise CheckpointError(f"{path} is missing or damaged: there is nothing to show")
    if "sizes" in plain:
        from cvtrain.pages.study_comparison import write_study_comparison_page  # and what reads learning curves

        return write_study_comparison_page(folder, plain)
    comparison = comparison_from_json(plain, path)
    if not comparison.arms:
        raise CheckpointError(f"{path} is damaged: it names no arms")
    return write_page(RunDir(folder).report_path, "comparison.html", **_content(folder, plain, comparison))


def _content(folder: Path, plain: Mapping[str, Any], comparison: StoredComparison) -> dict[str, Any]:
    arms, best, num_test = comparison.arms, comparison.arms[0].arm.name, plain.get("num_test")
    return {
        "title": f"Comparison of {plain.get('model') or 'runs'} on {plain.get('data') or 'the same data'}",
        "again": command_for_page(folder),
        "headline": arm_views.headline(comparison, num_test=num_test if isinstance(num_test, int) else None),
        "facts": _facts(plain, comparison),
        "cautions": [*map(str, plain.get("warnings") or ()), *_gone(comparison.jobs)],
        "sentences": comparison.sentences,
        "arms": arm_views.arms_table(arms),
        "seeds_chart": None if comparison.image_pairs else arm_charts.seeds_chart(arms),
        "lr_chart": arm_charts.lr_chart(arms),
        "pairs": arm_views.pairs_table(comparison.pairs, best=best),
        "image_pairs": arm_views.image_pairs_table(comparison.image_pairs),
        "differences": image_differences(comparison),
        "settings": settings_table(comparison),
        "cost_charts": arm_charts.cost_charts(arms),
        "costs": arm_views.costs_table(arms),
        "curves": curve_charts(_curves(comparison)),
        "runs": _runs_table(folder, comparison),
    }


def _facts(plain: Mapping[str, Any], comparison: StoredComparison) -> list[tuple[str, str]]:
    jobs = comparison.jobs
    num_done = sum(job.is_done for job in jobs)
    facts = [
        ("arms", str(len(comparison.arms))),
        ("runs", str(len(jobs)) if num_done == len(jobs) else f"{num_done} of {len(jobs)} done"),
    ]
    num_test, classes = plain.get("num_test"), plain.get("class_names")
    if isinstance(num_test, int):
        facts.append(("test images", f"{num_test:,}"))
    if isinstance(classes, list):
        facts.append(("classes", str(len(classes))))
    return facts


def _gone(jobs: Sequence[JobResult]) -> list[str]:
    """A sentence on the runs whose folders are no longer there."""
    gone = [job.run_dir for job in jobs if job.run_dir and not job.run_dir.is_dir()]
    if not gone:
        return []
    what = (
        f"{gone[0]} is gone: its curve and its answers are"
        if len(gone) == 1
        else (f"{len(gone)} folders of runs, such as {gone[0]}, are gone: their curves and answers are")
    )
    return [f"{what} left out"]


def _names(comparison: StoredComparison) -> JobNames:
    jobs = comparison.jobs
    keys = dict.fromkeys(key for job in jobs for key in job.overrides if key != "seed")
    return JobNames(tuple(keys), names_seeds=len({job.seed for job in jobs}) > 1)


def _curves(comparison: StoredComparison) -> list[RunCurve]:
    curves, names = [], _names(comparison)
    for job in comparison.jobs:
        rank = -1.0 if job.val_accuracy is None else job.val_accuracy
        if job.run_dir:
            curve = read_curve(job.run_dir, name=names.job(job), arm=names.arm(job), rank=rank)
            curves += [curve] if curve else []
    return curves


def settings_table(comparison: StoredComparison) -> tuple[list[Column], list[list[object]]]:
    """The settings in which arms differ, and no others: of few arms each has a column, of many a row."""
    arms = [arm.arm for arm in comparison.arms]
    keys = list(dict.fromkeys(key for arm in arms for key in arm.settings))
    if len(arms) <= MAX_ARMS_IN_COLUMNS:
        columns = [Column("setting"), *(Column(f"arm {number}") for number in range(1, len(arms) + 1))]
        return columns, [[key, *(arm.settings.get(key, "") for arm in arms)] for key in keys]
    rows: list[list[object]] = [[arm.name, *(arm.settings.get(key, "") for key in keys)] for arm in arms]
    return [Column("arm"), *map(Column, keys)], rows


def _runs_table(folder: Path, comparison: StoredComparison) -> tuple[list[Column], list[list[object]]]:
    """Every run that was compared, with a link to its own page where there is one."""
    columns = [
        Column("run", "text", "Leads to the report of the run."),
        Column("arm"),
        Column("seed", "number"),
        Column("status"),
        Column("best epoch", "number"),
        Column("validation", "percent"),
        Column("test", "percent"),
        Column("time", "seconds"),
        Column("images/s", "count"),
        Column("parameters", "count"),
    ]
    rows: list[list[object]] = [
        [
            _run_cell(folder, job),
            arm.arm.name,
            job.seed,
            job.status if not job.error else f"{job.status}: {job.error}",
            job.best_epoch,
            job.val_accuracy,
            job.test_accuracy,
            job.seconds,
            job.images_per_second,
            job.num_parameters,
        ]
        for arm in comparison.arms
        for cell in arm.arm.cells
        for job in cell.jobs
    ]
    return columns, rows


def _run_cell(folder: Path, job: JobResult) -> Cell:
    if job.run_dir is None:
        return Cell("none")
    page = RunDir(job.run_dir).report_path
    return Cell(job.run_dir.name, path=os.path.relpath(page, folder) if page.is_file() else "")
