"""Two sample-size sweeps beside each other, on the same images: what `task=compare` does with such folders.

Reads like a recipe; knows settings, folders and a console.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cvtrain import build
from cvtrain.config import Config, save_text
from cvtrain.console import Console
from cvtrain.outputs import RunDir
from cvtrain.record import new_card, recorded
from cvtrain.report.compared_curves import ComparedCurvesPlot, NamedCurve, PairedDifferences, compared_curves
from cvtrain.report.curve_parts import SizeMark
from cvtrain.resume import first_line
from cvtrain.sample_size import pair_sentences as say
from cvtrain.sample_size.conclusion import drawn_curve, measured_sizes
from cvtrain.sample_size.pair import Sweep, read_pair
from cvtrain.sample_size.pair_conclusion import PairConclusion, compare_pair, json_text
from cvtrain.signals import StopRequest
from cvtrain.sweeps.runs import folder_name


def compare_sweeps(config: Config, runs: Sequence[Path]) -> tuple[float, Path]:
    """Compares two sweeps.

    Args:
        config: Of the command; all other settings are those of the sweeps.
        runs: Their folders.

    Returns:
        How much better the first is at the largest size that both have: difference of mean test accuracies, -1..1; and
        the folder that holds what was found.

    Raises:
        ConfigError: They are not two, or their trainings are no pairs.
        CheckpointError: A folder holds no sweep with at least two sizes done.
        OutputError: The results cannot be written.
    """
    a, b = read_pair([str(run) for run in runs])
    conclusion = compare_pair(a, b, seed=config["seed"])
    folder = "-".join(map(folder_name, conclusion.names))
    run_dir = RunDir.create(Path(config["output_dir"]) / "compare" / folder, suffix=config["name"])
    card, console = new_card(config) | facts(a, b), Console(run_dir.log)
    with StopRequest(), recorded(run_dir, card):
        run_dir.write_text(run_dir.config_path, save_text(config))
        introduce(a, b, conclusion, console)
        card["warnings"] = say.cautions(a, b, conclusion)
        for caution in card["warnings"]:
            console.warn(caution)
        sentences = say.sentences(conclusion)
        run_dir.write_text(run_dir.path / "comparison.json", json_text(conclusion, a, b, sentences=sentences))
        try:
            draw(run_dir.plots_dir / "compared_curves.png", conclusion, title=title(a, conclusion))
        except Exception as error:  # a full disk, a broken font, no matplotlib: the results are safe already
            console.warn(f"the curves could not be drawn: {first_line(error)}")
        show(conclusion, console, title=title(a, conclusion), sentences=sentences)
        console.say(f"results   {run_dir.path}")
    return mean_difference(conclusion), run_dir.path


def facts(a: Sweep, b: Sweep) -> dict[str, Any]:
    """What the run card tells: data and models are those of the sweeps, not those of the command."""
    models = dict.fromkeys(build.model_name(sweep.config) for sweep in (a, b))
    return {
        "runs": [str(a.path), str(b.path)],
        "data": build.data_name(a.config),
        "model": " / ".join(models),
        "data_fingerprint": a.data_fingerprint,
        "class_names": list(a.class_names),
    }


def title(a: Sweep, conclusion: PairConclusion) -> str:
    """What is compared."""
    same = "protocol" not in [each.key for each in conclusion.settings]
    protocol = f", protocol={a.config['protocol']}" if same else ""
    return f"{' and '.join(conclusion.names)} on {build.data_name(a.config)}{protocol}"


def introduce(a: Sweep, b: Sweep, conclusion: PairConclusion, console: Console) -> None:
    """Says what is compared with what."""
    width = max(map(len, conclusion.names))
    for name, sweep in zip(conclusion.names, (a, b), strict=True):
        console.say(f"{name:<{width}}  {sweep.path}")
    console.say(
        f"{conclusion.num_pairs} pairs of trainings, each on the same images; {len(a.class_names)} classes,"
        f" {a.num_test:,} test images; {say.differ_sentence(conclusion.settings)}"
    )


def show(conclusion: PairConclusion, console: Console, *, title: str, sentences: list[str]) -> None:
    """Prints the table and the answers."""
    first, second = conclusion.names
    rows = [say.size_row(size) for size in conclusion.sizes]
    console.table(f"{title}: test accuracy; {first} - {second} in points", say.header(conclusion.names), rows)
    console.say(say.LEGEND)
    console.say()
    for line in sentences:
        console.say(line)


def mean_difference(conclusion: PairConclusion) -> float:
    """The first less the second at the largest common size, -1..1."""
    difference = conclusion.sizes[-1].paired.difference
    assert difference is not None, "there is a pair"
    return difference.mean


def draw(path: Path, conclusion: PairConclusion, *, title: str) -> None:
    """Draws both curves, where they cross, and their differences."""
    first, second = conclusion.names
    counts = [size.paired.num_pairs for size in conclusion.sizes]
    pairs = f"{counts[0]}" if min(counts) == max(counts) else f"{max(counts)} to {min(counts)}"
    means = [size.paired.difference for size in conclusion.sizes if size.paired.difference]
    compared_curves(
        path,
        ComparedCurvesPlot(
            title=title,
            caption=f"{pairs} pair{'s' if max(counts) > 1 else ''} of trainings at each size, each pair on the same"
            f" images; {conclusion.fits[0].num_test:,} test images",
            curves=[
                NamedCurve(name, measured_sizes(fit.points), drawn_curve(fit))
                for name, fit in zip(conclusion.names, conclusion.fits, strict=True)
            ],
            differences=[
                PairedDifferences(
                    per_class=[size.per_class for size in conclusion.sizes],
                    means=[mean.mean for mean in means],
                    low=[mean.low for mean in means],
                    high=[mean.high for mean in means],
                )
            ],
            differences_title=f"{first} - {second}, paired: mean and 95 % t interval",
            crossing=crossing_mark(conclusion),
        ),
    )


def crossing_mark(conclusion: PairConclusion) -> SizeMark | None:
    """Where the curves cross, if they do so once."""
    found = conclusion.curves.crossings
    if found is None or len(found.crossings) != 1 or not conclusion.has_spread:
        return None
    (crossing,) = found.crossings
    return SizeMark(crossing.per_class, say.lead_sentence(conclusion), crossing.low, crossing.high)
