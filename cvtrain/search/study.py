"""A search as it is kept on disk: opened, continued after a break, taken over by a search over another space.

Knows Optuna's ask-and-tell; neither jobs nor how they are run.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cvtrain.errors import ConfigError
from cvtrain.search import trials as notes
from cvtrain.search.journal import Journal
from cvtrain.search.options import SearchOptions
from cvtrain.search.parameters import Value
from cvtrain.search.sampling import pruner_of, sampler_of
from cvtrain.search.space import Key, Space
from cvtrain.search.trials import TrialResult, counted, is_worth_retrying, results_of, values_of
from cvtrain.seeding import derive_seed

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import FrozenTrial, Trial

_FIXED = "cvtrain_fixed"
"""The words that all trials of a study have, noted on it: trials with others cannot be compared."""


class KeptStudy:
    """All trials of a search, in a file that outlives the process.

    Args:
        path: Of the file.
        space: What is searched. Of a search over another space, all trials that lie in this one are taken over.
        options: How.
        retry_failed: Begin failed trials again, but for those that diverged.

    Attributes:
        num_taken_over: Trials of other spaces that lie in this one.
        num_left_out: Those that do not.
        num_again: Trials that were broken off, or failed, and are begun again.

    Raises:
        ConfigError: Another process searches here, or the earlier trials had other settings.
        CheckpointError: The file is damaged.
        OutputError: It cannot be written.
    """

    def __init__(self, path: Path, *, space: Space, options: SearchOptions, retry_failed: bool = True) -> None:
        import optuna

        optuna.logging.disable_default_handler()
        self._space, self._options, self._journal = space, options, Journal(path)
        try:
            storage = self._journal.storage()
            others = _studies_of_ours(storage, space)
            self._distributions = {each.key: each.distribution() for each in space.parameters}
            with self._journal.writing():
                self._study = optuna.create_study(
                    storage=storage,
                    study_name=space.name(),
                    direction="maximize",
                    load_if_exists=True,
                    sampler=sampler_of(options, {each.key: each for each in space.parameters}),  # type: ignore[arg-type]
                    pruner=pruner_of(options),
                )
                self._study.set_user_attr(_FIXED, space.fixed)
                self.num_taken_over, self.num_left_out = self._take_over(others)
                self.num_again = self._begin_again(retry_failed=retry_failed)
        except BaseException:
            self._journal.close()
            raise

    def _take_over(self, others: Sequence[Study]) -> tuple[int, int]:
        """Copies what lies in this space from the searches over others; returns how many trials do, and do not."""
        import optuna

        known = {self._space.key(values_of(trial)) for trial in self._trials()}
        num_taken, num_left = 0, 0
        for trial in (each for study in others for each in counted(study.get_trials(deepcopy=False))):
            values = values_of(trial)
            if not self._space.holds(values):
                num_left += 1
            elif (key := self._space.key(values)) not in known:
                known.add(key)
                num_taken += 1
                if not trial.state.is_finished():
                    kept = {k: v for k, v in notes.notes_for_continuing(trial).items() if k != notes.CONTINUES}
                    self._study.enqueue_trial(values, user_attrs=kept)
                    continue
                self._study.add_trial(
                    optuna.trial.create_trial(
                        state=trial.state,
                        value=trial.value,
                        params=values,
                        distributions=self._distributions,
                        user_attrs={k: v for k, v in trial.user_attrs.items() if k != notes.CONTINUES},
                        intermediate_values=trial.intermediate_values,
                    )
                )
        return num_taken, num_left

    def _begin_again(self, *, retry_failed: bool) -> int:
        """Writes down anew the trials that a killed process was at, and those that failed; returns how many."""
        from optuna.trial import TrialState

        broken = [trial for trial in self._trials() if trial.state == TrialState.RUNNING]
        failed = [trial for trial in self._trials() if retry_failed and is_worth_retrying(trial)]
        numbers = {trial.number for trial in (*broken, *failed)}
        again = [trial for trial in counted(self._trials()) if trial.number in numbers]
        for trial in again:
            self._study.enqueue_trial(values_of(trial), user_attrs=notes.notes_for_continuing(trial))
        for trial in broken:  # only now: who is killed here finds both the next time, and counts one
            self._study.tell(trial.number, state=TrialState.FAIL)
        return len(again)

    def _trials(self) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False)

    # -------------------------------------------------------------------------------------------- asking

    def is_waiting(self) -> bool:
        """Whether a trial is written down and not begun."""
        return any(trial.state.name == "WAITING" for trial in self._trials())

    def num_counted(self) -> int:
        """Trials so far, whatever became of them."""
        return len(counted(self._trials()))

    def ask(self) -> Trial:
        """The next trial: one that waits to be begun again, or one that the sampler proposes."""
        with self._journal.writing():
            trial = self._study.ask(self._distributions)
            for number, accuracy in enumerate(trial.user_attrs.get(notes.ACCURACIES, []), start=1):
                trial.report(accuracy, number)
        return trial

    def write_down_untried(self, tried: Mapping[Key, Any]) -> bool:
        """Writes down a combination that is not among those tried; returns whether there is one."""
        rng = random.Random(derive_seed(self._options.seed, "untried", len(tried)))
        values: dict[str, Value] | None = self._space.untried(tried, rng)
        if values is not None:
            with self._journal.writing():
                self._study.enqueue_trial(values)
        return values is not None

    def finished(self) -> dict[Key, int]:
        """The numbers of the trials that have ended and count, by what was typed for them."""
        done = [trial for trial in counted(self._trials()) if trial.state.is_finished()]
        return {self._space.key(values_of(trial)): trial.number for trial in done}

    # -------------------------------------------------------------------------------------------- telling

    def report(self, trial: Trial, steps: Sequence[int], val_accuracy: float) -> bool:
        """Notes the newest evaluation of a trial; returns whether it is to be stopped.

        Evaluations are compared by their number, not by their step: jobs may differ in their batch sizes.

        Args:
            trial: That runs.
            steps: Of all its evaluations.
            val_accuracy: Of the last, 0..1.
        """
        with self._journal.writing():
            trial.set_user_attr(notes.STEPS, list(steps))
            trial.report(val_accuracy, len(steps))
            return trial.should_prune()

    def tell(self, trial: Trial, state: str, value: float | None = None, **noted: Any) -> None:
        """Writes down how a trial has ended.

        Args:
            trial: That runs.
            state: `COMPLETE`, `PRUNED` or `FAIL`.
            value: Of a complete one.
            noted: What else there is to know of it.
        """
        from optuna.trial import TrialState

        with self._journal.writing():
            for name, known in noted.items():
                if known is not None:
                    trial.set_user_attr(name, known)
            self._study.tell(trial, value, state=TrialState[state])

    def tell_repeated(self, trial: Trial, number: int) -> None:
        """Ends a trial whose words are those of another as that one has ended."""
        earlier = self._trials()[number]
        with self._journal.writing():
            trial.set_user_attr(notes.REPEATS, number)
            for at, value in earlier.intermediate_values.items():
                trial.report(value, at)
        self.tell(trial, earlier.state.name, earlier.value if earlier.state.name == "COMPLETE" else None)

    # -------------------------------------------------------------------------------------------- results

    def results(self) -> list[TrialResult]:
        """The trials as people count them."""
        return results_of(self._trials(), self._space)

    def importances(self) -> dict[str, float]:
        """Each key's share in what sets the best quarter of the done trials apart, the largest first, 0..1.

        Source: PED-ANOVA, Watanabe et al. 2023 (arXiv 2304.10255).
        """
        from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

        return get_param_importances(self._study, evaluator=PedAnovaImportanceEvaluator(target_quantile=0.25))

    def close(self) -> None:
        """Lets other processes search here."""
        self._journal.close()


def _studies_of_ours(storage: Any, space: Space) -> list[Study]:
    """The searches in a file over other spaces than this one.

    Raises:
        ConfigError: They were made with other settings.
    """
    import optuna

    kept = [study for study in storage.get_all_studies() if _FIXED in study.user_attrs]
    for study in kept:
        differing = _differing(study.user_attrs[_FIXED], space.fixed)
        if differing:
            raise ConfigError(
                f"the earlier trials of this search had other settings: {'; '.join(differing)}",
                hint="type them again, or choose another sweep.name for a new search",
            )
    names = [study.study_name for study in kept if study.study_name != space.name()]
    return [optuna.load_study(study_name=name, storage=storage) for name in names]


def _differing(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    def said(words: Mapping[str, str], key: str) -> str:
        return f"{key}={words[key]}" if key in words else f"no {key}"

    keys = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    return [f"{said(before, key)}, and now {said(now, key)}" for key in keys]
