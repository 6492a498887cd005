"""What a run leaves for people to look at: a page, plots, and what both are made from.

Knows runs and what can be shown of them; what fails costs a warning, never the run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from cvtrain import build
from cvtrain.classifier import Classifier
from cvtrain.config import Config
from cvtrain.console import Console, percent
from cvtrain.engine.evaluator import EvaluationResult
from cvtrain.errors import InterruptedBySignal
from cvtrain.fit import Run
from cvtrain.outputs import RunDir
from cvtrain.pages.run_commands import command_for_page
from cvtrain.pages.run_material import write_material
from cvtrain.prepared import PreparedData
from cvtrain.resume import first_line


def leave_material(
    run_dir: RunDir,
    config: Config,
    prepared: PreparedData,
    *,
    model: nn.Module,
    split: str,
    result: EvaluationResult | None,
    console: Console,
) -> None:
    """Writes what the page needs and no other file of the run tells, while data and model are at hand.

    The arguments are those of `write_material`.
    """
    with _forgiven(console, "what the report shows could not be written"):
        write_material(run_dir, config, prepared, model=model, split=split, result=result, warn=console.warn)


def draw_decision_boundary(job: Run, test: EvaluationResult) -> None:
    """Writes plots/decision_boundary.png where the data are points of the plane."""
    rule = job.facts.preprocessing
    if not rule.is_point or rule.channels != 2:
        return
    with _forgiven(job.console, "a plot could not be drawn"):
        _decision_boundary(job, test)


def _decision_boundary(job: Run, test: EvaluationResult) -> None:
    from cvtrain.report import plots

    classifier = Classifier(job.model, job.loss_fn, facts=job.facts, compute=job.compute, config=job.config)
    images, indices = job.prepared.part("train")
    plots.decision_boundary(
        job.run_dir.plots_dir / "decision_boundary.png",
        images.images.read(indices).flatten(1).numpy() / 255,
        images.labels[indices].numpy(),
        probabilities_fn=lambda points: classifier.point_probabilities(points).numpy(),
        class_names=job.facts.class_names,
        title=f"{build.data_name(job.config)}, {build.model_name(job.config)}: test accuracy {percent(test.accuracy)}",
    )


def leave_page(folder: Path, console: Console) -> None:
    """Writes report.html from the files of a run."""
    with _forgiven(console, f"{RunDir(folder).report_path.name} could not be written", again=command_for_page(folder)):
        from cvtrain.pages.run_page import write_run_page

        write_run_page(folder)


def page_or_folder(run_dir: RunDir) -> Path:
    """What to open; the folder alone where no page could be written."""
    return run_dir.report_path if run_dir.report_path.is_file() else run_dir.path


def leave_plots(folder: Path, console: Console) -> None:
    """Writes the files in plots/ from those of a run."""
    with _forgiven(console, "a plot could not be drawn", again=command_for_page(folder)):
        from cvtrain.pages.run_plots import write_run_plots

        write_run_plots(folder)


@contextlib.contextmanager
def page_of_failure(folder: Path, console: Console) -> Iterator[None]:
    """Leaves a page where the block fails, after the run card says how; not where a signal has no time for it."""
    try:
        yield
    except InterruptedBySignal:
        raise
    except Exception:
        if (folder / "config.yaml").is_file():
            leave_page(folder, console)
        raise


@contextlib.contextmanager
def _forgiven(console: Console, words: str, *, again: str = "") -> Iterator[None]:
    """Makes a warning of whatever goes wrong: a full disk, a broken font, no matplotlib; the results are safe."""
    try:
        yield
    except Exception as error:
        hint = f"; to try again: {again}" if again else ""
        console.warn(f"{words}: {first_line(error)}{hint}")
