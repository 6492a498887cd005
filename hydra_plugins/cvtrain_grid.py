"""`hydra/sweeper=grid`, the default: every combination of the values that are typed.

Knows Hydra's interface of sweepers; which combinations there are is known to `cvtrain.jobs.grid`.
"""

# Hydra executes this module in a way that annotations as strings do not survive.
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper

_LOOK_EVERY_SECONDS = 0.5


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
        self._job, self._hydra = task_function, config.hydra
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Runs every combination."""
        from cvtrain.jobs.grid import combinations

        typed = [f"{key}={values}" for key, values in self._params.items() if values is not None]
        jobs = combinations([*typed, *arguments])
        if hasattr(self._launcher, "stream"):
            return self._launch(jobs)
        return self._run_what_is_left(jobs)

    def _launch(self, jobs: Sequence[tuple[str, ...]]) -> Any:
        return self._launcher.launch([list(words) for words in jobs], initial_job_idx=0)

    def _run_what_is_left(self, jobs: Sequence[tuple[str, ...]]) -> None:
        """Launches each job once, and waits for those that other processes are at work on.

        Other launchers would begin a process, or wait in a queue, only to find a job done.
        """
        from cvtrain.console import Console

        launched: set[Any] = set()
        trouble, has_said = None, False
        while left := self._job.to_do(jobs):
            free = {folder.path: words for words, folder in left.items() if folder.state() != "running"}
            new = {path: words for path, words in free.items() if path not in launched}
            if new and trouble is None:
                launched |= set(new)
                trouble = self._trouble_of(list(new.values()))
            elif len(free) < len(left):
                if not has_said:
                    Console().say("waits for jobs that other processes are at work on")
                has_said = True
                time.sleep(_LOOK_EVERY_SECONDS)
            elif trouble is not None:
                raise trouble
            else:
                return

    def _trouble_of(self, jobs: Sequence[tuple[str, ...]]) -> Exception | None:
        """Launches jobs; returns why the launcher has given up, which it does while others of them still run."""
        from cvtrain.jobs.elsewhere import submitting, wait_for_slurm

        name, folder = self._hydra.runtime.choices["hydra/launcher"], Path(self._hydra.sweep.dir)
        with submitting(folder) if name.startswith("submitit") else contextlib.nullcontext():
            try:
                self._launch(jobs)
            except Exception as error:
                if name == "submitit_slurm":
                    wait_for_slurm(folder)
                return error
        return None
