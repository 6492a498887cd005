"""What the page of a sweep shows of a search: trials in their order, the best so far, each value against the result.

Knows the content of `search.json` and charts; not the method of the search.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cvtrain.report.charts import Axis, Series, line_chart, point_chart
from cvtrain.report.words import percent

if TYPE_CHECKING:
    from markupsafe import Markup

_STATUSES = ("done", "pruned", "failed", "unfinished")
_VALIDATION = Axis("validation accuracy", "percent")


@dataclass(frozen=True)
class Trial:
    """A trial as it is drawn.

    Args:
        number: Counted from 1.
        values: What was tried, by key.
        status: As `search.json` has it.
        accuracy: The best validation accuracy of one that is done, the last of one that was pruned, 0..1; else None.
    """

    number: int
    values: Mapping[str, Any]
    status: str
    accuracy: float | None


@dataclass(frozen=True)
class SearchView:
    """The parts of the page that a search has.

    Args:
        facts: What was searched and how.
        sentences: What was found, and how far that can be trusted.
        command: What trains with the best values; nothing where there is no best.
        trials_chart: Of the trials in their order.
        value_charts: One for each key.
    """

    facts: list[tuple[str, str]]
    sentences: list[str]
    command: str
    trials_chart: Markup
    value_charts: list[Markup]


def search_view(search: Mapping[str, Any]) -> SearchView | None:
    """Makes the parts from the content of `search.json`; None where it is no record of a search."""
    try:
        trials = [_trial(each) for each in search["trials"]]
        searched = {str(key): str(text) for key, text in search["searched"].items()}
        options, fixed = dict(search["options"]), dict(search["fixed"])
        best = next((each for each in search["trials"] if each["number"] == search["best"]), None)
        words = [*(f"{key}={value}" for key, value in fixed.items()), *map(str, best["words"])] if best else []
    except (KeyError, TypeError, AttributeError, ValueError):
        return None
    method = f"{options.get('num_trials')} trials, sampler={options.get('sampler')}, pruner={options.get('pruner')}"
    return SearchView(
        facts=[*searched.items(), ("method", method)],
        sentences=_sentences(trials, best),
        command=shlex.join(["cvtrain", *(word for word in words if not word.startswith("sweep."))]) if best else "",
        trials_chart=_trials_chart(trials),
        value_charts=[_value_chart(key, text, trials) for key, text in searched.items()],
    )


def _trial(plain: Mapping[str, Any]) -> Trial:
    accuracy, evaluations = plain["val_accuracy"], plain["evaluations"]
    if plain["status"] == "pruned" and evaluations:
        accuracy = evaluations[-1][1]
    return Trial(int(plain["number"]), dict(plain["values"]), str(plain["status"]), accuracy)


def _sentences(trials: Sequence[Trial], best: Mapping[str, Any] | None) -> list[str]:
    counts = [(sum(trial.status == status for trial in trials), status) for status in _STATUSES]
    told = f"{len(trials)} trials: " + ", ".join(f"{num} {status}" for num, status in counts if num)
    if best is None:
        return [told, "No trial is done: there is no best."]
    found = f"Best: trial {best['number']}, validation {percent(best['val_accuracy'])}: {' '.join(best['words'])}"
    luck = (
        f"It is the best of {counts[0][0]} by the validation images of one seed: part of it is luck. To compare it with"
        " other settings train each with several seeds."
    )
    return [told, found, *([luck] if counts[0][0] > 1 else [])]


def _trials_chart(trials: Sequence[Trial]) -> Markup:
    """Each trial at its place, and the best so far as a line."""
    best, numbers, so_far = None, [], []
    for trial in trials:
        numbers, so_far = [*numbers, trial.number], [*so_far, best]
        if trial.status == "done" and trial.accuracy is not None:
            best = trial.accuracy if best is None else max(best, trial.accuracy)
            numbers, so_far = [*numbers, trial.number], [*so_far, best]  # a step, not a slope
    series = [Series("best so far", numbers, so_far)]
    series += [_points(status, [trial for trial in trials if trial.status == status]) for status in ("done", "pruned")]
    return line_chart(
        [each for each in series if each.x],
        title="Trials in their order",
        wide=True,
        x=Axis("trial", "count"),
        y=_VALIDATION,
    )


def _points(status: str, trials: Sequence[Trial]) -> Series:
    words = [", ".join(f"{key}={value}" for key, value in trial.values.items()) for trial in trials]
    numbers, accuracies = [trial.number for trial in trials], [trial.accuracy for trial in trials]
    return Series(status, numbers, accuracies, words=words, drawn="points")


def _value_chart(key: str, text: str, trials: Sequence[Trial]) -> Markup:
    """The result of each trial against its value of a key: on an axis where all are numbers, else in rows."""
    values = [trial.values.get(key) for trial in trials if trial.accuracy is not None]
    are_numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    names = [] if are_numbers else list(dict.fromkeys(map(str, values)))
    series = []
    for status in ("done", "pruned"):
        chosen = [trial for trial in trials if trial.status == status and trial.accuracy is not None]
        places = [trial.values.get(key) if are_numbers else names.index(str(trial.values.get(key))) for trial in chosen]
        accuracies, words = [trial.accuracy for trial in chosen], [f"trial {trial.number}" for trial in chosen]
        x, y = (places, accuracies) if are_numbers else (accuracies, places)
        series += [Series(status, x, y, words=words)] if chosen else []
    title = f"Validation accuracy against {key}"
    if are_numbers:
        return point_chart(series, title=title, x=Axis(key, log="log" in text), y=_VALIDATION)
    return point_chart(series, title=title, x=_VALIDATION, y=Axis(key, names=names))
