"""A run in an MLflow store: a file beside the runs, or a server.

Knows MLflow's client, and none of its global state; not when there is something to send.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from cvtrain.data.file_lock import hold_lock
from cvtrain.trackers.tracked_run import Row, TrackedRun
from cvtrain.trackers.tracker import Journal, Status, link_or_copy

ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds; MLflow's own patience with a server that is not there is minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}
"""Taken where the user's environment says nothing else."""

_SQLITE = "sqlite:///"
_MAX_PARAMETERS, _MAX_METRICS = 100, 1000
"""In one call. Source: MLflow, REST API, `runs/log-batch`."""
_MAX_CHARACTERS = 6000
"""Of a parameter's value. Source: MLflow, `MAX_PARAM_VAL_LENGTH`."""
_STATUSES = {"done": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MlflowTracker:
    """A run of an experiment.

    Args:
        settings: Of `tracker=mlflow`.
        journal: Of the run so far: without a `uri` it goes on where it began.
        output_dir: Where the store is made if no other is named.
    """

    def __init__(self, settings: Mapping[str, Any], journal: Journal | None, output_dir: Path) -> None:
        self._settings = settings
        default = journal.place if journal else f"{_SQLITE}{output_dir.absolute() / 'mlflow.db'}"
        self.place = _absolute(settings["uri"]) if settings["uri"] else default

    def start(self, run: TrackedRun, *, known_id: str | None, after_step: int) -> str:
        """Makes a run, or opens the known one again; rows that it has are not sent once more."""
        from mlflow import MlflowClient

        with _alone(self.place):  # several jobs that begin at once would all make the tables
            self._client = MlflowClient(tracking_uri=self.place)
            self._run_id = known_id or self._new_run(run)
        known = self._client.get_run(self._run_id)
        self._is_there_up_to = max(self._steps_there(), default=0)
        if known_id:
            self._client.update_run(self._run_id, status="RUNNING")
        self._log_parameters(run.parameters(), known.data.params)
        for name, label in run.labels().items():
            self._client.set_tag(self._run_id, name, label)
        return self._run_id

    def _new_run(self, run: TrackedRun) -> str:
        name = self._settings["experiment"]
        experiment = self._client.get_experiment_by_name(name)
        experiment_id = experiment.experiment_id if experiment else self._new_experiment(name)
        tags = {"mlflow.source.name": "cvtrain", **{str(k): str(v) for k, v in self._settings["tags"].items()}}
        return self._client.create_run(experiment_id, run_name=run.name, tags=tags).info.run_id

    def _new_experiment(self, name: str) -> str:
        """Its artefacts lie beside a store that is a file, and not in whichever folder a command was typed in."""
        database = _database(self.place)
        folder = (database.parent / "mlflow-artifacts").as_uri() if database else None
        return self._client.create_experiment(name, artifact_location=folder)

    def _steps_there(self) -> list[int]:
        return [metric.step for metric in self._client.get_metric_history(self._run_id, "epoch")]

    def _log_parameters(self, parameters: Mapping[str, Any], known: Mapping[str, str]) -> None:
        """Parameters cannot be changed: what a run that goes on has changed becomes a tag."""
        from mlflow.entities import Param

        texts = {
            name: (str(value).lower() if isinstance(value, bool) else str(value))[:_MAX_CHARACTERS]
            for name, value in parameters.items()
        }
        new = [Param(name, text) for name, text in texts.items() if name not in known]
        for i in range(0, len(new), _MAX_PARAMETERS):
            self._client.log_batch(self._run_id, params=new[i : i + _MAX_PARAMETERS])
        for name, text in texts.items():
            if known.get(name, text) != text:
                self._client.set_tag(self._run_id, f"changed.{name}", text)

    def add_rows(self, rows: Sequence[Row]) -> None:
        """Sends those that are not there yet: a store forgets no row, and would show two of one step."""
        for row in rows:
            if row.step > self._is_there_up_to:
                self._log_metrics(row.values, row.step)

    def add_figures(self, figures: Mapping[str, float], *, step: int) -> None:
        """Sends each figure as a metric."""
        self._log_metrics(figures, step)

    def _log_metrics(self, values: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, step) for name, value in values.items()]
        for i in range(0, len(metrics), _MAX_METRICS):
            self._client.log_batch(self._run_id, metrics=metrics[i : i + _MAX_METRICS])

    def add_files(self, run: TrackedRun) -> None:
        """Sends them; on this disk a checkpoint gets a second name instead of a copy, for it may be large."""
        for path in run.documents():
            self._client.log_artifact(self._run_id, str(path))
        for path in run.plots():
            self._client.log_artifact(self._run_id, str(path), "plots")
        root = urlsplit(self._client.get_run(self._run_id).info.artifact_uri)
        for path in run.checkpoints(self._settings["checkpoints"]):
            if root.scheme == "file":
                link_or_copy(path, Path(unquote(root.path)) / "checkpoints" / path.name)
            else:
                self._client.log_artifact(self._run_id, str(path), "checkpoints")

    def finish(self, status: Status) -> None:
        """Sets the status."""
        self._client.set_terminated(self._run_id, status=_STATUSES[status])


def _database(uri: str) -> Path | None:
    """The file of a store that is one."""
    return Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None


def _absolute(uri: str) -> str:
    database = _database(uri)
    return f"{_SQLITE}{database.expanduser().absolute()}" if database else uri


@contextlib.contextmanager
def _alone(uri: str) -> Iterator[None]:
    """Keeps other processes of ours from the store for the time of the block, if it is a file."""
    database = _database(uri)
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with hold_lock(database.with_name(f"{database.name}.lock"), lambda: None):
        yield
