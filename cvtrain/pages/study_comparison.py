"""The page of two sample-size sweeps beside each other: their curves, the differences size by size, the answers.

Knows the comparison that was made of them, their folders, which may be gone, and the template.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cvtrain.analysis.comparison import MeanResult
from cvtrain.errors import CheckpointError
from cvtrain.outputs import RunDir
from cvtrain.pages.arm_views import points_cell
from cvtrain.pages.curve_chart import curve_chart
from cvtrain.pages.run_commands import command_for_page
from cvtrain.pages.sample_size_views import named_curve
from cvtrain.report.charts import Axis, Mark, Series, point_chart
from cvtrain.report.compared_curves import NamedCurve
from cvtrain.report.curves import MeasuredSizes, SizeMark
from cvtrain.report.page import write_page
from cvtrain.report.page_parts import Cell, Column
from cvtrain.report.words import interval
from cvtrain.sweeps.sentences import p_word
from cvtrain.sweeps.stored_sweep import read_json

_VERDICTS = {
    "not_told_apart": "not distinguishable",
    "too_few_pairs": "too few pairs",
}


def write_study_comparison_page(folder: Path, plain: Mapping[str, Any]) -> Path:
    """Makes the page from the content of `comparison.json`.

    Raises:
        CheckpointError: It is damaged.
        OutputError: The disk is full or not writable.
    """
    try:
        content = _content(folder, plain)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"{folder / 'comparison.json'} is damaged: {type(error).__name__}: {error}"[:200]
        ) from None
    return write_page(RunDir(folder).report_path, "study_comparison.html", **content)


def _content(folder: Path, plain: Mapping[str, Any]) -> dict[str, Any]:
    first, second = map(str, plain["names"])
    card = RunDir(folder).read_card()
    curves = [
        _stored_curve(name, Path(run)) or _measured(name, plain["sizes"], which)
        for name, run, which in zip((first, second), plain["runs"], ("a", "b"), strict=True)
    ]
    gone = [str(run) for run in plain["runs"] if not Path(run).is_dir()]
    return {
        "title": f"{first} and {second} on {card.get('data') or 'the same images'}",
        "again": command_for_page(folder),
        "sentences": list(map(str, plain["sentences"])),
        "cautions": [
            *map(str, card.get("warnings") or ()),
            *(f"{run} is gone: its curve is drawn from the sizes that both sweeps have" for run in gone),
        ],
        "facts": [
            ("test images", f"{plain['num_test']:,}"),
            ("sizes in common", str(len(plain["sizes"]))),
            ("pairs of trainings", str(sum(size["paired"]["num_pairs"] for size in plain["sizes"]))),
        ],
        "differ": (
            [Column("setting"), Column(first), Column(second)],
            [[each["key"], each["a"], each["b"]] for each in plain["differ_in"]],
        ),
        "curves": curve_chart(
            curves,
            title="Test accuracy by images per class",
            crossing=_crossing(plain["crossings"]),
            chance_accuracy=plain["chance_accuracy"],
        ),
        "differences": _differences_chart(plain["sizes"], first, second),
        "sizes": _sizes_table(plain["sizes"], first, second),
        "runs": list(map(str, plain["runs"])),
    }


def _stored_curve(name: str, run: Path) -> NamedCurve | None:
    """The curve as the sweep itself fitted it; None where its folder is gone or does not tell."""
    curve = read_json(run / "learning_curve.json")
    try:
        return named_curve(name, curve) if curve else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _measured(name: str, sizes: Sequence[Mapping[str, Any]], which: str) -> NamedCurve:
    means = [MeanResult(**size[which]) for size in sizes]
    return NamedCurve(
        name,
        MeasuredSizes(
            per_class=[size["per_class"] for size in sizes],
            accuracies=[[mean.mean] for mean in means],
            low=[mean.low for mean in means],
            high=[mean.high for mean in means],
            interval_name="95 % t interval",
        ),
    )


def _crossing(crossings: Mapping[str, Any] | None) -> SizeMark | None:
    """Where the curves cross, if they do so once."""
    found = crossings["crossings"] if crossings else ()
    if len(found) != 1:
        return None
    return SizeMark(found[0]["per_class"], "", found[0]["low"], found[0]["high"])


def _differences_chart(sizes: Sequence[Mapping[str, Any]], first: str, second: str) -> Any:
    """The paired differences size by size, around a line at zero."""
    means = [MeanResult(**size["paired"]["difference"]) for size in sizes]
    lows = [100 * (mean.mean if mean.low is None else mean.low) for mean in means]
    series = Series(
        f"{first} - {second}",
        [size["per_class"] for size in sizes],
        [100 * mean.mean for mean in means],
        low=[None if mean.low is None else 100 * mean.low for mean in means],
        high=[None if mean.high is None else 100 * mean.high for mean in means],
        words=[f"{size['paired']['num_pairs']} pairs" for size in sizes],
    )
    return point_chart(
        [series],
        title=f"{first} - {second}, paired",
        x=Axis("images per class (log)", "count", log=True),
        y=Axis("difference of test accuracy (points)", low=0.0 if min(lows) > 0 else None),
        marks=[Mark(0.0, "", axis="y")],
        wide=True,
    )


def _sizes_table(
    sizes: Sequence[Mapping[str, Any]], first: str, second: str
) -> tuple[list[Column], list[list[object]]]:
    columns = [
        Column("images per class", "count"),
        Column(f"{first} [95 %]", "percent"),
        Column(f"{second} [95 %]", "percent"),
        Column("difference [95 %]", "number", f"{first} - {second}, in points."),
        Column("p (Holm)", "number"),
        Column("pairs", "count"),
        Column("verdict"),
    ]
    verdicts = {**_VERDICTS, "a_better": f"{first} is better", "b_better": f"{second} is better"}
    rows: list[list[object]] = []
    for size in sizes:
        a, b, difference = (MeanResult(**each) for each in (size["a"], size["b"], size["paired"]["difference"]))
        p_value = size["holm_p_value"]
        rows.append(
            [
                size["per_class"],
                Cell(interval(a.mean, a.low, a.high), a.mean),
                Cell(interval(b.mean, b.low, b.high), b.mean),
                points_cell(difference.mean, difference.low, difference.high),
                None if p_value is None else Cell(p_word(p_value), p_value),
                size["paired"]["num_pairs"],
                verdicts.get(size["verdict"], size["verdict"]),
            ]
        )
    return columns, rows
