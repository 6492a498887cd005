"""A trial of the first steps for runs that promise the same bits each time: what cannot keep the promise is refused.

Knows how a run is put together; not its data, of which it needs the shape alone.
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from cvtrain import build
from cvtrain.check import expected_facts
from cvtrain.config import Config
from cvtrain.data.facts import DataFacts
from cvtrain.data.images import ImageData, ImageSet, MemoryImages
from cvtrain.data.splits import Split
from cvtrain.engine.determinism import SETTING, first_difference, refusals_explained
from cvtrain.engine.distributed.rank import rank_from_environment
from cvtrain.engine.evaluator import evaluate
from cvtrain.engine.trainer import Trainer
from cvtrain.errors import ConfigError
from cvtrain.parts import Parts, make_parts, make_trainer
from cvtrain.prepared import PreparedData


def check_determinism(config: Config, facts: DataFacts | None = None) -> None:
    """Where a run promises the same bits: takes two steps on images of noise, and the same again.

    What has no deterministic form is met here and not after the first epoch; what draws from a generator of its own
    gives itself away, because the second time is not like the first.

    Args:
        config: Settings that have been checked.
        facts: Of the data. Without them this is done if the settings alone tell the shape of the images, with them
            if they do not: so calling it before and after the data are read does it once.

    Raises:
        ConfigError: What cannot give the same bits.
    """
    expected, rank = expected_facts(config), rank_from_environment()
    is_first = rank is None or rank.is_first
    if not config["trainer"]["deterministic"] or not is_first or (expected is None) == (facts is None):
        return
    config = build.without_pretrained(config)
    config["trainer"] |= {"compile": False, "steps": 10**12, "epochs": None}
    parts = make_parts(config, _noise(facts or expected), precision=None, start=None, team=None)
    trainer = make_trainer(config, parts, evaluate_fn=None, warn=lambda _sentence: None)
    before = copy.deepcopy(trainer.state_dict())
    first = _two_steps(config, parts, trainer)
    trainer.load_state_dict(before)
    different = first_difference(first, _two_steps(config, parts, trainer))
    if different:
        raise ConfigError(
            f"{SETTING}: the same steps gave other numbers the second time (first of all {different})",
            hint="let model, loss and augmentation draw from the global generators of torch, NumPy or Python, which are"
            " set before each step, and count nothing outside of buffers; or type trainer.deterministic=false",
        )


def _noise(facts: DataFacts) -> PreparedData:
    """A few images of noise that look to all as those of the data do."""
    pre, num_images = facts.preprocessing, 6
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (num_images, pre.image_size, pre.image_size, pre.channels), generator=generator)
    images = MemoryImages(pixels.float() if pre.is_point else pixels.to(torch.uint8))
    image_set = ImageSet(images, torch.arange(num_images) % facts.num_classes)
    everything = torch.arange(num_images)
    source = ImageData(image_set, None, image_set, facts.class_names, pre, facts.fingerprint)
    return PreparedData(source, Split(everything, everything[:0], everything, val_from_train=False), facts)


def _two_steps(config: Config, parts: Parts, trainer: Trainer) -> dict[str, Any]:
    """What two steps and an evaluation come to.

    Raises:
        ConfigError: An operation has no deterministic form.
    """
    device, events = parts.compute.device, trainer.run()
    inputs = build.eval_inputs(config, parts.prepared, "test", facts=parts.prepared.facts, device=device)
    with refusals_explained():
        while trainer.step < 2:
            next(events)
        tested = evaluate(parts.model, parts.loss_fn, inputs, compute=parts.compute, collect=True)
    assert tested is not None, "nobody asks it to stop"
    state = copy.deepcopy(trainer.state_dict())
    return {name: state[name] for name in ("model", "loss", "optimizer")} | {"evaluation": tested.probabilities}
