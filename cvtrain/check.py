"""Everything that can be said about settings before any data are read, all at once.

Knows what the parts of a run refuse; decides nothing about a run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from cvtrain import build, targets
from cvtrain.config import Config
from cvtrain.data.facts import DataFacts
from cvtrain.data.images import Preprocessing
from cvtrain.data.known import known_facts
from cvtrain.data.permutation import with_permutation
from cvtrain.data.statistics import Statistics
from cvtrain.engine.device import choose_device, device_problem
from cvtrain.engine.freezing import freeze
from cvtrain.errors import ConfigError

_GROUPS = ("data", "augment", "model", "loss", "optimizer", "scheduler")


def check(config: Config, *, trains: bool = False) -> None:
    """Everything that can be said about settings before any data are read.

    Args:
        config: Settings that obey the schema.
        trains: Whether a model is to be made as they say: then, where the shape of the images is known in advance,
            loss, model, optimizer and schedule are made on trial.

    Raises:
        ConfigError: All problems at once: targets that are not allowed, options that they do not take or refuse, a
            model that does not take the images, a device that is not here.
    """
    plugins = config.get("plugins", [])
    problems = [
        problem
        for group in _GROUPS
        if isinstance(config.get(group), dict)
        for problem in targets.problems_of(group, config[group], plugins=plugins)
    ]
    if trains and not problems:
        problems = _trial_problems(config)
    device = device_problem(config["trainer"]["device"])
    if device:
        problems.append(device)
    elif config["trainer"]["precision"] == "fp16" and choose_device(config["trainer"]["device"]).type == "cpu":
        problems.append("trainer.precision=fp16 needs a GPU: type trainer.precision=bf16 or auto")
    if problems:
        raise ConfigError(problems)


def _trial_problems(config: Config) -> list[str]:
    """What the parts say when they are made without data and without weights."""
    problems: list[str] = []

    def attempt(make: Callable[[], Any]) -> Any:
        try:
            return make()
        except ConfigError as error:
            problems.extend(error.lines())

    attempt(lambda: build.schedule(config, total_steps=10**12, steps_per_epoch=1))
    facts = attempt(lambda: expected_facts(config))
    if facts is None:
        return problems
    attempt(lambda: build.augmentation(config, facts))
    loss_fn = attempt(lambda: build.loss(config, facts))
    num_outputs = loss_fn.num_outputs if loss_fn is not None else facts.num_classes
    with torch.device("meta"):  # where tensors have shapes and no numbers, and no weights are fetched
        network = attempt(lambda: build.model(config, facts, num_outputs=num_outputs))
        if network is not None and attempt(lambda: freeze(network, config["trainer"]["freeze"])) is not None:
            attempt(lambda: build.optimizer(config, network, device=torch.device("cpu")))
    return list(dict.fromkeys(problems))  # what is wrong with the loss is met again with the model


def expected_facts(config: Config) -> DataFacts | None:
    """Classes and image shape, where the settings alone tell them; counts and statistics are stand-ins."""
    known = known_facts(config["data"])
    if known is None:
        return None
    seed = config["data"].get("permute_pixels")
    names, channels = tuple(f"class {i}" for i in range(known.num_classes)), known.channels
    return DataFacts(
        class_names=names,
        class_counts=(1,) * len(names),
        preprocessing=with_permutation(Preprocessing(known.image_size, channels), seed),
        statistics=Statistics((0.5,) * channels, (0.25,) * channels),
        fingerprint="",
        split_hash="",
    )
