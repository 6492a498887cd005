"""Commands that are tracked, each in a process of its own, and what trackers have kept of them."""

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

TINY = ["data.max_per_class=12", "trainer.batch_size=32", "model=linear"]


@dataclass(frozen=True)
class Tracked:
    """A command that has ended, and the folder of its run."""

    code: int
    out: str
    err: str
    run: Path

    @property
    def card(self) -> dict:
        return json.loads((self.run / "run.json").read_text())


def start(*words: str, cwd: Path, **environment: str) -> subprocess.Popen:
    """Starts a command."""
    return subprocess.Popen(
        [sys.executable, "-m", "cvtrain", *words],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def track(folder: Path, *words: str, **environment: str) -> Tracked:
    """Runs a command in a folder that holds no run, or the one that it resumes."""
    folder.mkdir(exist_ok=True, parents=True)
    process = start(*words, cwd=folder, **environment)
    out, err = process.communicate(timeout=120)
    (run,) = folder.glob("outputs/train/*/*")
    return Tracked(process.returncode, out, err, run)


def steps_of(run: Path) -> list[int]:
    """Those of metrics.csv."""
    lines = (run / "metrics.csv").read_text().splitlines()[1:]
    return [int(line.split(",")[1]) for line in lines]


def journal(run: Path, option: str) -> dict:
    """What the run folder knows of its tracked run; nothing where there is none."""
    path = run / "trackers" / f"{option}.json"
    return json.loads(path.read_text()) if path.exists() else {}


def wait_until(is_so: Callable[[], object], *, seconds: float = 60) -> None:
    """Waits for what other processes do."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.05)


def tensorboard_events(folder: Path):
    """Event files as TensorBoard itself reads them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def tensorboard_steps(folder: Path, tag: str) -> list[int]:
    return [event.step for event in tensorboard_events(folder).Scalars(tag)]


def mlflow_client(run: Path):
    """The store that a run was told to, and its name there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own imports use what other packages will give up
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=journal(run, "mlflow")["place"])
        client.search_experiments()
    return client, journal(run, "mlflow")["run_id"]


def mlflow_steps(run: Path, name: str) -> list[int]:
    client, run_id = mlflow_client(run)
    return sorted(metric.step for metric in client.get_metric_history(run_id, name))
