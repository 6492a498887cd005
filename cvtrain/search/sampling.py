"""Who proposes the next trial, and who stops one early, by Optuna's methods.

Knows Optuna's samplers and pruners; not what a trial does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cvtrain.search.options import SearchOptions
from cvtrain.search.parameters import Parameter, Value
from cvtrain.search.trials import CONTINUES
from cvtrain.seeding import derive_seed

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial, TrialState


def sampler_of(options: SearchOptions, parameters: Mapping[str, Parameter]) -> SeededSampler:
    """The sampler of a search; `grid` needs one only where nothing is left to choose.

    Source: TPE is Bergstra et al. 2011, section 4; values of several keys are drawn together as in Falkner et al. 2018.
        Jobs that are still running count as poor ones, so that jobs at the same time differ.
    """
    from optuna.samplers import RandomSampler, TPESampler

    def make(seed: int) -> BaseSampler:
        if options.sampler == "tpe":
            return TPESampler(
                seed=seed, n_startup_trials=options.num_startup_trials, multivariate=True, constant_liar=True
            )
        return RandomSampler(seed=seed)

    return SeededSampler(make, parameters, seed=options.seed)


def pruner_of(options: SearchOptions) -> BasePruner:
    """The pruner of a search, which counts the evaluations of a job from 1.

    Source: `median` is the rule of Golovin et al. 2017 (Vizier), section 3.2.2; `asha` is Li et al. 2020, algorithm 2.
    """
    from optuna.pruners import MedianPruner, NopPruner, SuccessiveHalvingPruner

    if options.pruner == "median":
        return MedianPruner(options.num_startup_trials, n_warmup_steps=options.num_warmup_evaluations + 1)
    if options.pruner == "asha":
        return SuccessiveHalvingPruner(min_resource=options.num_warmup_evaluations + 1, reduction_factor=3)
    return NopPruner()


class SeededSampler:
    """Stands before one of Optuna's samplers: seeds it anew for each trial, and rounds what it draws.

    The draws of the n-th trial follow from the seed and n. So a search that is continued draws what it would have
    drawn without a break. Rounding happens before Optuna writes a value down: what it learns from is what was typed.
    """

    def __init__(self, make: Callable[[int], BaseSampler], parameters: Mapping[str, Parameter], *, seed: int) -> None:
        self._make, self._parameters, self._seed = make, parameters, seed
        self._sampler = make(0)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Seeds the sampler for a trial; one that only continues another does not count."""
        num_again = sum(CONTINUES in each.user_attrs for each in study.get_trials(deepcopy=False))
        self._sampler = self._make(derive_seed(self._seed, "search", trial.number - num_again) % 2**32)
        self._sampler.before_trial(study, trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """What is drawn together."""
        return self._sampler.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draws what is drawn together."""
        drawn = self._sampler.sample_relative(study, trial, search_space)
        return {key: self._rounded(key, value) for key, value in drawn.items()}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draws one value."""
        return self._rounded(param_name, self._sampler.sample_independent(study, trial, param_name, param_distribution))

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Any) -> None:
        """Tells the sampler of the end of a trial."""
        self._sampler.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Nothing: each trial has its own seed."""

    def _rounded(self, key: str, value: Value) -> Value:
        return self._parameters[key].rounded(value)
