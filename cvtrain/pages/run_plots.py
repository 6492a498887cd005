"""The plots of a run, drawn from its files: learning curves, confusions, calibration.

Knows the folder of a run; not its model, nor how a plot is drawn.
"""

from __future__ import annotations

from pathlib import Path

from cvtrain.analysis.calibration import calibration
from cvtrain.console import percent
from cvtrain.outputs import RunDir
from cvtrain.pages.run_files import read_run
from cvtrain.pages.run_results import MAX_MATRIX_CLASSES, test_figures, tested_split


def write_run_plots(folder: Path) -> list[Path]:
    """Draws learning curves, confusions and calibration into `plots/`, each as PNG and SVG, where there are figures.

    Returns:
        The PNG files.

    Raises:
        CheckpointError: The folder holds no run.
        OSError: A file cannot be written.
    """
    from cvtrain.report import plots

    files, made = read_run(folder), []
    test, split, plots_dir = test_figures(files), tested_split(files), RunDir(files.folder).plots_dir
    if len(files.rows) >= 2:
        made.append(plots_dir / "training_curves.png")
        plots.training_curves(made[-1], files.rows)
    if test and len(test["per_class"]) <= MAX_MATRIX_CLASSES:
        made.append(plots_dir / "confusion_matrix.png")
        title = f"{split} accuracy {percent(test['accuracy'])}"
        names = [row["name"] for row in test["per_class"]]
        plots.confusion_matrix(made[-1], test["confusion_matrix"], names, title=title)
    if files.answers:
        made.append(plots_dir / "calibration.png")
        is_right = [answer.label == answer.prediction for answer in files.answers]
        result = calibration([answer.probability for answer in files.answers], is_right)
        plots.calibration(made[-1], result, title=f"calibration error {percent(result.ece)}")
    return made
