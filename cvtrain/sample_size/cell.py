"""One training of a sample-size sweep, in a folder of its own, in whichever process it is done.

Knows a run and its files; neither the other trainings nor what becomes of the figures.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from cvtrain import build, results
from cvtrain.config import Config, save_text
from cvtrain.console import SilentConsole
from cvtrain.data.images import ImageData
from cvtrain.data.mapped import SharedData
from cvtrain.engine.checkpoint import load_newest, remove_leftovers
from cvtrain.fit import Run
from cvtrain.outputs import RunDir
from cvtrain.record import new_card, recorded
from cvtrain.sample_size.plan import Cell, seed_of, split_of
from cvtrain.sample_size.protocol import training_config
from cvtrain.signals import StopRequest

_POST_EVERY_SECONDS = 0.5


@dataclass(frozen=True)
class Study:
    """What all trainings of a sweep share.

    Args:
        config: Of the sweep.
        sweep_dir: Its folder.
        data: Images of all sizes.
    """

    config: Config
    sweep_dir: Path
    data: SharedData | ImageData

    @cached_property
    def images(self) -> ImageData:
        """The images; each process maps them once."""
        return self.data if isinstance(self.data, ImageData) else self.data.open()


def train_cell(study: Study, cell: Cell, *, post: Callable[[int], None], stop: StopRequest) -> list[str]:
    """Trains and tests one cell, or goes on with it where an earlier process left it.

    Args:
        study: What all cells share.
        cell: Which one.
        post: Takes the number of steps done, now and then.
        stop: Set by a signal.

    Returns:
        What there was to warn of.

    Raises:
        CvtrainError: As training raises it; the folder tells of it.
    """
    data = study.images
    config = training_config(study.config, cell.course, seed=seed_of(study.config, cell.replicate))
    run_dir = RunDir.open_at(cell.folder(study.sweep_dir))
    run_dir.remove_leftovers()
    remove_leftovers(run_dir.checkpoint_dir)
    console = SilentConsole(run_dir.log, on_step=_now_and_then(post))
    card = {**new_card(config), "per_class": cell.per_class, "replicate": cell.replicate}
    with recorded(run_dir, card):
        run_dir.write_text(run_dir.config_path, save_text(config))
        prepared = build.prepare(config, data, split_of(study.config, data, cell))
        checkpoint = load_newest(run_dir.checkpoint_dir)
        run = Run(config, prepared, run_dir=run_dir, console=console, stop=stop, checkpoint=checkpoint)
        card.update(_facts(run))
        run_dir.write_split(build.save_split(prepared))
        try:
            result = run.test(run.train())
        finally:
            card["warnings"] = console.warnings
        card.update(results.card_figures(result), test=results.figures(result.test, prepared.facts.class_names))
    tidy(run_dir, keep_model=study.config["keep_models"])
    return console.warnings


def tidy(run_dir: RunDir, *, keep_model: bool) -> None:
    """Removes the checkpoints of a training that is done; its best weights too, unless they are to be kept."""
    if not keep_model:
        shutil.rmtree(run_dir.checkpoint_dir, ignore_errors=True)
        return
    for path in run_dir.checkpoint_dir.glob("step-*"):
        with contextlib.suppress(OSError):
            path.unlink()


def _facts(run: Run) -> dict[str, Any]:
    facts = run.facts
    return {
        "data_fingerprint": facts.fingerprint,
        "split_hash": facts.split_hash,
        "class_names": list(facts.class_names),
        "class_counts": list(facts.class_counts),
        "num_parameters": sum(p.numel() for p in run.model.parameters()),
        "device": run.compute.name,
        "precision": run.compute.precision,
    }


def _now_and_then(post: Callable[[int], None]) -> Callable[[int], None]:
    """Passes a number on twice a second at most."""
    posted_at = 0.0

    def maybe(step: int) -> None:
        nonlocal posted_at
        if time.monotonic() - posted_at > _POST_EVERY_SECONDS:
            posted_at = time.monotonic()
            post(step)

    return maybe
