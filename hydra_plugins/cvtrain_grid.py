"""`hydra/sweeper=grid`, the default: every combination of the values that are typed.

Knows Hydra's interface of sweepers; which combinations there are is known to `cvtrain.jobs.grid`.
"""

# Hydra executes this module in a way that annotations as strings do not survive.
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper


@dataclass
class _Options:
    _target_: str = "hydra_plugins.cvtrain_grid.GridSweeper"
    params: Any = None  # what an experiment sweeps over: {key: values}


ConfigStore.instance().store(group="hydra/sweeper", name="grid", node=_Options, provider="cvtrain")


class GridSweeper(Sweeper):
    """Gives the launcher all combinations at once; they have been checked before Hydra was asked."""

    def __init__(self, params: Any = None) -> None:
        self._params = dict(params or {})

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        """Takes what Hydra has, and the launcher that was chosen."""
        self._job = task_function
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Runs every combination."""
        from cvtrain.jobs.grid import combinations

        typed = [f"{key}={values}" for key, values in self._params.items() if values is not None]
        jobs = combinations([*typed, *arguments])
        if not hasattr(self._launcher, "stream"):
            jobs = self._job.to_do(jobs)  # others begin a process, or wait in a queue, only to find a job done
        return self._launcher.launch([list(words) for words in jobs], initial_job_idx=0) if jobs else []
