"""`task=export`: a trained model as a file that other programs run, checked against the model on real images.

The checkpoint rules model, normalisation and class names; the command line rules formats, place and which images are
asked about.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cvtrain import build
from cvtrain.classifier import Classifier, from_state
from cvtrain.config import Config, masked
from cvtrain.console import Console
from cvtrain.data.facts import DataFacts
from cvtrain.engine.checkpoint import Loaded
from cvtrain.errors import ConfigError, DataError
from cvtrain.export.description import describe
from cvtrain.export.exported_model import ExportedModel
from cvtrain.export.formats import FORMATS
from cvtrain.export.verified_file import BATCH_SIZES, ExportResult, export_verified
from cvtrain.finding import find_checkpoint
from cvtrain.plain_text import finite
from cvtrain.record import versions

TAKEN = ("task", "checkpoint", "format", "output", "tolerance", "plugins", "data")
"""What may be typed: all else is that of the trained model. Of the data only the images to check with are taken."""
NUM_IMAGES = 64
"""To check with; where there are fewer, some come twice."""


def run(config: Config) -> None:
    """Writes a trained model in one or several formats.

    Raises:
        ConfigError: No checkpoint is named, a setting has no effect, a package is missing, or a format cannot hold
            the model.
        CheckpointError: The checkpoint cannot be used.
        DataError: Images that were named cannot be read.
        OutputError: A file answers otherwise than the model, or cannot be written.
    """
    if config["checkpoint"] is None:
        raise ConfigError("task=export needs a trained model: checkpoint=RUN, a run folder or a checkpoint file")
    formats = [config["format"]] if isinstance(config["format"], str) else list(dict.fromkeys(config["format"]))
    check_settings(config, formats)
    loaded = find_checkpoint(Path(config["checkpoint"]))
    paths = {name: output_path(config["output"], loaded.path, name, alone=len(formats) == 1) for name in formats}
    build.limit_threads()
    console = Console()
    for note in loaded.notes:
        console.warn(note)
    # In float32, whatever the model was trained in: what is exported computes in float32 on every machine.
    classifier = from_state(loaded, device="cpu", plugins=config["plugins"], precision="fp32")
    exported = ExportedModel(classifier.model, classifier.loss_fn, classifier.facts)
    pixels, what = pixels_to_check(config, classifier.facts, console)
    inputs, expected = as_inputs(pixels, classifier), classifier.probabilities(pixels)
    description = describe(exported, classifier.loss_fn, num_outputs=classifier.loss_fn.num_outputs)
    description |= {"made_from": made_from(config, loaded), "checked_with": what}
    introduce(console, description)
    if description["made_from"]["trained_in"] != "fp32":
        tell_precision(console, config, loaded, pixels, expected)
    for name in formats:
        result = export_verified(
            exported,
            description,
            format_name=name,
            path=paths[name],
            inputs=inputs,
            expected=expected,
            tolerance=config["tolerance"],
        )
        show(console, name, result, what)


def check_settings(config: Config, formats: list[str]) -> None:
    """Refuses what would have no effect, and formats whose packages are not installed.

    Raises:
        ConfigError: With all of it.
    """
    typed = [key for key in config.get("typed", ()) if key.partition(".")[0] not in (*TAKEN, "sweep")]
    problems = [f"{key} has no effect with task=export" for key in typed]
    if not formats:
        problems.append(f"format=[]: name a format at least: {', '.join(FORMATS)}")
    missing = [(name, package) for name in formats for package in FORMATS[name].missing_packages()]
    problems += [f"format={name} needs the package {package}, which is not installed" for name, package in missing]
    if problems:
        raise ConfigError(problems, hint="pip install 'cvtrain[export]'" if missing else None)


def output_path(output: str | None, checkpoint: Path, format_name: str, *, alone: bool) -> Path:
    """Where a file goes: as `output` says, else into `exports/` of the run, or of the working folder.

    Raises:
        ConfigError: `output` is the name of one file, and there are to be several.
    """
    suffix = FORMATS[format_name].suffix
    if output is None:
        run_folder = checkpoint.parent.parent
        is_of_run = checkpoint.parent.name == "checkpoints" and (run_folder / "config.yaml").is_file()
        return (run_folder if is_of_run else Path()) / "exports" / f"model{suffix}"
    path = Path(output).expanduser()
    if path.suffix not in [each.suffix for each in FORMATS.values()]:
        return path / f"model{suffix}"
    if path.suffix != suffix or not alone:
        raise ConfigError(f"output={output}: format={format_name} writes {suffix}", hint="name a folder, or one format")
    return path


def pixels_to_check(config: Config, facts: DataFacts, console: Console) -> tuple[Tensor, str]:
    """Inputs of the right shape, `(N, H, W, C)`, spread over the test images, and in words what they are.

    Where the images of the training cannot be read any more, noise serves.

    Raises:
        DataError: Images that were named on the command line cannot be read.
    """
    try:
        return test_pixels(config, facts, console)
    except DataError as error:
        if any(key.partition(".")[0] == "data" for key in config["typed"]):
            raise
        console.warn(f"the test images cannot be read ({error.message.splitlines()[0]}): checked with noise")
        return noise(facts), f"{NUM_IMAGES} inputs of noise"


def test_pixels(config: Config, facts: DataFacts, console: Console) -> tuple[Tensor, str]:
    """Some of the test images, the only ones that are decoded, and how many; nothing is downloaded.

    Raises:
        DataError: They cannot be read, or are none that the model takes.
    """
    frugal = {"loader": "files", "download": False}
    data = {**config["data"], **{key: value for key, value in frugal.items() if key in config["data"]}}
    images = build.read_data({**config, "data": data}, progress=console.progress).test.images
    total, channels, height, width = images.shape
    if (channels, height, width) != (facts.in_channels, facts.image_size, facts.image_size):
        size = f"{facts.image_size}x{facts.image_size}x{facts.in_channels}"
        raise DataError(f"the model takes {size} images; these are {width}x{height}x{channels}")
    num_images = min(total, NUM_IMAGES)
    chosen = torch.linspace(0, total - 1, max(num_images, sum(BATCH_SIZES) + 1)).long()
    what = "points" if facts.preprocessing.is_point else "images"
    return images.read(chosen).permute(0, 2, 3, 1).contiguous(), f"{num_images} test {what}"


def noise(facts: DataFacts) -> Tensor:
    """Random pixels, or random points of the square from -1 to 1; always the same."""
    random = np.random.default_rng(0)
    shape = (NUM_IMAGES, facts.image_size, facts.image_size, facts.in_channels)
    if facts.preprocessing.is_point:
        return torch.from_numpy(random.uniform(-255, 255, shape).astype(np.float32))
    return torch.from_numpy(random.integers(0, 256, shape, dtype=np.uint8))


def as_inputs(pixels: Tensor, classifier: Classifier) -> Tensor:
    """Pixels `(N, H, W, C)` as another program would feed them: float32 in 0..1, channels first; points `(N, D)`."""
    inputs = pixels.float() / 255
    is_point = classifier.facts.preprocessing.is_point
    return inputs.flatten(1) if is_point else inputs.permute(0, 3, 1, 2).contiguous()


def made_from(config: Config, loaded: Loaded) -> dict[str, Any]:
    """Which checkpoint it is, in words that stay true wherever the file goes."""
    with loaded.path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return {
        "data": build.data_name(config),
        "model": build.model_name(config),
        "model_settings": finite(masked(config["model"])),
        "loss": config["choices"]["loss"],
        "loss_settings": finite(masked(config["loss"])),
        "step": loaded.state["trainer"]["step"],
        "trained_in": loaded.state["precision"],
        "checkpoint": loaded.path.name,
        "checkpoint_sha256": sha256,
        "versions": versions(),
    }


def introduce(console: Console, description: dict[str, Any]) -> None:
    """Says what is exported, and what goes in and comes out."""
    made, takes, gives = (description[key] for key in ("made_from", "input", "output"))
    console.say(f"model        {made['model']} on {made['data']}, step {made['step']:,}: {made['checkpoint']}")
    kind = f", 0..1, {takes['colours']}" if "colours" in takes else ""
    console.say(f"input        {takes['name']}: float32 ({shape_of(takes)}){kind}")
    console.say(f"output       {gives['name']}: float32 ({shape_of(gives)})")


def tell_precision(console: Console, config: Config, loaded: Loaded, pixels: Tensor, expected: Tensor) -> None:
    """Says how far the answers in the number format of training lie from those in float32."""
    usual = from_state(loaded, device="cpu", plugins=config["plugins"])
    difference = (usual.probabilities(pixels) - expected).abs().max().item()
    words = f"cvtrain itself answers in {usual.compute.precision}, which differs by up to {difference:.1e}"
    console.say(f"precision    fp32; {words}")


def shape_of(tensor: dict[str, Any]) -> str:
    """`N, 3, 32, 32`."""
    return ", ".join(map(str, tensor["shape"]))


def show(console: Console, format_name: str, result: ExportResult, what: str) -> None:
    """Says where a file is, what it holds, and how it answers."""
    checked, size = result.check, f"{result.num_bytes / 1e6:.1f} MB"
    replaced = "; replaces the one before" if result.is_replacing else ""
    same = f"{checked.num_same_class} of {checked.num_inputs} classes the same"
    console.say()
    console.say(f"{format_name:<13}{result.path}")
    console.say(f"{'':<13}{size}: {FORMATS[format_name].holds}{replaced}")
    console.say(f"{'':<13}{what}: probabilities differ by {checked.max_difference:.1e} at most, {same}")
