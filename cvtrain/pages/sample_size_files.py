"""What the folder of a sample-size study holds, read back for its page: each file may be missing or damaged.

Knows files and plain values; neither curves nor pages.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvtrain.config import Config, load_config
from cvtrain.errors import CheckpointError
from cvtrain.outputs import RunDir
from cvtrain.pages.run_files import RunFiles, read_run
from cvtrain.sample_size.table import TABLE_NAME, Row, read_table

CURVE_NAME = "learning_curve.json"
_TRAINING_NAME = re.compile(r"n(\d+)-r(\d+)", re.ASCII)


@dataclass(frozen=True)
class Training:
    """One training, as its own run card tells of it.

    Args:
        name: Of its folder below `runs/`.
        per_class: Labelled images of each class.
        replicate: 0, 1, ...
        card: Its run card; empty where it cannot be read.
    """

    name: str
    per_class: int
    replicate: int
    card: Mapping[str, Any]

    @property
    def status(self) -> str:
        """`done`, `failed`, `stopped`, or `running`: its process works on it, or was killed."""
        return str(self.card.get("status", "running"))


@dataclass(frozen=True)
class StudyFiles:
    """What a folder says of a study.

    Args:
        run: Its card and config.
        rows: Of the trainings that are done, smallest size first.
        curve: learning_curve.json; empty where it cannot be read.
        trainings: All that were begun, ordered like the rows.
        courses: The config of one training of each size.
        troubles: A sentence on each file that is there and cannot be used.
    """

    run: RunFiles
    rows: tuple[Row, ...]
    curve: Mapping[str, Any]
    trainings: tuple[Training, ...]
    courses: Mapping[int, Config]
    troubles: tuple[str, ...]

    @property
    def num_planned(self) -> int:
        """Trainings of the whole study."""
        return int(self.run.card.get("num_runs") or len(self.trainings))

    @property
    def num_test(self) -> int | None:
        """Test images."""
        return self.curve.get("num_test")


def read_study(folder: Path) -> StudyFiles:
    """Reads the files of a study.

    Raises:
        CheckpointError: There is neither a run card nor a config that can be read.
    """
    run = read_run(folder)
    troubles = list(run.troubles)
    rows: list[Row] = []
    curve: dict[str, Any] = {}
    if (run.folder / TABLE_NAME).is_file():
        try:
            rows = sorted(read_table(run.folder), key=lambda row: (row.per_class, row.replicate))
        except (OSError, ValueError):
            troubles.append(f"{TABLE_NAME} cannot be used (it is damaged): what it tells is left out.")
    if (run.folder / CURVE_NAME).is_file():
        try:
            curve = _curve(run.folder / CURVE_NAME)
        except (OSError, ValueError, RecursionError):
            troubles.append(f"{CURVE_NAME} cannot be used (it is damaged): what it tells is left out.")
    trainings = _trainings(run.folder / "runs")
    return StudyFiles(run, tuple(rows), curve, trainings, _courses(run.folder / "runs", trainings), tuple(troubles))


def _curve(path: Path) -> dict[str, Any]:
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise ValueError("a dictionary")
    return content


def _trainings(folder: Path) -> tuple[Training, ...]:
    found = []
    for path in folder.glob("n*-r*"):
        match = _TRAINING_NAME.fullmatch(path.name)
        if match and path.is_dir():
            found.append(Training(path.name, int(match[1]), int(match[2]), RunDir(path).read_card()))
    return tuple(sorted(found, key=lambda training: (training.per_class, training.replicate)))


def _courses(folder: Path, trainings: tuple[Training, ...]) -> dict[int, Config]:
    courses: dict[int, Config] = {}
    for training in trainings:
        if training.per_class not in courses:
            try:
                courses[training.per_class] = load_config(folder / training.name)
            except (OSError, ValueError, CheckpointError):
                continue  # another training of this size may tell
    return courses
