"""The page and the plots of a learning-rate range test, from what lies in its folder.

Knows the files of the folder and what a page shows; not how anything was measured.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvtrain.errors import CheckpointError
from cvtrain.outputs import RunDir
from cvtrain.pages.run_commands import command_for_page, command_to_reproduce, typed_value
from cvtrain.report.page import write_page
from cvtrain.report.range_test import range_test

TABLE_NAME, PAGE_NAME = "find_lr.csv", "report.html"
HEADER = ("repeat", "step", "lr", "loss", "smoothed")

KINDS = {
    "steepest": "where the loss falls fastest",
    "valley": "the middle of the fall",
    "stable": "a tenth of the largest stable lr",
}
"""What each suggestion is."""

_TASK_KEYS = ("task", "low", "high", "num_steps", "repeats", "name")


@dataclass(frozen=True)
class RangeTestFiles:
    """What the folder tells.

    Args:
        folder: Absolute.
        card: run.json.
        figures: Of it, those of the tests.
        curves: Of each test the learning rates, losses and smoothed losses.
    """

    folder: Path
    card: Mapping[str, Any]
    figures: Mapping[str, Any]
    curves: Sequence[tuple[list[float], list[float], list[float]]]


def read_find_lr(folder: Path) -> RangeTestFiles:
    """Reads the folder of a range test.

    Raises:
        CheckpointError: It holds none that has come to its end.
    """
    folder = folder.expanduser().resolve()
    card = RunDir(folder).read_card()
    try:
        figures = card["find_lr"]
        with open(folder / TABLE_NAME, encoding="utf-8", newline="") as file:
            rows = [tuple(float(row[name]) for name in HEADER) for row in csv.DictReader(file)]
        curves = [
            tuple([row[column] for row in rows if row[0] == repeat] for column in (2, 3, 4))
            for repeat in sorted({row[0] for row in rows})
        ]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{folder} holds no learning-rate range test that has ended: {error}") from None
    return RangeTestFiles(folder, card, figures, curves)  # type: ignore[arg-type]


def draw_find_lr(folder: Path) -> None:
    """Writes plots/find_lr.png and plots/find_lr.svg.

    Raises:
        CheckpointError: The folder holds no range test.
        OSError: They cannot be written.
    """
    files = read_find_lr(folder)
    named = {s["kind"]: s["lr"] for s in files.figures["suggestions"]}
    for suffix in ("png", "svg"):
        path = files.folder / "plots" / f"find_lr.{suffix}"
        range_test(path, files.curves, suggestions=named, title=title_of(files.card))


def write_find_lr_page(folder: Path) -> Path:
    """Writes report.html.

    Raises:
        CheckpointError: The folder holds no range test.
        OutputError: The page cannot be written.
    """
    files = read_find_lr(folder)
    card, figures = files.card, files.figures
    return write_page(
        files.folder / PAGE_NAME,
        "find_lr.html",
        title=f"Learning rates for {title_of(card)}",
        again=command_for_page(files.folder),
        columns=["where", "lr", *(["least to largest"] if figures["repeats"] > 1 else [])],
        suggestions=[suggestion_row(files, suggestion) for suggestion in figures["suggestions"]],
        advice=advice_of(figures["suggestions"]) if figures["suggestions"] else "",
        commands=list(dict.fromkeys(command_with(card, s["words"]) for s in figures["suggestions"])),
        notes=[*card.get("warnings", ()), *figures["notes"]],
        chart=chart_of(files),
        facts=facts_of(files),
        command=command_to_reproduce(card, {}),
    )


def title_of(card: Mapping[str, Any]) -> str:
    """Model and data."""
    return f"{card['model']} on {card['data']}"


def suggestion_row(files: RangeTestFiles, suggestion: Mapping[str, Any]) -> list[str]:
    """A row of the table of suggestions."""
    spread = [f"{suggestion['low']:.2g} to {suggestion['high']:.2g}"] if files.figures["repeats"] > 1 else []
    return [KINDS[suggestion["kind"]], f"{suggestion['lr']:.2g}", *spread]


def advice_of(suggestions: Sequence[Mapping[str, Any]]) -> str:
    """How far to trust suggestions, of which there is one at least."""
    stable = next((s["lr"] * 10 for s in suggestions if s["kind"] == "stable"), None)
    if stable is None:
        return "They are places to start from: try three times as much and as little too."
    return (
        f"They are careful. With a warm-up, as in scheduler=one_cycle, larger ones often do better: try"
        f" optimizer.lr={stable / 3:.2g} too, a third of the largest stable lr."
    )


def command_with(card: Mapping[str, Any], words: str) -> str:
    """The training that a suggestion is for, as it is typed."""
    rates = {word.partition("=")[0] for word in words.split()}
    typed = card.get("typed", {})
    kept = [f"{key}={typed_value(v)}" for key, v in typed.items() if key not in _TASK_KEYS and key not in rates]
    return " ".join(["cvtrain", *kept, words])


def chart_of(files: RangeTestFiles) -> Any:
    """The loss against the lr, with the suggestions."""
    from cvtrain.report.charts import Axis, Mark, Series, line_chart

    series = []
    for number, (lrs, losses, smoothed) in enumerate(files.curves):
        top = 2 * max(smoothed)
        name = "" if len(files.curves) == 1 else f", test {number + 1}"
        series.append(Series(f"measured{name}", lrs, [min(v, top) for v in losses], color=6, shown=not number))
        series.append(Series(f"smoothed{name}", lrs, smoothed, color=number % 6))
    return line_chart(
        series,
        title="Training loss against the learning rate",
        x=Axis("learning rate", log=True),
        y=Axis("loss"),
        marks=[Mark(s["lr"], s["kind"]) for s in files.figures["suggestions"]],
        wide=True,
    )


def facts_of(files: RangeTestFiles) -> list[tuple[str, Any]]:
    """What was tested, with what."""
    card, figures = files.card, files.figures
    taken = ", ".join(f"{len(lrs)}" for lrs, _, _ in files.curves)
    ends = [("It ended", figures["ends"][0] or "at its last step")] if len(files.curves) == 1 else []
    return [
        ("Optimizer", figures["optimizer"]),
        ("Range of lr", f"{figures['low']:.3g} to {figures['high']:.3g}"),
        ("Steps", f"{taken} of {figures['num_steps']}"),
        *ends,
        ("Batch size", figures["batch_size"]),
        ("Parameters", f"{card['num_parameters']:,}"),
        ("Training images", f"{sum(card['class_counts']):,}"),
        ("Computed on", f"{card['device']}, {card['precision']}"),
        ("Seed", card["seed"]),
    ]
