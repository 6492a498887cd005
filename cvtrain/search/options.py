"""How a search goes about it: how many trials, who proposes them, who stops them early.

Knows the values that are typed as `hydra.sweeper.*`; not what is searched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from cvtrain.suggestions import nearest

SAMPLERS = ("tpe", "random", "grid")
PRUNERS = ("median", "asha", "none")


@dataclass(frozen=True)
class SearchOptions:
    """What is typed as `hydra.sweeper.*`.

    Args:
        num_trials: In all, those of earlier commands in the same folder included.
        sampler: `tpe` learns from what was tried, `random` does not, `grid` tries every combination in a random order.
        pruner: `median` stops jobs worse than the median of those done, `asha` all but the best third, `none` nothing.
        num_startup_trials: Random trials before `tpe` learns, and finished ones before `median` stops any.
        num_warmup_evaluations: Of a job, before it may be stopped.
        seed: The proposals follow from it.
        batch_size: Jobs that are handed to a launcher at once; None for as many as it runs at the same time. Only for
            launchers that take jobs in batches.
    """

    num_trials: int = 20
    sampler: str = "tpe"
    pruner: str = "median"
    num_startup_trials: int = 5
    num_warmup_evaluations: int = 2
    seed: int = 0
    batch_size: int | None = None

    def problems(self) -> list[str]:
        """What is wrong with the values, a sentence each."""
        least = {"num_trials": 1, "num_startup_trials": 1, "num_warmup_evaluations": 0, "seed": 0, "batch_size": 1}
        found = [
            f"hydra.sweeper.{name}={getattr(self, name)}: a whole number, {low} or more"
            for name, low in least.items()
            if not (_is_whole(getattr(self, name), low) or (name == "batch_size" and self.batch_size is None))
        ]
        for name, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
            value = str(getattr(self, name))
            if value not in known:
                match = nearest(value, known)
                meant = f"did you mean {match}? " if match else ""
                found.append(f"hydra.sweeper.{name}={value}: {meant}There are {', '.join(known)}")
        return found


def _is_whole(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= low


def options_from(typed: Mapping[str, Any]) -> SearchOptions:
    """The options as Hydra has them; `null` for a pruner is `none`."""
    known = {field.name: typed[field.name] for field in fields(SearchOptions) if field.name in typed}
    if known.get("pruner") is None and "pruner" in known:
        known["pruner"] = "none"
    return SearchOptions(**known)
