"""`hydra/sweeper=search`: the values that are worth trying, found with Optuna.

Knows Hydra's interfaces of sweepers and launchers; the search is that of `cvtrain.search`.
"""

# Hydra executes this module in a way that annotations as strings do not survive.
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper


@dataclass
class _Options:
    _target_: str = "hydra_plugins.cvtrain_search.SearchSweeper"
    params: Any = None  # what an experiment searches: {key: values}
    num_trials: int = 20  # in all, those of earlier commands in the same folder included
    sampler: str = "tpe"  # tpe, random, grid
    pruner: Optional[str] = "median"  # noqa: UP045 - Hydra's own spelling; median, asha, none
    num_startup_trials: int = 5  # random ones before tpe learns, and done ones before median stops any
    num_warmup_evaluations: int = 2  # of a job, before it may be stopped
    seed: int = 0  # the proposals follow from it
    batch_size: Optional[int] = None  # noqa: UP045 - jobs at once, for other launchers than isolated


ConfigStore.instance().store(group="hydra/sweeper", name="search", node=_Options, provider="cvtrain")


class SearchSweeper(Sweeper):
    """Gives the launcher one trial after the other, and learns from each."""

    def __init__(self, params: Any = None, **options: Any) -> None:
        self._params, self._options = dict(params or {}), options

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        """Takes what Hydra has, and the launcher that was chosen."""
        from cvtrain.search.stream import check_installed

        check_installed()
        self._job, self._config = task_function, config
        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> Any:
        """Searches."""
        from cvtrain.search.options import options_from
        from cvtrain.search.space import space_of
        from cvtrain.search.stream import SearchStream

        typed = [f"{key}={values}" for key, values in self._params.items() if values is not None]
        space = space_of(OverridesParser.create().parse_overrides([*typed, *arguments]))
        options = options_from(self._options)
        retry_failed = bool((self._config.get("sweep") or {}).get("retry_failed", True))
        flags = getattr(self._job, "flags", ())
        stream = SearchStream(space, options, self._job.sweep_dir, flags=flags, retry_failed=retry_failed)
        try:
            self._run(stream, options)
        except BaseException:
            stream.abandon()
            raise
        stream.close()

    def _run(self, stream: Any, options: Any) -> None:
        from cvtrain.console import Console
        from cvtrain.search.batches import run_in_batches

        if hasattr(self._launcher, "stream"):
            if options.batch_size is not None:
                Console().warn("hydra.sweeper.batch_size is for launchers that take batches; here type sweep.jobs=N")
            self._launcher.stream(stream)
            return
        if options.pruner != "none":
            Console().say("this launcher tells of jobs when they have ended: none is stopped early")
        batch_size = options.batch_size or _num_at_once(self._config.hydra.launcher)
        run_in_batches(stream, self._launch, batch_size=batch_size, console=Console())

    def _launch(self, batch: Sequence[tuple[str, ...]], number: int) -> list[Any]:
        returned = self._launcher.launch([list(words) for words in batch], initial_job_idx=number)
        return [_outcome(words, each) for words, each in zip(batch, returned, strict=True)]


def _num_at_once(launcher: Any) -> int:
    """How many jobs a launcher runs at the same time, as far as it says."""
    num = launcher.get("n_jobs")
    return num if isinstance(num, int) and num > 0 else len(os.sched_getaffinity(0))


def _outcome(words: tuple[str, ...], returned: JobReturn) -> Any:
    from cvtrain.jobs.stream import JobOutcome

    value = returned._return_value  # the property prints, and raises what the job has raised
    if returned.status != JobStatus.COMPLETED:
        return JobOutcome(words, "failed", 1, error=" ".join(f"{type(value).__name__}: {value}".split())[:300])
    if not isinstance(value, int | float) or math.isnan(value):
        return JobOutcome(words, "failed", 1, error="it has said why, or has no validation accuracy")
    return JobOutcome(words, "done", 0, value=float(value))
