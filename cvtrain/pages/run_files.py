"""What the folder of a run holds, read back for a page: each file may be missing, damaged or from anywhere.

Knows files and plain values; neither torch nor pages.
"""

from __future__ import annotations

import base64
import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvtrain.config import Config, load_config
from cvtrain.errors import CheckpointError
from cvtrain.outputs import RunDir

MATERIAL_NAME = "report.json"
_MAX_MATERIAL_BYTES = 20_000_000
"""Sixty pictures of 96 pixels take less than a tenth of it."""
_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
"""How PNG and JPEG files begin."""


@dataclass(frozen=True)
class Answer:
    """A row of predictions.csv.

    Args:
        image: Its name, or its index in words.
        label: The true class.
        prediction: The class that was said.
        probability: Of that class, 0..1.
    """

    image: str
    label: str
    prediction: str
    probability: float


@dataclass(frozen=True)
class RunFiles:
    """What a folder says of a run.

    Args:
        folder: Absolute.
        card: run.json; empty where it cannot be read.
        config: config.yaml; empty where it cannot be read.
        rows: Of metrics.csv; numbers, or None where there is none.
        answers: Of predictions.csv.
        material: report.json.
        troubles: A sentence on each file that is there and cannot be used.
    """

    folder: Path
    card: Mapping[str, Any]
    config: Config
    rows: Sequence[Mapping[str, float | None]]
    answers: Sequence[Answer]
    material: Mapping[str, Any]
    troubles: Sequence[str]


def read_run(folder: Path) -> RunFiles:
    """Reads the files of a run.

    Raises:
        CheckpointError: There is neither a run card nor a config that can be read.
    """
    folder = folder.expanduser().resolve()
    run_dir, troubles = RunDir(folder), []

    def read(path: Path, how: Any, nothing: Any) -> Any:
        """What a file holds; nothing where it is missing or damaged, with a sentence in the latter case."""
        if not path.is_file():
            return nothing
        try:
            return how(path)
        except (OSError, ValueError, KeyError, TypeError, csv.Error, RecursionError, CheckpointError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is damaged"
            troubles.append(f"{path.name} cannot be used ({reason}): what it tells is left out.")
            return nothing

    card = run_dir.read_card()
    if not card and run_dir.card_path.is_file():
        troubles.append(f"{run_dir.card_path.name} cannot be used (it is damaged): what it tells is left out.")
    config = read(run_dir.config_path, lambda path: load_config(path.parent), {})
    if not card and not config:
        raise CheckpointError(f"{folder} holds no run: there is neither a run.json nor a config.yaml that can be read")
    return RunFiles(
        folder=folder,
        card=card,
        config=config,
        rows=read(run_dir.metrics_path, _rows, ()),
        answers=read(run_dir.predictions_path, _answers, ()),
        material=read(folder / MATERIAL_NAME, _material, {}),
        troubles=tuple(troubles),
    )


def _rows(path: Path) -> list[dict[str, float | None]]:
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, strict=True))
    if rows and any(value is None for value in rows[-1].values()):
        rows.pop()  # of a process that was killed while it wrote
    return [{key: float(value) if value else None for key, value in row.items()} for row in rows]


def _answers(path: Path) -> list[Answer]:
    with open(path, encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, strict=True)
        return [Answer(row["image"], row["label"], row["prediction"], float(row["probability"])) for row in rows]


def _material(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _MAX_MATERIAL_BYTES:
        raise ValueError("too large")
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise TypeError("a dictionary")
    return content


def picture_bytes(picture: Mapping[str, Any]) -> bytes:
    """The PNG or JPEG file that a picture of report.json is.

    Raises:
        ValueError: It is something else.
    """
    data = base64.b64decode(picture["image"], validate=True)
    if not data.startswith(_MAGIC):
        raise ValueError("a picture is a PNG or JPEG file")
    return data
