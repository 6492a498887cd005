"""The jobs of a sweep parted into arms, each with its grid of learning rates, and the rate chosen for each arm.

Knows rows of the leaderboard; not how arms are compared.

Keys that are swept are of four kinds. Seeds (`seed`, `data.seed`, any `*.seed`) make runs that are averaged.
`optimizer.lr` is tuned: each arm takes its own best value, by validation. `name` and `output_dir` change nothing. All
others, `optimizer.weight_decay` too, make arms: whoever sweeps them wants to see what they do.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from cvtrain.analysis.comparison import MeanResult, PairedDifferenceResult, mean_and_sd
from cvtrain.sweeps.leaderboard import JobResult, lr_of, swept_keys

TUNED_KEY = "optimizer.lr"
NEUTRAL_KEYS = ("name", "output_dir")

Verdict = Literal["best", "worse", "not_distinguishable", "undecided", "not_comparable", "no_result"]


@dataclass(frozen=True)
class CostResult:
    """What a job of a cell takes on average; figures that no job tells are None.

    Args:
        seconds: From start to end.
        images_per_second: In training.
        num_parameters: Of the model.
        devices: On which the jobs were trained.
    """

    seconds: float | None
    images_per_second: float | None
    num_parameters: float | None
    devices: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """The jobs of one arm at one learning rate, which differ in their seeds.

    Args:
        lr: None where none was typed.
        jobs: At least one, whatever became of them.
        seed_keys: Swept keys, beside `seed`, that are seeds.
    """

    lr: float | None
    jobs: tuple[JobResult, ...]
    seed_keys: tuple[str, ...] = ()

    @cached_property
    def done(self) -> dict[Hashable, JobResult]:
        """The jobs that can be compared, by seeds and split: what must be equal in both runs of a pair."""
        return {
            (job.seed, job.split_hash, *(job.overrides.get(key) for key in self.seed_keys)): job
            for job in self.jobs
            if job.is_done
        }

    @property
    def is_whole(self) -> bool:
        """Whether every job came to its end."""
        return all(job.is_done for job in self.jobs)

    @property
    def test_accuracies(self) -> dict[Hashable, float]:
        """Of the jobs that are done, 0..1."""
        return {key: job.test_accuracy for key, job in self.done.items() if job.test_accuracy is not None}

    @property
    def val_accuracies(self) -> list[float]:
        """Of the jobs that are done, 0..1; empty unless all of them were validated."""
        found = [job.val_accuracy for job in self.done.values() if job.val_accuracy is not None]
        return found if len(found) == len(self.done) else []

    @property
    def cost(self) -> CostResult:
        """Of the jobs that are done."""
        done = list(self.done.values())
        means = [_mean_of(done, name) for name in ("seconds", "images_per_second", "num_parameters")]
        return CostResult(*means, tuple(sorted({job.device for job in done if job.device})))

    @property
    def num_pruned(self) -> int:
        """Jobs that a search ended early."""
        return sum(job.status == "pruned" for job in self.jobs)

    def merit(self) -> tuple[float, float]:
        """What a learning rate is chosen by, more is better: mean validation accuracy, then validation loss."""
        losses = [math.inf if job.val_loss is None else job.val_loss for job in self.done.values()]
        return mean_and_sd(self.val_accuracies)[0], -sum(losses) / len(losses)

    def troubles(self) -> str:
        """What kept jobs from their end, e.g. `2 of 3 jobs diverged`; empty where nothing did."""
        lost = [job for job in self.jobs if not job.is_done]
        num_diverged = sum(job.stop_reason == "diverged" for job in lost)
        num_failed = sum(job.status in ("failed", "done") for job in lost) - num_diverged
        num_open = len(lost) - num_diverged - num_failed - self.num_pruned
        counts = (
            (num_diverged, "diverged"),
            (num_failed, "failed"),
            (num_open, "not finished"),
            (self.num_pruned, "pruned"),
        )
        said = [f"{num} of {len(self.jobs)} jobs {what}" for num, what in counts if num]
        return ", ".join(said)


@dataclass(frozen=True)
class Arm:
    """One choice of everything that is neither tuned nor a seed.

    Args:
        name: Its words, e.g. `model=mlp optimizer=adam`; `all runs` where there is one arm.
        settings: Its words by key.
        cells: One per learning rate, smallest first.
    """

    name: str
    settings: Mapping[str, str]
    cells: tuple[Cell, ...]

    @property
    def lrs(self) -> list[float]:
        """Learning rates that were tried, smallest first."""
        return [cell.lr for cell in self.cells if cell.lr is not None]

    @cached_property
    def chosen(self) -> Cell | None:
        """The cell with the best mean validation accuracy; None where nothing is done or nothing was validated.

        Test accuracies have no say. A learning rate at which a job failed is chosen only if that holds for all.
        """
        if len(self.cells) == 1:
            return self.cells[0] if self.cells[0].done else None
        able = [cell for cell in self.cells if cell.val_accuracies]
        whole = [cell for cell in able if cell.is_whole]
        return max(whole or able, key=Cell.merit, default=None)

    @property
    def is_chosen_at_edge(self) -> bool:
        """Whether the chosen learning rate is the smallest or the largest that was tried."""
        if self.chosen is None or self.chosen.lr is None or len(self.lrs) < 2:
            return False
        return self.chosen.lr in (self.lrs[0], self.lrs[-1])


@dataclass(frozen=True)
class ArmResult:
    """One arm at its chosen learning rate, compared with the best one.

    Args:
        arm: With its grid.
        test: Accuracy, 0..1, over seeds; None without a result.
        difference: Best minus this arm, paired; None for the best itself, and without a result.
        p_value: After Holm's correction; None where no claim can be made.
        verdict: `worse` and `not_distinguishable` are tested, `undecided` is not.
        time_share: Seconds that a job of this arm takes, as a share of those of the best one; None where they are not
            known, or were not measured on one and the same kind of device.
    """

    arm: Arm
    test: MeanResult | None
    difference: PairedDifferenceResult | None
    p_value: float | None
    verdict: Verdict
    time_share: float | None = None


def arms_of(
    results: Sequence[JobResult],
    *,
    swept: Collection[str] | None = None,
    lr_is_tuned: bool = True,
    absent: str | None = "default",
) -> list[Arm]:
    """Parts jobs into arms, in the order in which they come; of jobs that were typed twice the last counts.

    Args:
        results: From `leaderboard.read_jobs`.
        swept: The keys that the sweep varies; None takes those that differ.
        lr_is_tuned: Whether learning rates make a grid within an arm; else each of them makes an arm.
        absent: What to call a setting that an arm has no word for; None leaves it out.
    """
    keys = swept_keys(results) if swept is None else list(swept)
    seed_keys = tuple(key for key in keys if key.rpartition(".")[2] == "seed")
    others = (*seed_keys, *NEUTRAL_KEYS, *((TUNED_KEY,) if lr_is_tuned else ()))
    arm_keys = [key for key in keys if key not in others]
    arms: dict[tuple[str | None, ...], list[JobResult]] = {}
    for result in _latest(results):
        arms.setdefault(tuple(result.overrides.get(key) for key in arm_keys), []).append(result)
    found = []
    for words, jobs in arms.items():
        named = {key: absent if word is None else word for key, word in zip(arm_keys, words, strict=True)}
        settings = {key: word for key, word in named.items() if word is not None}
        name = " ".join(f"{key}={word}" for key, word in settings.items()) or "all runs"
        found.append(Arm(name, settings, _cells(jobs, tuple(key for key in seed_keys if key != "seed"))))
    return found


def _latest(results: Sequence[JobResult]) -> list[JobResult]:
    """Without jobs that were tried again."""
    latest = {}
    for result in results:
        words = frozenset(item for item in result.overrides.items() if item[0] not in NEUTRAL_KEYS)
        latest[words, result.seed] = result
    return list(latest.values())


def _mean_of(jobs: Sequence[JobResult], name: str) -> float | None:
    """Of those that tell the figure."""
    values = [value for job in jobs if (value := getattr(job, name)) is not None]
    return mean_and_sd(values)[0] if values else None


def _cells(jobs: Sequence[JobResult], seed_keys: tuple[str, ...]) -> tuple[Cell, ...]:
    by_lr: dict[float | None, list[JobResult]] = {}
    for job in jobs:
        by_lr.setdefault(lr_of(job), []).append(job)
    ordered = sorted(by_lr, key=lambda lr: -math.inf if lr is None else lr)
    return tuple(Cell(lr, tuple(by_lr[lr]), seed_keys) for lr in ordered)
