"""`task=evaluate`: every figure of a trained model on one split.

The checkpoint rules model, normalisation and class names; the command line rules which images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cvtrain import build, drawings, results
from cvtrain.check import check
from cvtrain.classifier import Classifier, find_checkpoint, from_state
from cvtrain.config import Config, save_text
from cvtrain.console import Console, percent
from cvtrain.engine.evaluator import EvaluationResult, evaluate
from cvtrain.errors import ConfigError, DataError
from cvtrain.outputs import RunDir
from cvtrain.record import DONE, new_card, recorded
from cvtrain.signals import StopRequest


def run(config: Config) -> float:
    """Evaluates a checkpoint.

    Returns:
        The accuracy, 0..1.

    Raises:
        ConfigError: No checkpoint is named.
        CheckpointError: It cannot be used.
        DataError: The images do not suit the model.
    """
    if config["checkpoint"] is None:
        raise ConfigError("task=evaluate needs a trained model: checkpoint=RUN, a run folder or a checkpoint file")
    check(config)
    build.limit_threads()
    loaded = find_checkpoint(Path(config["checkpoint"]))
    classifier = from_state(loaded, device=config["trainer"]["device"], plugins=config["plugins"])
    folder = f"{build.data_name(config)}-{build.model_name(config)}"
    run_dir = RunDir.create(Path(config["output_dir"]) / "evaluate" / folder, suffix=config["name"])
    card, console = new_card(config) | {"checkpoint": str(loaded.path)}, Console(run_dir.log)
    with StopRequest(), recorded(run_dir, card, discard_if_config_is_wrong=True):
        run_dir.write_text(run_dir.config_path, save_text(config))
        for note in classifier.notes:
            console.warn(note)
        prepared = build.data(config, progress=console.progress)
        check_suits(classifier, prepared)
        introduce(classifier, prepared, card, console)
        result = measure(classifier, config, prepared, console)

        split, names, rule = config["split"], classifier.class_names, classifier.facts.preprocessing
        figures = results.figures(result, names)
        card.update({"split": split, split: figures})
        rows = results.prediction_rows(result, prepared.names(split), names)
        run_dir.write_predictions(results.PREDICTIONS_HEADER, rows)
        show(console, figures, split=split, names=names, things="points" if rule.is_point else "images")
        run_dir.write_card(card | DONE)  # the page tells of an evaluation that is done
        about = {"model": classifier.model, "split": split, "result": result, "console": console}
        drawings.leave_material(run_dir, config, prepared, **about)
        drawings.leave_page(run_dir.path, console)
        drawings.leave_plots(run_dir.path, console)
        console.say(f"results        {drawings.page_or_folder(run_dir)}")
    return result.accuracy


def check_suits(classifier: Classifier, prepared: build.PreparedData) -> None:
    """Refuses images of other classes or another shape than the model knows.

    Raises:
        DataError: With both.
    """
    ours, theirs = classifier.facts, prepared.facts
    if ours.class_names != theirs.class_names:
        raise DataError(
            f"the images have other classes than the model: {', '.join(theirs.class_names)[:70]}",
            hint=f"the model knows {', '.join(ours.class_names)[:70]}",
        )
    if (ours.image_size, ours.in_channels) != (theirs.image_size, theirs.in_channels):
        raise DataError(
            f"the model takes {ours.image_size}x{ours.image_size}x{ours.in_channels} images;"
            f" these are {theirs.image_size}x{theirs.image_size}x{theirs.in_channels}",
            hint=f"for image folders type data.image_size={ours.image_size} data.channels={ours.in_channels}",
        )


def introduce(classifier: Classifier, prepared: build.PreparedData, card: dict[str, Any], console: Console) -> None:
    """Notes on the card what is measured on what, and says what is odd about the data."""
    card.update(
        data_fingerprint=prepared.facts.fingerprint,
        split_hash=prepared.facts.split_hash,
        class_names=list(classifier.class_names),
        image_size=classifier.facts.image_size,
        in_channels=classifier.facts.in_channels,
        num_parameters=sum(p.numel() for p in classifier.model.parameters()),
        device=classifier.compute.name,
        precision=classifier.compute.precision,
        warnings=list(prepared.source.warnings),
    )
    for warning in prepared.source.warnings:
        console.warn(warning)


def measure(classifier: Classifier, config: Config, prepared: build.PreparedData, console: Console) -> EvaluationResult:
    """Runs the model over the split.

    Raises:
        DataError: The split is empty.
    """
    split, device = config["split"], classifier.compute.device
    if not len(getattr(prepared.split, split)):
        raise DataError(f"split={split} has no images")
    inputs = build.eval_inputs(config, prepared, split, facts=classifier.facts, device=device)
    done = iter(range(1, len(inputs) + 1))
    result = evaluate(
        classifier.model,
        classifier.loss_fn,
        inputs,
        compute=classifier.compute,
        collect=True,
        on_batch=lambda: console.progress(next(done), len(inputs), "evaluating"),
    )
    assert result is not None, "an evaluation without a stop ends"
    return result


def show(console: Console, figures: dict[str, Any], *, split: str, names: tuple[str, ...], things: str) -> None:
    """Prints the figures, the per-class table and, for a few classes, the confusion matrix."""
    console.say(f"{split + ' accuracy':<14} {percent(figures['accuracy'])} of {figures['num_images']:,} {things}")
    console.say(f"loss           {figures['loss']:.4f}")
    if len(names) > 5:
        console.say(f"top-5          {percent(figures['top5_accuracy'])}")
    console.say(f"balanced       {percent(figures['balanced_accuracy'])}")
    console.say(f"macro F1       {percent(figures['macro_f1'])}")
    if figures.get("auroc") is not None:
        console.say(f"AUROC          {figures['auroc']:.4f}")
    rows = [
        (row["name"], row["num_images"], *(percent(row[figure]) for figure in ("precision", "recall", "f1")))
        for row in figures["per_class"]
    ]
    console.table("per class", ("class", things, "precision", "recall", "F1"), rows)
    if len(names) <= 20:
        # Long names would make columns that no screen has room for.
        short = max(map(len, names)) <= 6
        columns = names if short else tuple(map(str, range(len(names))))
        titles = names if short else tuple(f"{i} {name}" for i, name in enumerate(names))
        matrix = [(title, *counts) for title, counts in zip(titles, figures["confusion_matrix"], strict=True)]
        console.table("confusion: a row per true class, a column per prediction", ("", *columns), matrix)
    console.say()
