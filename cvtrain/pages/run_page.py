"""The page of a run: its files read, put into words and charts, and filled into a template.

Knows the folder of a run and what a page shows; nothing of how the run came about.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cvtrain.outputs import RunDir
from cvtrain.pages import run_results as results
from cvtrain.pages import run_setting as setting
from cvtrain.pages.run_commands import command_for_page, command_to_continue
from cvtrain.pages.run_files import RunFiles, read_run
from cvtrain.report.page import PageTooLargeError, write_page


def write_run_page(folder: Path) -> Path:
    """Writes report.html from what the folder of a run holds, whatever became of the run.

    A file that is missing or damaged costs the sections that need it, and a sentence on the page.

    Args:
        folder: Of a training or an evaluation.

    Returns:
        The path of the page.

    Raises:
        CheckpointError: The folder holds no run.
        OutputError: The page cannot be written.
    """
    files = read_run(folder)
    content = page_content(files)
    path = RunDir(files.folder).report_path
    again = command_for_page(files.folder)
    try:
        return write_page(path, "run.html", title=title_of(files), again=again, **content)
    except PageTooLargeError:
        lean = dict.fromkeys(("confusion", "augmented", "examples", "worst", "chosen"))
        content["troubles"].append("The page would be too large for a mail: pictures and the matrix are left out.")
        return write_page(path, "run.html", title=title_of(files), again=again, **content | lean)


def title_of(files: RunFiles) -> str:
    """What was done with which model on which data."""
    card, config = files.card, files.config
    choices = config.get("choices", {})
    model, data = card.get("model") or choices.get("model"), card.get("data") or choices.get("data")
    words = f"{model} on {data}"
    return f"{words}, evaluated" if _task(files) == "evaluate" else words


def _task(files: RunFiles) -> str:
    return str(files.card.get("task") or files.config.get("task"))


_PARTS: dict[str, tuple[str, Callable[[RunFiles], Any]]] = {
    "headline": ("the headline", results.headline),
    "facts": ("the figures", results.figures),
    "run_facts": ("the facts", setting.run_facts),
    "curves": ("the learning curves", setting.curves),
    "class_rows": ("the table of classes", lambda files: _if_tested(files, results.class_rows)),
    "pairs": ("the most confused classes", lambda files: _if_tested(files, results.confused_pairs)),
    "confusion": ("the confusion matrix", lambda files: _if_tested(files, results.confusion_chart)),
    "worst": ("the worst errors", lambda files: results.answered(files, "worst_errors")),
    "chosen": ("the random predictions", lambda files: results.answered(files, "random_predictions")),
    "calibration": ("the calibration", results.calibration_section),
    "data_facts": ("the data card", setting.data_facts),
    "count_rows": ("the counts of the classes", setting.count_rows),
    "examples": ("the examples", setting.class_examples),
    "augmented": ("the augmented examples", setting.augmented_examples),
    "model_facts": ("the model", setting.model_facts),
    "layer_rows": ("the layers", setting.layer_rows),
    "time_facts": ("the timing", setting.time_facts),
    "typed_rows": ("what was typed", setting.typed_rows),
    "config_text": ("the config", setting.config_text),
    "versions": ("the versions", setting.versions),
    "commands": ("the commands", setting.commands),
}
"""What the template shows: a name for a sentence, and what makes it."""


def page_content(files: RunFiles) -> dict[str, Any]:
    """Everything that the template names; a part that the files do not hold is None."""
    content: dict[str, Any] = {}
    troubles = list(files.troubles)
    for name, (words, make) in _PARTS.items():
        try:
            content[name] = make(files)
        except Exception:  # files may come from anywhere: whatever is wrong in them costs this part alone
            content[name] = None
            troubles.append(f"{words[0].upper()}{words[1:]} cannot be shown: the files of the run do not fit together.")
    return content | {
        "card": files.card,
        "trains": _task(files) == "train",
        "state": state_of(files),
        "run_warnings": [str(line) for line in files.card.get("warnings") or ()],
        "troubles": troubles,
        "things": results.things(files),
        "split": results.tested_split(files),
        "columns": {
            "classes": results.CLASS_COLUMNS,
            "pairs": results.PAIR_COLUMNS,
            "counts": setting.COUNT_COLUMNS,
            "layers": setting.LAYER_COLUMNS,
        },
    }


def _if_tested(files: RunFiles, make: Callable[[RunFiles], Any]) -> Any:
    return make(files) if results.test_figures(files) else None


def state_of(files: RunFiles) -> dict[str, str] | None:
    """For a run that is not done: how it stands, why, and the command that goes on with it."""
    status, sentences = (
        files.card.get("status"),
        {
            "running": "This run has not come to its end: it is still running, or its process was killed.",
            "stopped": "This run was stopped before its end.",
            "failed": "This run failed.",
        },
    )
    if status == "done":
        return None
    command = ""
    if _task(files) == "train" and setting.can_go_on(files):
        command = command_to_continue(files.folder)
    return {
        "sentence": sentences.get(str(status), "How this run ended is not known."),
        "error": str(files.card.get("error") or ""),
        "to_do": "To go on with it:" if command else "",
        "command": command,
    }
