"""A trained model that classifies pictures: what `cvtrain.load` returns, and what predicting and evaluating stand on.

Knows checkpoints and how a picture becomes an input; not consoles or run folders. The checkpoint rules model,
normalisation and class names.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cvtrain import build
from cvtrain.config import Config
from cvtrain.data.appearance import is_grey, looks_of, unlike_in_looks, unlike_in_size
from cvtrain.data.decode import EXTENSIONS, DecodeResult, decode_array, decode_with_notes, printable
from cvtrain.data.facts import DataFacts
from cvtrain.data.permutation import permutation_of
from cvtrain.data.statistics import Normalize
from cvtrain.engine.checkpoint import Loaded
from cvtrain.engine.device import Compute, memory_limit
from cvtrain.errors import DataError
from cvtrain.finding import find_checkpoint
from cvtrain.saved_model import read_model, remake

Picture = str | Path | np.ndarray

LOW_CONFIDENCE = 0.5
"""A less probable class is called uncertain: by the model's own word it is more likely wrong than right."""
UNCERTAIN = "uncertain"


@dataclass(frozen=True)
class Prediction:
    """What a model says of one picture.

    Args:
        class_name: The most probable class.
        probability: Of that class, 0..1.
        probabilities: Of every class, by name, most probable first.
        notes: Why not to rely on it: in what the picture is unlike the training images, and `uncertain` for a
            probability below one half. Models of older versions know little of their training images.
    """

    class_name: str
    probability: float
    probabilities: dict[str, float]
    notes: tuple[str, ...] = ()


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
            found += self.classify([self.read(picture) for picture in pictures[start : start + batch_size]])
        return found

    def classify(self, pictures: Sequence[DecodeResult]) -> list[Prediction]:
        """Classifies pictures that have been read, all at once.

        Raises:
            MemoryLimitError: There is no room for so many.
        """
        pixels = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
        return self.as_predictions(self.probabilities(pixels), self._unlike(pictures, pixels))

    def num_grey(self, pictures: Sequence[DecodeResult]) -> int:
        """How many pictures have no colour, where the model takes colours."""
        looks = looks_of(torch.from_numpy(np.stack([picture.pixels for picture in pictures])).permute(0, 3, 1, 2))
        return int(is_grey(looks).sum()) if looks is not None else 0

    def _unlike(self, pictures: Sequence[DecodeResult], pixels: Tensor) -> list[list[str]]:
        """In what each picture is unlike the training images."""
        appearance, rule = self.facts.appearance, self.facts.preprocessing
        if appearance is None:
            return [[] for _ in pictures]
        notes = [unlike_in_size(appearance, rule, height=p.height, width=p.width) for p in pictures]
        looks = looks_of(pixels.permute(0, 3, 1, 2))
        for i, words in enumerate(unlike_in_looks(appearance, looks) if looks is not None else []):
            notes[i] += [words] if words else []
            if "colour" in pictures[i].notes and not appearance.had_colour:
                notes[i].append("in colour, and read as grey as the training images are")
        return notes

    def decode(self, picture: Picture) -> np.ndarray:
        """A picture as the model takes it: uint8 `(image_size, image_size, channels)`.

        Raises:
            DataError: It cannot be read, or the model knows points only.
        """
        return self.read(picture).pixels

    def read(self, picture: Picture) -> DecodeResult:
        """A picture as the model takes it, the size it had, and `colour` where its colours were turned to grey.

        Raises:
            DataError: It cannot be read, or the model knows points only.
        """
        self.check_takes_pictures()
        rule = self.facts.preprocessing
        options = {"image_size": rule.image_size, "channels": rule.channels, "resize": rule.resize}
        if isinstance(picture, np.ndarray):
            pixels, turned = decode_array(picture, **options), rule.channels == 1 and picture.shape[2:] == (3,)
            height, width = picture.shape[:2]
        elif isinstance(picture, str | Path):
            found = decode_with_notes(picture, **options)
            pixels, turned, height, width = found.pixels, "colour" in found.notes, found.height, found.width
        else:
            raise DataError(f"a {type(picture).__name__} is no picture", hint="give paths or uint8 NumPy arrays")
        notes = ("colour",) if turned and self._has_colour(picture) else ()
        return DecodeResult(pixels, notes, height, width)

    def _has_colour(self, picture: str | Path | np.ndarray) -> bool:
        """Whether a picture that was saved in colour has any."""
        options = {"image_size": 32, "channels": 3, "resize": "stretch"}
        array = isinstance(picture, np.ndarray)
        pixels = decode_array(picture, **options) if array else decode_with_notes(picture, **options).pixels
        looks = looks_of(torch.from_numpy(pixels)[None].permute(0, 3, 1, 2))
        return looks is not None and not bool(is_grey(looks))

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

    def as_predictions(self, probabilities: Tensor, unlike: Sequence[Sequence[str]] = ()) -> list[Prediction]:
        """Names for `(B, K)` probabilities, with what is odd about each picture."""
        ordered = probabilities.sort(dim=1, descending=True, stable=True)
        rows = zip(ordered.indices.tolist(), ordered.values.tolist(), strict=True)
        return [
            Prediction(
                class_name=self.class_names[order[0]],
                probability=values[0],
                probabilities={self.class_names[i]: value for i, value in zip(order, values, strict=True)},
                notes=(*(unlike[row] if unlike else ()), *((UNCERTAIN,) if values[0] < LOW_CONFIDENCE else ())),
            )
            for row, (order, values) in enumerate(rows)
        ]


def load(checkpoint: str | Path, *, device: str = "auto", plugins: Sequence[str] = ()) -> Classifier:
    """Loads a trained model.

    Args:
        checkpoint: A run folder (its best weights are taken) or a checkpoint file.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`.
        plugins: Packages of your own that the model may come from; a checkpoint cannot name them itself.

    Raises:
        CheckpointError: There is none, it is damaged or no checkpoint of cvtrain, or its model comes from a package
            that is not allowed.
        ConfigError: The device is not present.
    """
    loaded = find_checkpoint(Path(checkpoint))
    return from_state(loaded, device=device, plugins=plugins)


def from_state(
    loaded: Loaded, *, device: str = "auto", plugins: Sequence[str] = (), precision: str | None = None
) -> Classifier:
    """The classifier that a checkpoint describes.

    Args:
        loaded: The checkpoint.
        device: See `load`.
        plugins: Packages that its model may come from, named by the user and never by the checkpoint.
        precision: `fp32` or `bf16`, in place of that of training.

    Raises:
        CheckpointError, ConfigError: See `load`.
    """
    saved = read_model(loaded)
    trainer = {**saved.config["trainer"], "device": device, "deterministic": False}
    config: Config = {**saved.config, "trainer": trainer, "plugins": list(plugins)}
    model, loss_fn = remake(saved, config)
    if precision is None and (saved.precision != "fp16" or build.device(config).type != "cpu"):
        precision = saved.precision
    trainer["precision"] = "auto" if precision is None else precision  # fp16 is none for a CPU
    compute = build.compute(config, model, precision=precision)
    compute.place(model)
    return Classifier(
        model, loss_fn.to(compute.device), facts=saved.facts, compute=compute, config=config, notes=loaded.notes
    )


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
