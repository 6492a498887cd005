"""A run as TensorBoard event files.

Knows TensorBoard's own writer, which needs neither torch nor TensorFlow; not when there is something to write.
Event files hold figures and pictures, no other files: checkpoints and reports stay where they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cvtrain.trackers.tracked_run import Row, TrackedRun
from cvtrain.trackers.tracker import Journal, Status

ENVIRONMENT: dict[str, str] = {}
"""What the library is told by the environment: nothing."""

IN_RUN_FOLDER = "the run folder"


class TensorboardTracker:
    """Event files in the run folder, or in a folder of the run's own below another one.

    Args:
        settings: Of `tracker=tensorboard`.
        journal: Of the run so far.
    """

    def __init__(self, settings: Mapping[str, Any], journal: Journal | None) -> None:
        self._dir = settings["dir"] and Path(settings["dir"]).expanduser().absolute()
        self._with_plots = settings["plots"]
        self.place = str(self._dir) if self._dir else IN_RUN_FOLDER
        if journal and self._dir and str(self._dir) != journal.place and not Path(settings["dir"]).is_absolute():
            self.place = journal.place  # the command that goes on was typed in another folder
            self._dir = Path(journal.place)

    def start(self, run: TrackedRun, *, known_id: str | None, after_step: int) -> str:
        """Opens a new event file, which takes back what earlier ones say of steps after the last one that counts."""
        from tensorboard.compat.proto import event_pb2
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder = self._dir / run.path.parent.name / run.name if self._dir else run.path / "tensorboard"
        is_new = known_id is None and not any(folder.glob("*tfevents*"))
        self._writer = EventFileWriter(str(folder))
        if not is_new:
            starts = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._add(after_step + 1 if after_step else 0, session_log=starts)
        if after_step == 0:
            self._add(0, summary=hparams_pb(run.parameters(), trial_id=run.name))
            self._add(0, summary=_text("labels", run.labels()))
        self._writer.flush()
        return str(folder)

    def add_rows(self, rows: Sequence[Row]) -> None:
        """Writes a scalar for each figure."""
        for row in rows:
            self._add_scalars(row.values, row.step)
        self._writer.flush()

    def add_figures(self, figures: Mapping[str, float], *, step: int) -> None:
        """Writes a scalar for each figure."""
        self._last_step = step
        self._add_scalars(figures, step)

    def add_files(self, run: TrackedRun) -> None:
        """Writes the pictures, if they are wanted."""
        from PIL import Image
        from tensorboard.compat.proto import summary_pb2

        for path in run.plots() if self._with_plots else []:
            with Image.open(path) as picture:
                width, height = picture.size
            image = summary_pb2.Summary.Image(
                width=width, height=height, colorspace=4, encoded_image_string=path.read_bytes()
            )
            value = summary_pb2.Summary.Value(tag=f"plots/{path.stem}", image=image)
            self._add(self._last_step, summary=summary_pb2.Summary(value=[value]))

    def finish(self, status: Status) -> None:
        """Closes the file; event files know no status."""
        self._writer.close()

    def _add_scalars(self, values: Mapping[str, float], step: int) -> None:
        from tensorboard.compat.proto import summary_pb2

        scalars = [summary_pb2.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(step, summary=summary_pb2.Summary(value=scalars))

    def _add(self, step: int, **what: Any) -> None:
        import time

        from tensorboard.compat.proto import event_pb2

        self._writer.add_event(event_pb2.Event(wall_time=time.time(), step=step, **what))


def _text(tag: str, values: Mapping[str, str]) -> Any:
    """A table of texts, as TensorBoard's text tab shows it."""
    from tensorboard.compat.proto import summary_pb2, tensor_pb2, types_pb2

    rows = [f"| {name} | {value} |" for name, value in values.items()]
    table = "\n".join(["| | |", "|---|---|", *rows])
    tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, string_val=[table.encode()])
    plugin = summary_pb2.SummaryMetadata.PluginData(plugin_name="text")
    metadata = summary_pb2.SummaryMetadata(plugin_data=plugin)
    return summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)])
