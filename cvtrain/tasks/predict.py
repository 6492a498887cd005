"""`task=predict`: classify pictures with a trained model; unreadable files are named, the rest is done.

Reads like a recipe; knows settings, a folder and a console.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cvtrain import build
from cvtrain.classifier import LOW_CONFIDENCE, UNCERTAIN, Classifier, Prediction, from_state, image_paths
from cvtrain.config import Config, save_text
from cvtrain.console import Console, percent
from cvtrain.data.appearance import all_grey_warning
from cvtrain.errors import ConfigError, DataError
from cvtrain.finding import find_checkpoint
from cvtrain.outputs import RunDir
from cvtrain.plain_text import printable
from cvtrain.record import new_card, recorded
from cvtrain.signals import StopRequest

MAX_ROWS = 40
"""Rows shown on the console; predictions.csv holds them all."""
MAX_NOTES = 5
"""Pictures of which the console says why they are unlike the training images."""
USUAL_SHARE = 0.01
"""So many are called unlike among further pictures of the same kind: the limits lie at half of that."""


def run(config: Config) -> None:
    """Classifies every picture that `input` names.

    Raises:
        ConfigError: No checkpoint or no input is named.
        CheckpointError: It cannot be used.
        DataError: There is no picture, none can be read, or the model knows points only.
    """
    missing = [key for key in ("checkpoint", "input") if config[key] is None]
    if missing:
        raise ConfigError(
            [f"task=predict needs {key}=" for key in missing],
            hint="cvtrain task=predict checkpoint=RUN input=FILE_OR_FOLDER_OR_GLOB",
        )
    build.limit_threads()
    paths = list(image_paths(config["input"]))
    loaded = find_checkpoint(Path(config["checkpoint"]))
    classifier = from_state(loaded, device=config["trainer"]["device"], plugins=config["plugins"])
    classifier.check_takes_pictures()
    folder = f"{build.data_name(config)}-{build.model_name(config)}"
    run_dir = RunDir.create(Path(config["output_dir"]) / "predict" / folder, suffix=config["name"])
    card, console = new_card(config) | {"checkpoint": str(loaded.path)}, Console(run_dir.log)
    with StopRequest(), recorded(run_dir, card):
        run_dir.write_text(run_dir.config_path, save_text(config))
        for note in classifier.notes:
            console.warn(note)
        batch_size = config["trainer"]["eval_batch_size"]
        predictions, unreadable, num_grey = predict_files(classifier, paths, console, batch_size=batch_size)
        if not predictions:
            raise DataError(f"none of {len(paths)} files can be read", hint="\n".join(list(unreadable.values())[:3]))
        write(run_dir, classifier, paths, predictions, unreadable)
        card.update(num_images=len(predictions), unreadable=list(unreadable.values()), device=classifier.compute.name)
        show(console, paths, predictions, unreadable)
        warn_of_odd(console, predictions)
        warn_of_grey(console, classifier, num_grey, len(predictions))
        console.say(f"results  {run_dir.predictions_path}")


def predict_files(
    classifier: Classifier, paths: Sequence[Path], console: Console, *, batch_size: int
) -> tuple[dict[Path, Prediction], dict[Path, str], int]:
    """Classifies files batch by batch.

    Returns:
        The predictions of files that can be read, the reasons of those that cannot, and how many pictures are without
        colour though the model takes colours.
    """
    num_grey = 0
    predictions: dict[Path, Prediction] = {}
    unreadable: dict[Path, str] = {}
    for start in range(0, len(paths), batch_size):
        chunk, pictures = [], []
        for path in paths[start : start + batch_size]:
            try:
                pictures.append(classifier.read(path))
                chunk.append(path)
            except DataError as error:
                unreadable[path] = error.message
        if pictures:
            predictions.update(zip(chunk, classifier.classify(pictures), strict=True))
            num_grey += classifier.num_grey(pictures)
        console.progress(min(start + batch_size, len(paths)), len(paths), "predicting")
    return predictions, unreadable, num_grey


def write(
    run_dir: RunDir,
    classifier: Classifier,
    paths: Sequence[Path],
    predictions: dict[Path, Prediction],
    unreadable: dict[Path, str],
) -> None:
    """Writes predictions.csv: a row per file, with the probability of every class and why not to rely on it."""
    names = classifier.class_names
    rows: list[list[str]] = []
    for path in paths:
        if path in unreadable:
            rows.append([str(path), "", "", *[""] * len(names), unreadable[path], ""])
        else:
            found = predictions[path]
            each = [f"{found.probabilities[name]:.6g}" for name in names]
            rows.append([str(path), found.class_name, f"{found.probability:.6g}", *each, "", "; ".join(found.notes)])
    header = ("image", "prediction", "probability", *(f"p({printable(name)})" for name in names), "error", "note")
    run_dir.write_predictions(header, rows)


def show(
    console: Console, paths: Sequence[Path], predictions: dict[Path, Prediction], unreadable: dict[Path, str]
) -> None:
    """Prints the first predictions, and the first files that could not be read."""
    rows = []
    for path in [p for p in paths if p in predictions][:MAX_ROWS]:
        found = predictions[path]
        second = list(found.probabilities.items())[1]
        rows.append((str(path), found.class_name, percent(found.probability), f"{second[0]} {percent(second[1])}"))
    console.table(f"{len(predictions):,} predictions", ("image", "class", "probability", "second guess"), rows)
    if len(predictions) > MAX_ROWS:
        console.say(f"... and {len(predictions) - MAX_ROWS:,} more in predictions.csv")
    for reason in list(unreadable.values())[:MAX_ROWS]:
        console.warn(f"not read: {reason}")
    if len(unreadable) > MAX_ROWS:
        console.warn(f"... and {len(unreadable) - MAX_ROWS:,} more, named in predictions.csv")
    console.say()


def warn_of_odd(console: Console, predictions: dict[Path, Prediction]) -> None:
    """Says which predictions not to rely on, why, and what helps."""
    unlike = {path: [n for n in found.notes if n != UNCERTAIN] for path, found in predictions.items()}
    unlike = {path: notes for path, notes in unlike.items() if notes}
    if 0 < len(unlike) <= USUAL_SHARE * len(predictions):
        console.say(f"{len(unlike):,} of {len(predictions):,} pictures are unlike the training images, which is usual")
    elif unlike:
        console.warn(f"{len(unlike):,} of {len(predictions):,} pictures are unlike the training images:")
        for path, notes in list(unlike.items())[:MAX_NOTES]:
            console.say(f"  {path}: {'; '.join(notes).replace('unlike the training images: ', '')}")
        if len(unlike) > MAX_NOTES:
            console.say(f"  ... and {len(unlike) - MAX_NOTES:,} more: the column note of predictions.csv")
        console.say("  what helps: pictures cut to what is to be classified, or training with augment=strong")
    num_uncertain = sum(UNCERTAIN in found.notes for found in predictions.values())
    if num_uncertain:
        share = f"{100 * LOW_CONFIDENCE:g} %"
        console.warn(f"{num_uncertain:,} of {len(predictions):,} predictions are uncertain: less than {share} probable")
    if unlike or num_uncertain:
        console.say()


def warn_of_grey(console: Console, classifier: Classifier, num_grey: int, num_pictures: int) -> None:
    """Says when many pictures have no colour, and few training images had none: one of them alone is nothing odd."""
    appearance = classifier.facts.appearance
    warning = all_grey_warning(appearance, num_grey, num_pictures) if appearance else None
    if warning:
        console.warn(warning)
        console.say("  what helps: pictures in colour, or training with data.channels=1 (folders of images)")
        console.say()
