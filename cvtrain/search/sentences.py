"""A search in words: what it will do, how it went on, what it found, and how far that can be trusted.

Knows results of trials; prints nothing.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cvtrain.config import masked
from cvtrain.console import percent
from cvtrain.search.options import SearchOptions
from cvtrain.search.parameters import Value, word_of
from cvtrain.search.space import Space
from cvtrain.search.trials import TrialResult, best_of

if TYPE_CHECKING:
    from cvtrain.search.study import KeptStudy

_MIN_FOR_IMPORTANCES = 20
"""Done trials: the best quarter of fewer is too few to tell one key from another."""


def introduction(
    space: Space, options: SearchOptions, results: Sequence[TrialResult], *, study: KeptStudy
) -> list[str]:
    """What is searched and how; where it goes on, with what."""
    searched = ", ".join(f"{each.key}={each.text}" for each in space.parameters)
    lines = [f"search over {searched}", f"{options.num_trials} trials, {_manner(options)}"]
    if study.num_taken_over or study.num_left_out:
        lines.append(
            f"other values were searched here before: {study.num_taken_over} of those trials lie among the new ones and"
            f" count, {study.num_left_out} do not"
        )
    num_ended = sum(result.status != "unfinished" for result in results)
    if num_ended or study.num_again:
        again = f", {study.num_again} broken off or failed and begun again" if study.num_again else ""
        trials = "trial" if num_ended == 1 else "trials"
        lines.append(f"goes on: {num_ended} {trials} ended before{again}")
    return lines


def _manner(options: SearchOptions) -> str:
    if options.sampler == "tpe":
        sampler = f"TPE after {options.num_startup_trials} random ones"
    else:
        sampler = {"random": "all random", "grid": "every combination in a random order"}[options.sampler]
    if options.pruner == "none":
        return f"{sampler}; each is trained to its end"
    rule = {"median": "worse than the median of those done", "asha": "not among the best third"}[options.pruner]
    return f"{sampler}; a job that is {rule} after an evaluation is stopped"


def hopeless(errors: Sequence[str]) -> str:
    """Why a search ends before its number of trials."""
    return f"the search ends, because its first {len(errors)} jobs have all failed; the last one: {errors[-1]}"


def are_enough(results: Sequence[TrialResult], space: Space) -> bool:
    """Whether something can be said of what matters."""
    done = [result for result in results if result.status == "done"]
    return len(space.parameters) > 1 and len(done) >= _MIN_FOR_IMPORTANCES


def conclusion(
    space: Space,
    options: SearchOptions,
    results: Sequence[TrialResult],
    importances: Mapping[str, float],
    *,
    sweep_dir: Path,
    flags: Sequence[str],
) -> list[str]:
    """What was found, how to train with it, and what it does not show."""
    lines = [_counts(results, options, space)]
    best = best_of(results)
    if best is None:
        return [*lines, "no trial is done: there is no best"]
    lines.append(f"best     trial {best.number}, validation {percent(best.val_accuracy)}: {' '.join(best.key)}")
    lines += [
        f"         {each.key}={word_of(best.values[each.key])} is at an end of {each.text}: widen it"
        for each in space.parameters
        if each.is_at_edge(best.values[each.key]) and (each.num_values is None or each.num_values > 2)
    ]
    if importances:
        shares = ", ".join(f"{key} {100 * share:.0f} %" for key, share in importances.items())
        lines.append(f"matters  {shares} of what sets the best quarter of the done trials apart")
    if best.folder:
        lines.append(f"         {sweep_dir / best.folder}")
    lines.append(f"train    {command(space, best.values, flags=flags)}")
    num_equal = sum(result.val_accuracy == best.val_accuracy for result in results) - 1
    num_done = sum(result.status == "done" for result in results)
    if num_equal:
        lines.append(
            f"{num_equal} other {'trial validates' if num_equal == 1 else 'trials validate'} as well as the best"
        )
    if num_done > 1:
        lines.append(
            f"the best of {num_done} by the validation images of one seed: part of it is luck. To compare it with other"
            " settings add --multirun hydra/sweeper=grid seed=0,1,2,3,4"
        )
    return lines


def _counts(results: Sequence[TrialResult], options: SearchOptions, space: Space) -> str:
    names = ("done", "pruned", "failed", "unfinished")
    counts = [(sum(result.status == name for result in results), name) for name in names]
    said = ", ".join(f"{num} {name}" for num, name in counts if num) or "none"
    is_all = len(results) == space.num_combinations and len(results) < options.num_trials
    every = ": there are no more combinations" if is_all else ""
    return f"trials: {said}, of {options.num_trials}{every}"


def command(space: Space, values: Mapping[str, Value], *, flags: Sequence[str]) -> str:
    """The command that trains with the values of a trial; secrets are masked."""
    shown = []
    for word in space.words(values):
        key, is_pair, value = word.lstrip("+").partition("=")
        shown.append(shlex.quote(f"{key}={masked(value, key)}") if is_pair else shlex.quote(word))
    kept = [word for word in shown if not word.startswith("sweep.")]
    flags = () if tuple(flags) == ("--config-name", "config") else flags
    return " ".join(["cvtrain", *map(shlex.quote, flags), *kept])
