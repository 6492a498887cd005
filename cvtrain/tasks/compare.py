"""`task=compare`: runs beside each other, and what may be said of their differences.

Reads like a recipe; knows settings, folders and a console.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cvtrain import build
from cvtrain.comparison_lines import say_comparison
from cvtrain.config import Config, save_text
from cvtrain.console import Console
from cvtrain.errors import CheckpointError, ConfigError
from cvtrain.outputs import RunDir
from cvtrain.record import new_card, recorded
from cvtrain.resume import first_line
from cvtrain.sample_size.pair_task import compare_sweeps
from cvtrain.signals import StopRequest
from cvtrain.sweeps import run_sentences as say
from cvtrain.sweeps.as_json import comparison_json
from cvtrain.sweeps.compared_runs import ComparedRuns, read_compared_runs
from cvtrain.sweeps.image_verdict import ImageComparisonResult, compare_images, has_single_runs, run_of
from cvtrain.sweeps.predictions import are_of_same_images, read_predictions
from cvtrain.sweeps.runs import TAKES, are_sample_size_sweeps, find_runs, folder_name
from cvtrain.sweeps.verdict import ComparisonResult, compare_arms

TAKEN = ("task", "runs", "seed", "name", "output_dir")
"""Settings that matter here: all others are those of the runs."""

LONGEST_FOLDER_NAME = 60


def run(config: Config) -> float:
    """Compares runs: two sample-size sweeps, or any trainings.

    Returns:
        By how much the runs like the first one named are better than the best others: difference of mean test
        accuracies, -1..1; NaN where there are no others. Of sweeps, at the largest size that both have.

    Raises:
        ConfigError: `runs=` does not name runs that can be compared, or a setting has no effect.
        CheckpointError: A folder holds no run, or one that cannot be read.
        OutputError: The results cannot be written.
    """
    typed = [key for key in config.get("typed", ()) if not key.startswith("sweep.")]  # those are the multirun's
    idle = [f"{key} has no effect with task=compare" for key in typed if key not in TAKEN]
    if idle:
        raise ConfigError(idle)
    if not config["runs"]:
        raise ConfigError("task=compare needs two runs or more, and none is named", hint=TAKES)
    found = find_runs(config["runs"])
    if are_sample_size_sweeps(found.named):
        value, folder = compare_sweeps(config, found.named)
    else:
        value, folder = compare_trainings(config, read_compared_runs(found))
    write_report(folder)
    return value


def write_report(folder: Path) -> None:
    """Makes the page of a comparison; one that fails costs a warning, never the comparison."""
    console = Console(RunDir(folder).log)
    try:
        from cvtrain.pages.comparison_page import write_comparison_page

        write_comparison_page(folder)
        console.say(f"report    {RunDir(folder).report_path}")
    except Exception as error:  # a full disk, folders of runs that go while they are read: the results are safe already
        console.warn(f"the report could not be written: {first_line(error)}")


def compare_trainings(config: Config, compared: ComparedRuns) -> tuple[float, Path]:
    """Compares trainings over their seeds; where there is one of each kind, over the test images.

    Returns:
        As `run`, and the folder that holds what was found.
    """
    comparison = compare_arms(compared.arms)
    images, more_cautions = over_images(compared, comparison, seed=config["seed"])
    run_dir = RunDir.create(Path(config["output_dir"]) / "compare" / folder_of(compared), suffix=config["name"])
    card, console = new_card(config) | facts(compared), Console(run_dir.log)
    with StopRequest(), recorded(run_dir, card):
        run_dir.write_text(run_dir.config_path, save_text(config))
        console.say(say.introduction(compared))
        card["warnings"] = [*compared.cautions, *more_cautions, *say.cautions(compared, images)]
        for caution in card["warnings"]:
            console.warn(caution)
        text = comparison_json(comparison, compared.results, images=images, about=about(compared, card))
        run_dir.write_text(run_dir.path / "comparison.json", text)
        say_comparison(comparison, console, images=images, more_sentences=say.more_sentences(compared, comparison))
        console.say(f"results   {run_dir.path}")
    return first_less_best_other(compared, comparison), run_dir.path


def over_images(
    compared: ComparedRuns, comparison: ComparisonResult, *, seed: int
) -> tuple[ImageComparisonResult | None, list[str]]:
    """The comparison of single models image by image, or None, and why not where it would have been of use.

    Raises:
        ConfigError: The models answered other images, or images with other labels.
    """
    if not has_single_runs(comparison.arms):
        return None, []
    cards = {run.path: run.card for run in compared.done}
    chosen = [run.run_dir for arm in comparison.arms if (run := run_of(arm)) and run.run_dir]
    predictions, troubles = {}, []
    for path in chosen:
        try:
            predictions[path] = read_predictions(path, cards[path])
        except CheckpointError as error:
            troubles.append(f"the models cannot be compared image by image: {error.message}")
    if troubles:
        return None, troubles
    if not are_of_same_images(list(predictions.values())):
        raise ConfigError(
            "the runs were tested on other images, or on images with other labels, though their number is the same",
            hint="predictions.csv of each run names them: train one again on the files of the others",
        )
    return compare_images(comparison.arms, predictions, without_grid=comparison.without_grid, seed=seed), []


def folder_of(compared: ComparedRuns) -> str:
    """What is compared, and by what: `digits-optimizer-optimizer.lr`."""
    keys = list(dict.fromkeys(key for arm in compared.arms for key in arm.settings)) or ["seed"]
    return folder_name("-".join([build.data_name(compared.done[0].config), *keys])[:LONGEST_FOLDER_NAME])


def facts(compared: ComparedRuns) -> dict[str, Any]:
    """What the run card tells: data and models are those of the runs, not those of the command."""
    configs, card = [run.config for run in compared.runs], compared.done[0].card
    return {
        "runs": [str(run.path) for run in compared.runs],
        "data": build.data_name(compared.done[0].config),
        "model": " / ".join(dict.fromkeys(map(build.model_name, configs))),
        "data_fingerprint": card.get("data_fingerprint"),
        "class_names": card.get("class_names"),
    }


def about(compared: ComparedRuns, card: dict[str, Any]) -> dict[str, Any]:
    """What a reader of comparison.json wants to know beside the figures."""
    keys = ("data", "model", "runs", "class_names", "warnings")
    return {**{key: card[key] for key in keys}, "num_test": say.num_test(compared)}


def first_less_best_other(compared: ComparedRuns, comparison: ComparisonResult) -> float:
    """The mean of the arm of the first run less the best mean of the others, -1..1, or NaN."""
    first = next(arm.name for arm in compared.arms if any(compared.results[0] in cell.jobs for cell in arm.cells))
    means = {arm.arm.name: arm.test.mean for arm in comparison.arms if arm.test}
    others = [mean for name, mean in means.items() if name != first]
    return means[first] - max(others) if first in means and others else float("nan")
