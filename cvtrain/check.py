"""Everything that can be said about settings before any data are read, all at once.

Knows what the parts of a run refuse; decides nothing about a run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from cvtrain import build, targets
from cvtrain.config import Config
from cvtrain.data.facts import DataFacts
from cvtrain.data.images import Preprocessing
from cvtrain.data.known import known_facts
from cvtrain.data.permutation import with_permutation
from cvtrain.data.statistics import Statistics
from cvtrain.engine.determinism import determinism_problem
from cvtrain.engine.device import choose_device, device_problem, shared_device_problem
from cvtrain.engine.distributed.rank import rank_from_environment
from cvtrain.engine.freezing import freeze
from cvtrain.errors import ConfigError
from cvtrain.resume import first_line
from cvtrain.trackers.options import tracker_problems

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
    problems += tracker_problems(config)
    if trains and not problems:
        problems = _trial_problems(config)
    device, rank = device_problem(config["trainer"]["device"]), rank_from_environment()
    shared = shared_device_problem(config["trainer"]["device"], num_local=rank.local_size) if rank else None
    if device or shared:
        problems += [problem for problem in (device, shared) if problem]
    elif config["trainer"]["deterministic"] and (refused := determinism_problem(build.device(config, rank))):
        problems.append(refused)
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
        if network is not None and loss_fn is not None and not problems:
            attempt(lambda: _trial_step(config, facts, network))
    return list(dict.fromkeys(problems))  # what is wrong with the loss is met again with the model


def _trial_step(config: Config, facts: DataFacts, network: nn.Module) -> None:
    """A step on two images without numbers: whether loss and gradients take what the model gives.

    Raises:
        ConfigError: They do not.
    """
    size, kind = facts.image_size, torch.device("meta")
    try:
        logits = network.train()(torch.empty(2, facts.in_channels, size, size, device=kind))
        losses = build.loss(config, facts)(logits, torch.zeros(2, dtype=torch.int64, device=kind))
        losses.sum().backward()
    except ConfigError:
        raise
    except Exception as error:  # of a model or a loss of the user's, whatever it is
        if "meta" in str(error) or isinstance(error, NotImplementedError):
            return  # it looks at numbers, and here are none
        loss = config["choices"]["loss"]
        raise ConfigError(
            f"loss={loss} cannot train model={build.model_name(config)}: {type(error).__name__}: {first_line(error)}"
        ) from None


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
