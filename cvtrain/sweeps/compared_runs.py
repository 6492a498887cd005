"""Runs that are to be compared: checked, named by the settings in which they differ, parted into arms.

Knows runs, run cards and settings; neither tests nor what their results mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from cvtrain.errors import ConfigError
from cvtrain.sweeps.arms import TUNED_KEY, Arm, arms_of
from cvtrain.sweeps.leaderboard import JobResult
from cvtrain.sweeps.runs import TAKES, FoundFolders, StoredRun, read_runs
from cvtrain.sweeps.settings import words_of

_LISTED = 3
"""Of more runs than these the rest is counted."""

_AGREEING_VERSIONS = ("python", "cvtrain", "torch", "torchvision", "numpy")


@dataclass(frozen=True)
class ComparedRuns:
    """Runs that can be compared.

    Args:
        runs: Each setting and seed once.
        results: The same, in the same order, as rows of a table.
        arms: The same, parted by what they differ in.
        cautions: What makes a comparison less than it seems to be.
    """

    runs: tuple[StoredRun, ...]
    results: tuple[JobResult, ...]
    arms: tuple[Arm, ...]
    cautions: tuple[str, ...]

    @property
    def done(self) -> tuple[StoredRun, ...]:
        """The runs that came to their end."""
        return tuple(run for run, result in zip(self.runs, self.results, strict=True) if result.is_done)

    @property
    def compares_lrs(self) -> bool:
        """Whether arms differ in their learning rates alone."""
        return len(self.arms) > 1 and all(set(arm.settings) == {TUNED_KEY} for arm in self.arms)


def read_compared_runs(found: FoundFolders) -> ComparedRuns:
    """Reads runs and checks that they can be compared.

    Args:
        found: From `find_runs`.

    Raises:
        ConfigError: Everything that makes them incomparable.
        CheckpointError: All folders that cannot be read, or hold another task than a training.
    """
    all_runs = read_runs(found.runs)
    words = words_of([run.config for run in all_runs])
    all_results = [run.result(word) for run, word in zip(all_runs, words, strict=True)]
    counted = _without_repeats(all_runs, all_results)
    runs, results = [all_runs[i] for i in counted], [all_results[i] for i in counted]
    done = [run for run, result in zip(runs, results, strict=True) if result.is_done]
    if too_few := _too_few(found, runs, results):
        raise ConfigError(too_few, hint=TAKES)
    if problems := _other_images(done):
        raise ConfigError(problems, hint="name runs on the same images, or train one again on those of the others")
    cautions = [
        *_not_counted(found, [run for i, run in enumerate(all_runs) if i not in counted]),
        *_not_done(results),
        *_other_conditions(done),
    ]
    return ComparedRuns(tuple(runs), tuple(results), tuple(arms_of_runs(results)), tuple(cautions))


def arms_of_runs(results: Sequence[JobResult]) -> list[Arm]:
    """Arms, of which each takes its best learning rate where there is a grid; else learning rates make arms too.

    Args:
        results: With the settings in which they differ as words.
    """
    tuned = arms_of(results, absent=None)
    if len(tuned) > 1 and any(len(arm.lrs) > 1 for arm in tuned):
        return tuned
    return arms_of(results, lr_is_tuned=False, absent=None)


def _without_repeats(runs: Sequence[StoredRun], results: Sequence[JobResult]) -> list[int]:
    """Positions of the runs that count: of those with the same settings and seed the last one that is done."""
    latest: dict[Hashable, int] = {}
    for i in sorted(range(len(runs)), key=lambda i: (results[i].is_done, str(runs[i].card.get("started")))):
        latest[frozenset(results[i].overrides.items())] = i
    return sorted(latest.values())


# ---------------------------------------------------------------------------------------------------- refusals


def _too_few(found: FoundFolders, runs: Sequence[StoredRun], results: Sequence[JobResult]) -> list[str]:
    num_done = sum(result.is_done for result in results)
    if len(found.runs) < 2:
        (only,) = found.runs
        named = f"{only} is named twice" if found.named_twice else f"{only} is one"
        return [f"task=compare needs two runs or more: {named}"]
    if len(runs) < 2:
        return [f"the {len(found.runs)} runs have the same settings and the same seed: there is nothing to compare"]
    if num_done < 2:
        return [f"{num_done} of {len(runs)} runs are done: there is nothing to compare", *_not_done(results)]
    return []


def _other_images(done: Sequence[StoredRun]) -> list[str]:
    """What the runs were trained and tested on must be the same; data that are made from a seed, for each seed."""
    made_from: dict[Any, list[StoredRun]] = {}
    for run in done:
        made_from.setdefault(run.config["data"].get("seed"), []).append(run)
    problems = []
    for group in made_from.values():
        problems += _differing(
            "the runs saw different images", group, _data_of, lambda run: run.config["choices"]["data"]
        )
        problems += _differing("the runs know different classes", group, _classes_of, lambda run: _classes_of(run)[:70])
        problems += _differing("the runs were tested on different images", group, _test_counts_of, _num_test_of)
    return list(dict.fromkeys(problems))


def _data_of(run: StoredRun) -> str:
    return str(run.card.get("data_fingerprint"))


def _classes_of(run: StoredRun) -> str:
    return ", ".join(map(str, run.card.get("class_names") or ()))


def _test_counts_of(run: StoredRun) -> str:
    test = run.card.get("test") or {}
    return str((test.get("num_images"), [row.get("num_images") for row in test.get("per_class") or ()]))


def _num_test_of(run: StoredRun) -> str:
    return f"{(run.card.get('test') or {}).get('num_images')} images"


def _differing(
    what: str, runs: Sequence[StoredRun], value_of: Callable[[StoredRun], str], name_of: Callable[[StoredRun], str]
) -> list[str]:
    """One sentence where a value differs between runs, with an example of each value."""
    examples: dict[str, StoredRun] = {}
    for run in runs:
        examples.setdefault(value_of(run), run)
    if len(examples) < 2:
        return []
    shown = [f"{name_of(run)} in {run.path}" for run in list(examples.values())[:_LISTED]]
    more = f" and {len(examples) - _LISTED} more" if len(examples) > _LISTED else ""
    return [f"{what}: {'; '.join(shown)}{more}"]


# ---------------------------------------------------------------------------------------------------- cautions


def _not_counted(found: FoundFolders, repeats: Sequence[StoredRun]) -> list[str]:
    cautions = [f"{path} is named twice, and counts once" for path in found.named_twice[:_LISTED]]
    cautions += [f"{run.path} is left out: another run has its settings and its seed" for run in repeats[:_LISTED]]
    for what, num in (("named twice", len(found.named_twice)), ("left out for such a reason", len(repeats))):
        if num > _LISTED:
            cautions.append(f"{num - _LISTED} more runs are {what}")
    if found.num_not_begun:
        jobs = "1 job has" if found.num_not_begun == 1 else f"{found.num_not_begun} jobs have"
        cautions.append(f"{jobs} left no settings: waiting, or failed at once")
    return cautions


def _not_done(results: Sequence[JobResult]) -> list[str]:
    """The runs without a result, why, and how to finish them."""
    lost = [result for result in results if not result.is_done and result.status != "pruned"]
    cautions = []
    for result in lost[:_LISTED]:
        why = f": {result.error}" if result.error else ""
        can_go_on = result.status in ("running", "stopped", "waiting")
        how = f"; unless it is still running, continue it with: cvtrain resume={result.run_dir}" if can_go_on else ""
        cautions.append(f"{result.run_dir} has no result ({result.status}{why}){how}")
    if len(lost) > _LISTED:
        cautions.append(f"{len(lost) - _LISTED} more runs have no result")
    return cautions


def _other_conditions(done: Sequence[StoredRun]) -> list[str]:
    """What else than settings differs between runs: a part of a difference may be due to it."""
    cautions = []
    for name in _AGREEING_VERSIONS:
        cautions += _mixed(f"other versions of {name}", [(run.card.get("versions") or {}).get(name) for run in done])
    cautions += _mixed("another precision", [run.card.get("precision") for run in done])
    hardware = _mixed("other hardware", [run.card.get("device") for run in done])
    return [*cautions, *(f"{caution}; their times are not compared" for caution in hardware)]


def _mixed(what: str, values: Sequence[Any]) -> list[str]:
    counts = Counter(map(str, values))
    if len(counts) < 2:
        return []
    shown = ", ".join(f"{value} in {num} run{'' if num == 1 else 's'}" for value, num in counts.most_common(_LISTED))
    return [f"not all runs were made alike, but with {what}: {shown}"]
