"""The trackers that there are, and what keeps them from being used.

Knows names of modules and packages, and imports none of them before it is needed.
"""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvtrain.config import Config
from cvtrain.trackers.tracked_run import TrackedRun
from cvtrain.trackers.tracker import Journal, Tracker


@dataclass(frozen=True)
class Option:
    """A tracker that can be chosen; its package comes with the extra of the same name.

    Args:
        module: Of `cvtrain.trackers`.
        name: Of its class.
        package: That it needs.
    """

    module: str
    name: str
    package: str

    def environment(self) -> dict[str, str]:
        """What its library is told by the environment, where the user's says nothing else."""
        return importlib.import_module(self.module).ENVIRONMENT


OPTIONS = {
    "tensorboard": Option("cvtrain.trackers.tensorboard", "TensorboardTracker", "tensorboard"),
    "mlflow": Option("cvtrain.trackers.mlflow", "MlflowTracker", "mlflow"),
    "wandb": Option("cvtrain.trackers.wandb", "WandbTracker", "wandb"),
}


def tracker_problems(config: Config) -> list[str]:
    """What keeps the chosen trackers from being used, found before anything is trained."""
    problems = []
    for option in config.get("tracker") or {}:
        if option not in OPTIONS:
            problems.append(f"tracker.{option}: is no tracker; there are {', '.join(OPTIONS)}")
        elif importlib.util.find_spec(OPTIONS[option].package) is None:
            problems.append(f"tracker={option} needs one package more: pip install 'cvtrain[{option}]'")
    return problems


def make_tracker(option: str, run: TrackedRun, journal: Journal | None) -> Tracker:
    """The tracker that a run's settings choose.

    Args:
        option: A key of `OPTIONS`.
        run: What is to be tracked.
        journal: What is known of its tracked run, if there is one.
    """
    found: Any = getattr(importlib.import_module(OPTIONS[option].module), OPTIONS[option].name)
    extra = {"output_dir": Path(run.config["output_dir"])} if option == "mlflow" else {}
    return found(run.config["tracker"][option], journal, **extra)
