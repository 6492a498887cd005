"""A run of Weights & Biases, in the run folder until it is uploaded.

Knows the library's settings that keep it to what it is asked for; not when there is something to send.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cvtrain.trackers.tracked_run import Row, TrackedRun
from cvtrain.trackers.tracker import Journal, Status

ENVIRONMENT = {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
"""Taken where the user's environment says nothing else."""


class WandbTracker:
    """A run of a project.

    Args:
        settings: Of `tracker=wandb`.
        journal: Of the run so far: rows that were sent are not sent once more, for nothing takes them back.
    """

    def __init__(self, settings: Mapping[str, Any], journal: Journal | None) -> None:
        self._settings = settings
        self.place = "/".join(str(settings[key] or "") for key in ("mode", "entity", "project"))
        self._is_there_up_to = journal.step if journal and journal.place == self.place else 0

    def start(self, run: TrackedRun, *, known_id: str | None, after_step: int) -> str:
        """Begins a run, or a further part of the known one: parts of one id are uploaded as one run."""
        import wandb

        settings = wandb.Settings(
            console="off",
            disable_git=True,
            disable_code=True,
            save_code=False,
            silent=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        self._run = wandb.init(
            project=self._settings["project"],
            entity=self._settings["entity"],
            mode=self._settings["mode"],
            name=self._settings["run_name"] or run.name,
            tags=self._settings["tags"],
            group=run.group,
            id=known_id,
            resume="allow" if known_id and self._settings["mode"] == "online" else None,
            dir=run.path,
            config=run.parameters() | run.labels(),
            settings=settings,
            allow_val_change=True,
        )
        return self._run.id

    def add_rows(self, rows: Sequence[Row]) -> None:
        """Logs each row that is not there yet, at its step."""
        for row in (row for row in rows if row.step > self._is_there_up_to):
            self._run.log({"step": row.step, **row.values}, step=row.step, commit=True)

    def add_figures(self, figures: Mapping[str, float], *, step: int) -> None:
        """Puts each figure into the summary."""
        self._run.summary.update(dict(figures))

    def add_files(self, run: TrackedRun) -> None:
        """Logs pictures, and as one artefact the documents and checkpoints, which are read where they lie."""
        import wandb

        pictures = {f"plots/{path.stem}": wandb.Image(str(path)) for path in run.plots()}
        if pictures:
            self._run.log(pictures)
        artefact = wandb.Artifact(f"run-{self._run.id}", type="run")
        for path in [*run.documents(), *run.checkpoints(self._settings["checkpoints"])]:
            artefact.add_file(str(path), policy="immutable", skip_cache=True)
        self._run.log_artifact(artefact)

    def finish(self, status: Status) -> None:
        """Ends the run, and the process that the library keeps beside it."""
        import wandb

        self._run.finish(exit_code=0 if status == "done" else 1)
        wandb.teardown()
