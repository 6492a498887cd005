"""cvtrain: train image classifiers from YAML configs, resume them exactly, and use what was learnt.

import cvtrain

model = cvtrain.load("outputs/train/digits-lenet/<run>")
for prediction in model.predict(["a.png", "b.png"]):
    print(prediction.class_name, prediction.probability)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cvtrain.classifier import Classifier

__all__ = ["__version__", "load"]
__version__ = "0.1.0"


def load(checkpoint: str | Path, *, device: str = "auto", plugins: Sequence[str] = ()) -> Classifier:
    """Loads a trained model; see `cvtrain.classifier.load`.

    Args:
        checkpoint: A run folder (its best weights are taken) or a checkpoint file.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        plugins: Packages of your own that the model may come from; a checkpoint cannot name them itself.

    Returns:
        A model whose `.predict(paths or arrays)` gives class names and probabilities.

    Raises:
        CheckpointError: There is none, it is damaged, or it is no checkpoint of cvtrain.
        ConfigError: The device is not present, or the model comes from a package that is not allowed.
    """
    from cvtrain.classifier import load as load_classifier  # torch is loaded only now

    return load_classifier(checkpoint, device=device, plugins=plugins)
