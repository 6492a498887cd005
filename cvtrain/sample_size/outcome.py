"""What a sample-size sweep has come to, written into its folder: learning_curve.json and the pictures of the curve.

Knows rows, settings and labels; neither how trainings are made nor the console.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cvtrain.config import Config
from cvtrain.data.images import ImageData
from cvtrain.data.splits import first_per_class
from cvtrain.engine.diagnosis.chance import chance_accuracy
from cvtrain.outputs import RunDir
from cvtrain.sample_size.conclusion import Conclusion, conclude, json_text
from cvtrain.sample_size.picture import draw
from cvtrain.sample_size.sentences import answer_sentences
from cvtrain.sample_size.table import Row

_MIXED = ("mixup", "cutmix")
"""Augmentations after which training images have two labels, and training accuracy no meaning."""


def test_of(config: Config, data: ImageData) -> Tensor:
    """The labels of the test images."""
    return data.test.labels[first_per_class(data.test.labels, config["data"]["max_per_class"])]


def write_conclusion(rows: Sequence[Row], config: Config, data: ImageData, run_dir: RunDir) -> Conclusion:
    """What the trainings that are done show, written to learning_curve.json.

    Raises:
        OutputError: The disk is full or not writable.
    """
    test_labels = test_of(config, data)
    conclusion = conclude(
        rows,
        chance_accuracy=chance_accuracy(torch.bincount(test_labels).tolist()),
        num_test=len(test_labels),
        target=config["target"],
        elbow=config["elbow"],
        validate=config["validate"],
        trains_to_the_end=config["protocol"] == "robust" and not any(config["augment"].get(k) for k in _MIXED),
    )
    text = json_text(conclusion, sentences=answer_sentences(conclusion))
    run_dir.write_text(run_dir.path / "learning_curve.json", text)
    return conclusion


def draw_curve(run_dir: RunDir, conclusion: Conclusion, *, title: str) -> None:
    """Writes plots/learning_curve.png and .svg."""
    for kind in ("png", "svg"):
        draw(run_dir.plots_dir / f"learning_curve.{kind}", conclusion, title=title)
