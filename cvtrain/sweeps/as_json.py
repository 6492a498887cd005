"""A comparison as JSON, for pages and programs: every figure that a table shows, and those that it has no room for.

Knows comparisons; neither where they are written nor how they are drawn.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cvtrain.plain_text import finite
from cvtrain.sweeps.arms import ArmResult, Cell
from cvtrain.sweeps.image_verdict import ImageComparisonResult
from cvtrain.sweeps.leaderboard import ENDINGS, FIGURES, JobResult
from cvtrain.sweeps.verdict import ComparisonResult


def comparison_json(
    comparison: ComparisonResult,
    results: Sequence[JobResult],
    *,
    images: ImageComparisonResult | None = None,
    about: Mapping[str, Any] | None = None,
) -> str:
    """The content of `comparison.json`; accuracies and differences are 0..1, what is not known is null.

        winner      the arm whose settings are better than all others, by seeds; null where none is shown to be
        jobs        how many there are by status
        arms        best first: words, verdict, test accuracy over seeds, difference from the best, cost, and for each
                    learning rate its runs; `is_chosen` marks the rate that validation chose
        pairs       all pairs of arms, over the seeds that both have
        images      all pairs of single models, over the same images; null unless each arm has one run
        sentences   what is said, in words

    Args:
        comparison: Of arms, over seeds.
        results: The jobs that were compared, and those that were not.
        images: Of models, over images, where there are single runs only.
        about: More keys of the caller's.
    """
    plain = {
        "kind": "runs",
        **(about or {}),
        "winner": comparison.winner,
        "jobs": dict(Counter(result.status for result in results)),
        "arms": [_arm(arm) for arm in comparison.arms],
        "pairs": [
            {"first": each.first, "second": each.second, **asdict(each.paired), "holm_p_value": each.p_value}
            for each in comparison.pairs
        ],
        "without_grid": list(comparison.without_grid),
        "images": _images(images),
        "sentences": list(images.sentences if images else comparison.sentences),
    }
    return json.dumps(finite(plain), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _arm(result: ArmResult) -> dict[str, Any]:
    arm = result.arm
    return {
        "name": arm.name,
        "settings": dict(arm.settings),
        "verdict": result.verdict,
        "lr": arm.chosen.lr if arm.chosen else None,
        "is_lr_at_edge": arm.is_chosen_at_edge,
        "test": asdict(result.test) if result.test else None,
        "below_the_best": asdict(result.difference) if result.difference else None,
        "holm_p_value": result.p_value,
        "cost": asdict(arm.chosen.cost) if arm.chosen else None,
        "time_share": result.time_share,
        "cells": [_cell(cell, is_chosen=cell is arm.chosen) for cell in arm.cells],
    }


def _cell(cell: Cell, *, is_chosen: bool) -> dict[str, Any]:
    runs = [_run(job) for job in cell.jobs]
    return {"lr": cell.lr, "is_chosen": is_chosen, "seed_keys": list(cell.seed_keys), "runs": runs}


def _run(job: JobResult) -> dict[str, Any]:
    names = ("seed", "split_hash", "status", *FIGURES, "device", *ENDINGS)
    return {
        "run": None if job.run_dir is None else str(job.run_dir),
        "words": dict(job.overrides),
        **{name: getattr(job, name) for name in names},
    }


def _images(images: ImageComparisonResult | None) -> dict[str, Any] | None:
    if images is None:
        return None
    return {
        "better": images.better,
        "verdicts": {arm.arm.name: arm.verdict for arm in images.arms},
        "pairs": [
            {"first": each.first, "second": each.second, **asdict(each.paired), "holm_p_value": each.p_value}
            for each in images.pairs
        ],
    }
