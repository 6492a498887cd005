"""What a run folder tells a tracker: settings, rows, figures and files, as plain values.

Knows the files of a run; not what a tracker does with them, nor who writes them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvtrain import schema
from cvtrain.config import load_config
from cvtrain.outputs import RunDir, is_job

_CHECKPOINT = re.compile(r"(step|best)-(\d{9})-[0-9a-f]{16}\.ckpt")
_NOT_OF_THE_RUN = ("tracker", "sweep", "plugins", "choices")
"""Settings that say nothing of what is trained."""


@dataclass(frozen=True)
class Row:
    """The figures at one evaluation.

    Args:
        step: Steps taken so far.
        values: By the names of metrics.csv, accuracies 0..1; without those that were not measured.
    """

    step: int
    values: Mapping[str, float]


class TrackedRun:
    """A run folder, read while another process writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.name = path.name
        self._run_dir = RunDir(self.path)
        self.config = load_config(path)

    @property
    def group(self) -> str | None:
        """The sweep that the run is a job of, if it is one."""
        return self.path.parent.name if is_job(self.path) else None

    def parameters(self) -> dict[str, Any]:
        """The settings by dotted name, and by the name of each group its option: numbers, words, true and false."""
        settings = {k: v for k, v in self.config.items() if k not in _NOT_OF_THE_RUN}
        chosen = {k: v for k, v in self.config["choices"].items() if v is not None and k not in ("task", "tracker")}
        flat = {k: v for k, v in schema.leaves(settings) if not k.endswith("_target_")}
        return {k: v if isinstance(v, bool | int | float | str) else json.dumps(v) for k, v in (chosen | flat).items()}

    def labels(self) -> dict[str, str]:
        """What the run was made with: versions, and the state of the user's own repository."""
        card = self._run_dir.read_card()
        found = {f"version.{name}": str(version) for name, version in (card.get("versions") or {}).items()}
        git = card.get("git") or {}
        if git:
            found |= {"git.commit": str(git["commit"]), "git.dirty": str(bool(git["dirty"])).lower()}
        return found | ({"sweep": self.group} if self.group else {})

    def rows(self) -> list[Row]:
        """The evaluations up to the newest checkpoint: those after it are made again by a run that goes on from it."""
        steps = [int(match[2]) for path in self._checkpoints() if (match := _CHECKPOINT.fullmatch(path.name))]
        try:
            text = self._run_dir.read_metrics()
        except FileNotFoundError:
            return []
        rows = [Row(int(row["step"]), _numbers(row)) for row in text if _is_whole(row)]
        return [row for row in rows if row.step <= max(steps, default=0)]

    def figures(self) -> dict[str, float]:
        """The numbers of the run card: of the test, of the best evaluation, and of the whole run."""
        card = self._run_dir.read_card()
        found = {f"test_{k}": v for k, v in (card.get("test") or {}).items()}
        found |= {
            f"best_{k}": v for k, v in (card.get("best") or {}).items() if k in ("step", "val_loss", "val_accuracy")
        }
        found |= {k: card.get(k) for k in ("steps", "epochs", "num_parameters")}
        return {"total_seconds": card.get("seconds", 0.0)} | {k: v for k, v in found.items() if schema.is_number(v)}

    def plots(self) -> list[Path]:
        """The pictures of the run."""
        return sorted(self._run_dir.plots_dir.glob("*.png"))

    def documents(self) -> list[Path]:
        """The files that a person looks at, as far as there are any."""
        names = ("report.html", "config.yaml", "metrics.csv", "predictions.csv")
        return [path for name in names if (path := self.path / name).is_file()]

    def checkpoints(self, which: str) -> list[Path]:
        """The best checkpoint, all of them, or none."""
        pattern = {"best": "best-*.ckpt", "all": "*.ckpt", "none": ""}[which]
        return [path for path in self._checkpoints() if pattern and path.match(pattern)]

    def _checkpoints(self) -> list[Path]:
        return sorted(p for p in self._run_dir.checkpoint_dir.glob("*.ckpt") if _CHECKPOINT.fullmatch(p.name))


def _is_whole(row: Mapping[str | None, str | None]) -> bool:
    """Whether all of a row has been written by now."""
    return None not in row and None not in row.values() and str(row["step"]).isdecimal()


def _numbers(row: Mapping[str, str]) -> dict[str, float]:
    numbers = {name: float(cell) for name, cell in row.items() if name != "step" and cell}
    return {name: number for name, number in numbers.items() if math.isfinite(number)}
