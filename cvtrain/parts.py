"""What a training run is made of, before its first step: model with its first weights, loss, optimizer, trainer.

Knows how settings and data become these parts, alone or as one of several processes; not what becomes of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cvtrain import build
from cvtrain.config import Config
from cvtrain.engine.averaging import WeightAverage
from cvtrain.engine.device import Compute
from cvtrain.engine.distributed.shared_training import SharedTraining
from cvtrain.engine.distributed.team import Team
from cvtrain.engine.evaluator import EvaluationResult
from cvtrain.engine.freezing import freeze
from cvtrain.engine.trainer import Trainer
from cvtrain.init_from import Start, Taken, take_weights, with_normalisation
from cvtrain.plain_text import printable
from cvtrain.prepared import PreparedData


@dataclass(frozen=True)
class Parts:
    """A model and what it is trained with.

    Args:
        prepared: The data, normalised as the model's first weights expect.
        loss_fn: On the device.
        model: On the device.
        init: The initialisation used.
        taken: What was taken over from another run, or None.
        compute: Device and number format.
        team: The processes that train together, or None.
    """

    prepared: PreparedData
    loss_fn: nn.Module
    model: nn.Module
    init: str
    taken: Taken | None
    compute: Compute
    team: Team | None


def make_parts(
    config: Config, prepared: PreparedData, *, precision: str | None, start: Start | None, team: Team | None
) -> Parts:
    """Makes the model and what computes it.

    Args:
        config: Checked settings.
        prepared: The data.
        precision: That of the checkpoint to go on from, or None.
        start: What `model.init_from` names, or None.
        team: The processes that train together, or None.

    Raises:
        ConfigError: Settings that do not fit the data or each other.
        DataError: The processes of a team do not compute alike.
    """
    loss_fn = build.loss(config, prepared.facts)
    model, init = build.initialised_model(config, prepared.facts, num_outputs=loss_fn.num_outputs)
    taken = None
    if start is not None:
        taken = take_weights(model, start, config=config, prepared=prepared)
        prepared = with_normalisation(prepared, start.facts)
    compute = build.compute(config, model, precision=precision, rank=team.rank if team else None)
    compute.place(model)
    loss_fn.to(compute.device)
    if team is not None:
        team.check_same({"trainer.precision": compute.precision})
    return Parts(prepared, loss_fn, model, init, taken, compute, team)


def make_trainer(
    config: Config,
    parts: Parts,
    *,
    evaluate_fn: Callable[[], EvaluationResult | None] | None,
    warn: Callable[[str], None],
) -> Trainer:
    """Makes the optimizer, the batches and the loop.

    Args:
        config: Checked settings.
        parts: The model and what computes it.
        evaluate_fn: Evaluates the model, or None.
        warn: Takes a sentence for the user.

    Raises:
        ConfigError: Settings that do not fit the data or each other.
    """
    settings, model, compute = config["trainer"], parts.model, parts.compute
    frozen = freeze(model, settings["freeze"]) if settings["freeze"] else []
    rank = parts.team.rank if parts.team else None
    inputs = build.train_inputs(config, parts.prepared, device=compute.device, rank=rank)
    total_steps = build.total_steps(config, steps_per_epoch=len(inputs))
    shared = SharedTraining(model, parts.team) if parts.team else None
    image_set = parts.prepared.part("train")[0]

    def name_images(indices: Tensor) -> list[str]:
        names = image_set.names
        return [printable(names[i]) if names is not None else f"image {i}" for i in indices.tolist()]

    return Trainer(
        model,
        parts.loss_fn,
        optimizer=build.optimizer(config, model, device=compute.device),
        schedule=build.schedule(config, total_steps=total_steps, steps_per_epoch=len(inputs)),
        inputs=inputs,
        evaluate_fn=evaluate_fn,
        compute=compute,
        total_steps=total_steps,
        seed=config["seed"],
        evaluate_every=build.evaluate_every(config, steps_per_epoch=len(inputs)),
        accumulate=settings["accumulate"],
        grad_clip=settings["grad_clip"],
        average=WeightAverage(model, settings["ema"]) if settings["ema"] is not None else None,
        frozen=frozen,
        forward=torch.compile(model) if settings["compile"] else None,
        shared=shared,
        warn=warn,
        name_images=name_images,
    )
