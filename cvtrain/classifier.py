"""A trained model that classifies pictures: what `cvtrain.load` returns, and what predicting and evaluating stand on.

Knows checkpoints and how a picture becomes an input; not consoles or run folders. The checkpoint rules model,
normalisation and class names.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cvtrain import build
from cvtrain.config import Config
from cvtrain.data.decode import EXTENSIONS, decode_array, decode_image, printable
from cvtrain.data.facts import DataFacts
from cvtrain.data.permutation import permutation_of
from cvtrain.data.statistics import Normalize
from cvtrain.engine.checkpoint import Loaded, list_checkpoints, load_newest, read_checkpoint
from cvtrain.engine.device import Compute, memory_limit
from cvtrain.errors import CheckpointError, DataError
from cvtrain.resume import load_weights

Picture = str | Path | np.ndarray


@dataclass(frozen=True)
class Prediction:
    """What a model says of one picture.

    Args:
        class_name: The most probable class.
        probability: Of that class, 0..1.
        probabilities: Of every class, by name, most probable first.
    """

    class_name: str
    probability: float
    probabilities: dict[str, float]


class Classifier:
    """A trained model with everything that is needed to use it.

    Made by `cvtrain.load`.

    Args:
        model: With its trained weights, on its device.
        loss_fn: The loss that it was trained with, which knows how logits become probabilities.
        facts: Of the data that it was trained on.
        compute: Device and number format.
        config: The settings that it was trained with.
        notes: Sentences about damaged checkpoints that were passed over.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: nn.Module,
        *,
        facts: DataFacts,
        compute: Compute,
        config: Config,
        notes: tuple[str, ...] = (),
    ) -> None:
        self.model, self.loss_fn, self.facts, self.compute = model.eval(), loss_fn, facts, compute
        self.config, self.notes = config, notes
        self._normalize = Normalize(facts.statistics).to(compute.device)
        self._permute = permutation_of(facts.preprocessing, device=compute.device)

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes, in the order of the labels."""
        return self.facts.class_names

    def predict(self, pictures: Picture | Sequence[Picture], *, batch_size: int = 256) -> list[Prediction]:
        """Classifies pictures.

        Args:
            pictures: Paths of image files, or uint8 arrays `(H, W)`, `(H, W, 1)` or `(H, W, 3)` in 0..255, of any
                size; one or several.
            batch_size: Pictures at a time.

        Returns:
            One prediction per picture, in the same order.

        Raises:
            DataError: A file that cannot be read, an array of another shape or type, or a model of points.
        """
        if isinstance(pictures, str | Path | np.ndarray):
            pictures = [pictures]
        found: list[Prediction] = []
        for start in range(0, len(pictures), batch_size):
            pixels = np.stack([self.decode(picture) for picture in pictures[start : start + batch_size]])
            found += self.as_predictions(self.probabilities(torch.from_numpy(pixels)))
        return found

    def decode(self, picture: Picture) -> np.ndarray:
        """A picture as the model takes it: uint8 `(image_size, image_size, channels)`.

        Raises:
            DataError: It cannot be read, or the model knows points only.
        """
        self.check_takes_pictures()
        rule = self.facts.preprocessing
        options = {"image_size": rule.image_size, "channels": rule.channels, "resize": rule.resize}
        if isinstance(picture, np.ndarray):
            return decode_array(picture, **options)
        if not isinstance(picture, str | Path):
            raise DataError(f"a {type(picture).__name__} is no picture", hint="give paths or uint8 NumPy arrays")
        return decode_image(picture, **options)

    def check_takes_pictures(self) -> None:
        """Refuses to take pictures, where the model was trained on points.

        Raises:
            DataError: It was.
        """
        if self.facts.preprocessing.is_point:
            raise DataError(
                f"this model classifies points of {self.facts.in_channels} coordinates, not pictures",
                hint=f"in Python: cvtrain.load(RUN).predict_points(points), an array (N, {self.facts.in_channels})",
            )

    def predict_points(self, points: np.ndarray) -> list[Prediction]:
        """Classifies points, with a model that was trained on points.

        Args:
            points: Numbers `(N, D)`, the coordinates of `N` points.

        Raises:
            DataError: The array has another shape or type, or the model takes pictures.
        """
        return self.as_predictions(self.point_probabilities(points))

    def point_probabilities(self, points: np.ndarray) -> Tensor:
        """float32 `(N, K)` on the CPU, for points as `predict_points` takes them."""
        rule, found = self.facts.preprocessing, np.asarray(points)
        if not rule.is_point:
            raise DataError("this model classifies pictures, not points", hint="type predict(pictures)")
        if found.ndim != 2 or found.shape[1] != rule.channels or found.dtype.kind not in "fiu":
            raise DataError(
                f"an array of shape {found.shape} and dtype {found.dtype} is no list of points",
                hint=f"this model takes numbers of shape (N, {rule.channels})",
            )
        pixels = (255 * found.astype(np.float64)).astype(np.float32)
        return self.probabilities(torch.from_numpy(pixels).view(-1, 1, 1, rule.channels))

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """float32 `(B, K)` on the CPU, for pixels `(B, H, W, C)` of the right size: uint8, or float32 of that unit.

        Raises:
            MemoryLimitError: There is no room for so many at once.
        """
        what = f"out of memory for {len(pixels)} pictures at once"
        with memory_limit(what, hint="type a smaller trainer.eval_batch_size, or predict(..., batch_size=)"):
            images = self._normalize(pixels.to(self.compute.device).permute(0, 3, 1, 2))
            if self._permute is not None:
                images = self._permute(images)
            with self.compute.autocast():
                logits = self.model(images)
            return self.loss_fn.probabilities(logits).cpu()

    def as_predictions(self, probabilities: Tensor) -> list[Prediction]:
        """Names for `(B, K)` probabilities."""
        ordered = probabilities.sort(dim=1, descending=True, stable=True)
        return [
            Prediction(
                class_name=self.class_names[order[0]],
                probability=values[0],
                probabilities={self.class_names[i]: value for i, value in zip(order, values, strict=True)},
            )
            for order, values in zip(ordered.indices.tolist(), ordered.values.tolist(), strict=True)
        ]


def load(checkpoint: str | Path, *, device: str = "auto", plugins: Sequence[str] = ()) -> Classifier:
    """Loads a trained model.

    Args:
        checkpoint: A run folder (its best weights are taken) or a checkpoint file.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        plugins: Packages of your own that the model may come from; a checkpoint cannot name them itself.

    Raises:
        CheckpointError: There is none, it is damaged, or it is no checkpoint of cvtrain.
        ConfigError: The device is not present, or the model comes from a package that is not allowed.
    """
    loaded = find_checkpoint(Path(checkpoint))
    return from_state(loaded, device=device, plugins=plugins)


def from_state(loaded: Loaded, *, device: str = "auto", plugins: Sequence[str] = ()) -> Classifier:
    """The classifier that a checkpoint describes.

    Args:
        loaded: The checkpoint.
        device: See `load`.
        plugins: Packages that its model may come from, named by the user and never by the checkpoint.
    """
    state = loaded.state
    try:
        trainer = {**state["config"]["trainer"], "device": device, "deterministic": False}
        config: Config = {**state["config"], "trainer": trainer, "plugins": list(plugins)}
        facts = DataFacts.from_plain(state["facts"])
        precision = state["precision"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{loaded.path} is not a checkpoint of cvtrain: it lacks {error}") from None
    loss_fn = build.loss(config, facts)
    # The weights come from the checkpoint: nothing is to be fetched that the model once started from.
    model = build.model(build.without_pretrained(config), facts, num_outputs=loss_fn.num_outputs)
    load_weights(model, state)
    compute = build.compute(config, model, precision=None if precision == "fp16" else precision)
    compute.place(model)
    return Classifier(
        model, loss_fn.to(compute.device), facts=facts, compute=compute, config=config, notes=loaded.notes
    )


def find_checkpoint(path: Path, *, setting: str = "checkpoint") -> Loaded:
    """Reads the checkpoint that a path names: a file, or of a run folder the one that the run was tested with.

    That is the best one, or the newest when there is no best one or the run was told not to restore it.

    Args:
        path: Of a file or a folder.
        setting: What names the path, for messages.

    Raises:
        CheckpointError: There is none that can be used.
    """
    path = path.expanduser()
    if path.is_file():
        return Loaded(read_checkpoint(path), path)
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    if not path.exists():
        raise CheckpointError(f"{setting}={path}: there is no such file or folder", hint=_newest_runs())
    loaded = _best(folder, setting)
    if loaded is None or not _restores_best(loaded.state):
        loaded = load_newest(folder, "step", set_aside=False) or loaded
    if loaded is None:
        raise CheckpointError(f"{setting}={path}: the folder holds no checkpoint", hint=_newest_runs())
    return loaded


def _best(folder: Path, setting: str) -> Loaded | None:
    """The best checkpoint; never another one in its place without being asked."""
    try:
        return load_newest(folder, "best", set_aside=False)
    except CheckpointError as error:
        others = [f.path for f in list_checkpoints(folder, "step")]
        raise CheckpointError(error.message, hint=f"type {setting}={others[-1]}" if others else None) from None


def _restores_best(state: dict[str, Any]) -> bool:
    try:
        return bool(state["config"]["trainer"]["early_stopping"]["restore_best"])
    except (KeyError, TypeError):
        return True  # `from_state` says what is wrong with it


def _newest_runs() -> str:
    runs: Iterable[Path] = Path("outputs").glob("train/*/*/checkpoints")
    newest = sorted((run.parent for run in runs), key=lambda run: run.name)[-1:]
    return f"the newest run here is {newest[0]}" if newest else "train a model first: cvtrain"


def image_paths(inputs: str | Sequence[str]) -> Iterator[Path]:
    """The image files that paths, folders (searched in depth) and globs name, in order, each once.

    Hidden files and folders are passed over unless they are named.

    Raises:
        DataError: A name that matches nothing, or cannot be looked at.
    """
    seen: set[Path] = set()
    for name in [inputs] if isinstance(inputs, str) else inputs:
        path = Path(name).expanduser()
        try:
            found = _matches(path)
        except OSError as error:
            raise DataError(f"input={printable(name)}: {(error.strerror or str(error)).lower()}") from None
        if not found:
            what = "the folder holds no images" if path.is_dir() else "there is no such file"
            raise DataError(f"input={printable(name)}: {what}", hint=f"seen from {Path.cwd()}")
        for one in found:
            if one not in seen:
                seen.add(one)
                yield one


def _matches(path: Path) -> list[Path]:
    if path.is_dir():
        found = [p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS]
        hidden = [p for p in found if any(part.startswith(".") for part in p.relative_to(path).parts)]
        return sorted(set(found) - set(hidden))
    if path.exists():
        return [path]
    return [Path(p) for p in sorted(glob.glob(str(path), recursive=True)) if not Path(p).is_dir()]
