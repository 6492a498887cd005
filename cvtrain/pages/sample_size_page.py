"""The page of a sample-size study: its files read, put into words, charts and tables, and filled into a template.

Knows the folder of a study and what a page shows; nothing of how the study came about.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cvtrain.outputs import RunDir
from cvtrain.pages import run_setting as setting
from cvtrain.pages import sample_size_views as views
from cvtrain.pages import sample_size_words as words
from cvtrain.pages.run_commands import command_for_page, command_to_reproduce
from cvtrain.pages.sample_size_files import CURVE_NAME, StudyFiles, read_study
from cvtrain.report.page import write_page
from cvtrain.report.words import count, percent, seconds


def write_sample_size_page(folder: Path) -> Path:
    """Writes report.html from what the folder of a study holds, however far it has come.

    A file that is missing or damaged costs the sections that need it, and a sentence on the page.

    Args:
        folder: Of a sample-size study.

    Returns:
        The path of the page.

    Raises:
        CheckpointError: The folder holds no run.
        OutputError: The page cannot be written.
    """
    files = read_study(folder)
    path = RunDir(files.run.folder).report_path
    again = command_for_page(files.run.folder)
    return write_page(path, "sample_size.html", title=title_of(files), again=again, **page_content(files))


def title_of(files: StudyFiles) -> str:
    """What was studied."""
    card, choices = files.run.card, files.run.config.get("choices", {})
    model, data = card.get("model") or choices.get("model"), card.get("data") or choices.get("data")
    return f"How many images are enough? {model} on {data}"


_PARTS: dict[str, tuple[str, Callable[[StudyFiles], Any]]] = {
    "headline": ("the headline", lambda files: headline(files)),
    "facts": ("the facts", lambda files: facts(files)),
    "curve": ("the curve", views.curve_of),
    "accuracies": ("the accuracies", lambda files: files.rows and views.accuracies_chart(files.rows)),
    "gains": ("the gains", lambda files: views.gains_chart(files.curve)),
    "costs": ("time and steps", lambda files: files.rows and views.cost_charts(files.rows)),
    "sizes": ("the table of sizes", lambda files: views.size_table(files.rows)),
    "trainings": ("the table of trainings", lambda files: views.training_table(files.rows, files.trainings)),
    "failures": ("the failed trainings", lambda files: views.failure_table(files.trainings)),
    "courses": ("how each size is trained", lambda files: views.course_table(files.courses)),
    "forms": ("the forms of the curve", lambda files: views.form_table(files.curve)),
    "held_out": ("the check of the curve", lambda files: views.validation_table(files.curve)),
    "protocol": ("the protocol", lambda files: words.protocol_sentences(files.run.config)),
    "reading": ("how to read it", lambda files: words.reading_sentences(files.curve, has_replicates=_repeats(files))),
    "open_questions": (
        "what was not tested",
        lambda files: words.open_questions(files.run.config, num_test=files.num_test),
    ),
    "typed_rows": ("what was typed", lambda files: setting.typed_rows(files.run)),
    "config_text": ("the config", lambda files: setting.config_text(files.run)),
    "versions": ("the versions", lambda files: setting.versions(files.run)),
    "commands": ("the commands", lambda files: commands(files)),
}
"""What the template shows: a name for a sentence, and what makes it."""


def page_content(files: StudyFiles) -> dict[str, Any]:
    """Everything that the template names; a part that the files do not hold is None."""
    content: dict[str, Any] = {}
    troubles = [*files.troubles, *_gaps(files)]
    for name, (part, make) in _PARTS.items():
        try:
            content[name] = make(files)
        except Exception:  # files may come from anywhere: whatever is wrong in them costs this part alone
            content[name] = None
            troubles.append(f"{part[0].upper()}{part[1:]} cannot be shown: the files do not fit together.")
    return content | {
        "state": state_of(files),
        "troubles": troubles,
        "answers": [_sentence(str(line)) for line in files.curve.get("sentences") or ()],
        "study_warnings": [str(line) for line in files.run.card.get("warnings") or ()],
    }


def headline(files: StudyFiles) -> tuple[str, str] | None:
    """The figure that was asked for, else that of the largest size, and what it is."""
    if not files.rows:
        return None
    target = files.curve.get("target")
    if not target:
        return views.largest_size_words(files.rows)
    size, goal = target["per_class"], f"for a test accuracy of {percent(target['target'])}"
    if target["status"] == "refused":
        return "No answer", f"{goal}: {target['reason']}"
    if size is None:
        return "Not reachable", f"{goal}, with this model and these settings"
    if target["status"] == "reached_at_smallest":
        return f"{size:,} images per class", f"are enough {goal}: the smallest size; fewer may do"
    ends = [_rounded(target[end]) if target[end] else words for end, words in (("low", "fewer"), ("high", "no end"))]
    kinds = {"extrapolated": "an extrapolation", "far": "a far extrapolation: do not plan with it"}
    about = ", ".join([goal, kinds.get(target["status"], "within what was measured")])
    return f"About {_rounded(size)} images per class", f"{about}; 90 % interval [{ends[0]}, {ends[1]}]"


def _sentence(words: str) -> str:
    """Words of the console as a sentence of a page."""
    return f"{words[:1].upper()}{words[1:]}."


def _rounded(size: float) -> str:
    """Three digits of a size that is read from a curve."""
    return f"{int(float(f'{size:.3g}')):,}"


def facts(files: StudyFiles) -> list[tuple[str, Any, str]]:
    """The study in a few figures."""
    curve, found = files.curve, []
    if files.rows and curve.get("target"):  # else it is the headline
        figure, what = views.largest_size_words(files.rows)
        found.append((f"At {files.rows[-1].per_class:,} images per class", figure, what.partition(", ")[2]))
    for each in curve.get("ahead") or ():
        if each["accuracy"] is not None:
            figure = f"{percent(each['accuracy'])} [{100 * each['low']:.1f}, {100 * each['high']:.1f}]"
            found.append((f"At {each['per_class']:,}", figure, f"predicted: {each['factor']:g} times as many"))
    elbow = curve.get("elbow") or {}
    if elbow.get("log_linear"):
        line = elbow["log_linear"]
        gain = f"{100 * line['gain']:.1f} points [{100 * line['low']:.1f}, {100 * line['high']:.1f}]"
        found.append(("A doubling gains", gain, "on average, within what was measured"))
        found.append(
            ("Elbow", _elbow_words(elbow), f"from where twice as many gain less than {100 * elbow['gain']:g} points")
        )
    if files.num_test:
        found.append(("Test images", count(files.num_test), f"guessing gives {percent(curve['chance_accuracy'])}"))
    found.append(("Trainings", f"{len(files.rows):,} of {files.num_planned:,}", "done"))
    if files.rows:
        spent = sum(row.seconds for row in files.rows)
        found.append(("Time", seconds(spent), "of all trainings, one after the other"))
    return found


def _elbow_words(elbow: dict[str, Any]) -> str:
    if elbow["per_class"]:
        return f"{_rounded(elbow['per_class'])} images per class"
    return {"none": "none", "beyond": "beyond the largest size", "before": "before the smallest size"}.get(
        elbow["status"], "no answer"
    )


def state_of(files: StudyFiles) -> str:
    """A sentence on a study that is not at its end; empty where it is."""
    num_failed = sum(training.status == "failed" for training in files.trainings)
    failed = f" {num_failed} failed." if num_failed else ""
    if len(files.rows) >= files.num_planned and not num_failed:
        return ""
    done = f"{len(files.rows):,} of {files.num_planned:,} trainings were done"
    return f"Not complete: {done} when this page was made.{failed}"


def _gaps(files: StudyFiles) -> list[str]:
    """Where the curve is not that of the table."""
    if not files.rows:
        return []
    again = f"cvtrain resume={_word(files)} makes it anew."
    if not files.curve:
        return [f"There is no {CURVE_NAME}: {again}"]
    try:
        fitted = {(p["per_class"], int(r)) for p in files.curve["points"] for r in p["accuracies"]}
    except (KeyError, TypeError, ValueError, AttributeError):
        return [f"{CURVE_NAME} is not that of a study: {again}"]
    if fitted != {(row.per_class, row.replicate) for row in files.rows}:
        return [f"The curve is of {len(fitted):,} trainings, not of the {len(files.rows):,} in the tables: {again}"]
    if "sentences" not in files.curve:
        return [f"{CURVE_NAME} is of an earlier version and holds no answers: {again}"]
    return []


def commands(files: StudyFiles) -> list[tuple[str, str]]:
    """What to type: what for, and the command."""
    counts = [len(some) for some in views.by_size(files.rows).values()]
    is_done = len(files.rows) >= files.num_planned
    next_ones = words.commands(_word(files), is_done=is_done, num_replicates=max(counts, default=0))
    return [*next_ones, ("Make the same study again", command_to_reproduce(files.run.card, files.run.config))]


def _word(files: StudyFiles) -> str:
    return shlex.quote(str(files.run.folder))


def _repeats(files: StudyFiles) -> bool:
    return any(len(some) > 1 for some in views.by_size(files.rows).values())
