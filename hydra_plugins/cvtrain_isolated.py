"""`hydra/launcher=isolated`, the default: every job of a multirun is a process of its own.

Knows Hydra's interface of launchers; the work is that of `cvtrain.jobs`.
"""

# Hydra executes this module in a way that annotations as strings do not survive.
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher


@dataclass
class _Options:
    _target_: str = "hydra_plugins.cvtrain_isolated.IsolatedLauncher"


ConfigStore.instance().store(group="hydra/launcher", name="isolated", node=_Options, provider="cvtrain")


class IsolatedLauncher(Launcher):
    """Runs jobs in processes of their own, as `sweep.jobs` and its neighbours say."""

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        """Takes what Hydra has; the task function is a `cvtrain.jobs.job.SweepJob`."""
        self._job = task_function

    def stream(self, stream: Any) -> None:
        """Runs the jobs of a `cvtrain.jobs.stream.JobStream` until it is over."""
        self._job.drive(stream)

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs a batch of jobs, as sweepers ask for that know no streams."""
        from cvtrain.jobs.stream import FixedJobs

        jobs = FixedJobs([tuple(word.lstrip("+") for word in words) for words in job_overrides])
        self.stream(jobs)
        values = {outcome.words: outcome.value for outcome in jobs.outcomes}
        return [_returned(words, value=values.get(plain)) for words, plain in zip(job_overrides, jobs.all, strict=True)]


def _returned(words: Sequence[str], *, value: float | None) -> JobReturn:
    returned = JobReturn(overrides=list(words), status=JobStatus.COMPLETED)
    returned.return_value = float("nan") if value is None else value
    return returned
