"""Which plots a finished run leaves in its folder.

Knows runs and what can be drawn of them; a drawing that fails costs a warning, never the run.
"""

from __future__ import annotations

from cvtrain import build
from cvtrain.classifier import Classifier
from cvtrain.console import percent
from cvtrain.engine.evaluator import EvaluationResult
from cvtrain.fit import Run
from cvtrain.report import plots
from cvtrain.resume import first_line


def draw(job: Run, test: EvaluationResult) -> None:
    """Writes plots/training_curves.png and, where the data are points of the plane, plots/decision_boundary.png.

    Args:
        job: The run, with the weights that were tested.
        test: How they did.
    """
    for write in (_training_curves, _decision_boundary):
        try:
            write(job, test)
        except Exception as error:  # a full disk, a broken font, no matplotlib: the results are safe already
            job.console.warn(f"a plot could not be drawn: {first_line(error)}")


def _training_curves(job: Run, _test: EvaluationResult) -> None:
    rows = job.run_dir.read_metrics()
    if len(rows) >= 2:
        plots.training_curves(job.run_dir.plots_dir / "training_curves.png", rows)


def _decision_boundary(job: Run, test: EvaluationResult) -> None:
    rule = job.facts.preprocessing
    if not rule.is_point or rule.channels != 2:
        return
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
