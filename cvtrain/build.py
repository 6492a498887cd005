"""From checked settings to objects: data, model, loss, optimizer, schedule, trainer.

Knows settings as plain dictionaries and what every group is called with; decides nothing about a run.
"""

from __future__ import annotations

import copy
import os
import warnings
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cvtrain import targets
from cvtrain.config import Config
from cvtrain.data.appearance import looks_of, measure_appearance
from cvtrain.data.audit.exact import leak_warning
from cvtrain.data.augment import Augment
from cvtrain.data.batches import Batches
from cvtrain.data.facts import DataFacts
from cvtrain.data.images import ImageData, ImageSet, MemoryImages, Progress
from cvtrain.data.inputs import EvalInputs, TrainInputs
from cvtrain.data.permutation import permutation_of, with_permutation
from cvtrain.data.roles import roles_file
from cvtrain.data.shares import Share
from cvtrain.data.splits import Split, make_split
from cvtrain.data.statistics import Normalize, measure_statistics
from cvtrain.engine.device import Compute, choose_device, choose_precision, set_determinism
from cvtrain.engine.distributed.rank import Rank
from cvtrain.engine.runtime import available_cores
from cvtrain.losses.foreign import ForeignLoss
from cvtrain.models.fit import check_image_size
from cvtrain.models.heads import replace_head
from cvtrain.models.init import initialise
from cvtrain.optimizers import build_optimizer
from cvtrain.prepared import PreparedData
from cvtrain.seeding import derive_seed, seed_generators


def _call(group: str, config: Config, **given: Any) -> Any:
    """Calls the target of a group with its settings and those arguments from code that it takes, draws seeded."""
    found = targets.resolve(group, config[group].get("_target_"), plugins=config.get("plugins", []))
    seed_generators(derive_seed(config["seed"], "init"))
    return found(**targets.accepted(found, given), **targets.options_of(group, config[group]))


# ------------------------------------------------------------------------------------------------------ data


def data(config: Config, *, progress: Progress | None = None) -> PreparedData:
    """Reads the data and splits them.

    Raises:
        ConfigError: Pixels are to be permuted, and there is one only.
        DataError: Missing, damaged or too few.
    """
    settings = config["data"]
    source = read_data(config, progress=progress)
    split = make_split(
        source.train.labels,
        source.val.labels if source.val else None,
        source.test.labels,
        val_fraction=settings["val_fraction"],
        max_per_class=settings["max_per_class"],
        seed=config["seed"],
    )
    return prepare(config, source, split)


def read_data(config: Config, *, progress: Progress | None = None) -> ImageData:
    """Reads the data.

    Raises:
        DataError: Missing or damaged.
    """
    source: ImageData = _call("data", config, progress=progress)
    return source


def prepare(config: Config, source: ImageData, split: Split) -> PreparedData:
    """Measures what there is to know of images whose roles are decided.

    Raises:
        ConfigError: Pixels are to be permuted, and there is one only.
    """
    counts = torch.bincount(source.train.labels[split.train], minlength=len(source.class_names))
    looks: list[Tensor | None] = []
    measured = source.statistics or measure_statistics(
        source.train.images, split.train, also=lambda images: looks.append(looks_of(images))
    )
    facts = DataFacts(
        class_names=source.class_names,
        class_counts=tuple(counts.tolist()),
        preprocessing=with_permutation(source.preprocessing, config["data"].get("permute_pixels")),
        statistics=measured,
        fingerprint=source.fingerprint,
        split_hash=split.hash(),
        appearance=measure_appearance(looks, preprocessing=source.preprocessing, originals=source.originals),
    )
    return PreparedData(source, split, facts)


def warned_of_leaks(config: Config, prepared: PreparedData) -> PreparedData:
    """The data, with a warning where images that validate or test are trained on too, as far as memory shows it."""
    source, root = prepared.source, config["data"].get("root")
    command = f"cvtrain task=audit data={data_name(config)}" + (f" data.root={root}" if root else "")
    warning = leak_warning({split: prepared.part(split) for split in ("train", "val", "test")}, command=command)
    return replace(prepared, source=replace(source, warnings=(*source.warnings, warning))) if warning else prepared


def save_split(prepared: PreparedData, *, names: bool = False) -> bytes:
    """The bytes of split.npz: the indices of every split, with or without the names of the files."""
    return roles_file(prepared.source, prepared.split, names=names)


def _batches(
    config: Config, images: ImageSet, indices: Tensor, *, batch_size: int, device: torch.device, rank: Rank | None
) -> Batches:
    return Batches(
        images,
        indices,
        batch_size=batch_size,
        device=device,
        seed=derive_seed(config["seed"], "data"),
        num_workers=num_workers(config, rank),
    )


def num_workers(config: Config, rank: Rank | None = None) -> int:
    """Processes that read image files for this one while training."""
    wanted = config["data"].get("num_workers")
    return min(available_cores(rank.local_size if rank else 1), 8) if wanted is None else wanted


def eval_inputs(
    config: Config,
    prepared: PreparedData,
    split: str,
    *,
    facts: DataFacts,
    device: torch.device,
    rank: Rank | None = None,
) -> EvalInputs:
    """The images of a split, normalised and permuted as `facts` say (a checkpoint's, when one is evaluated).

    Of several processes each gets its share; these put together in the order of the processes are the split.
    """
    images, indices = prepared.part(split)
    batch_size = config["trainer"]["eval_batch_size"]
    if rank is not None:
        indices, batch_size = indices.tensor_split(rank.size)[rank.number], max(batch_size // rank.size, 1)
    batches = _batches(config, images, indices, batch_size=batch_size, device=device, rank=rank)
    permute = permutation_of(facts.preprocessing, device=device)
    return EvalInputs(batches, Normalize(facts.statistics).to(device), permute=permute)


def train_inputs(
    config: Config, prepared: PreparedData, *, device: torch.device, rank: Rank | None = None
) -> TrainInputs:
    """The training images, shuffled, augmented, normalised and permuted; of several processes each has a share.

    Raises:
        ConfigError: They are points, which cannot be augmented so.
    """
    trainer = config["trainer"]
    share = Share(rank.number, rank.size, trainer["accumulate"]) if rank else None
    images, indices = prepared.part("train")
    batches = _batches(config, images, indices, batch_size=trainer["batch_size"], device=device, rank=rank)
    facts, seed = prepared.facts, derive_seed(config["seed"], "augment")
    normalize, permute = Normalize(facts.statistics).to(device), permutation_of(facts.preprocessing, device=device)
    return TrainInputs(batches, augmentation(config, facts), normalize, seed=seed, permute=permute, share=share)


def augmentation(config: Config, facts: DataFacts) -> Augment:
    """How training images are varied.

    Raises:
        ConfigError: It has no meaning for inputs that are points.
    """
    augment: Augment = _call("augment", config)
    augment.check_suits(facts.preprocessing)
    return augment


def fits_in_memory(prepared: PreparedData) -> bool:
    """Whether the training images are held in memory."""
    return isinstance(prepared.source.train.images, MemoryImages)


# ----------------------------------------------------------------------------------------------------- model


def loss(config: Config, facts: DataFacts) -> nn.Module:
    """The loss.

    Raises:
        ConfigError: It does not suit the classes.
    """
    made = _call("loss", config, num_classes=facts.num_classes, class_counts=facts.class_counts)
    return made if hasattr(made, "probabilities") else ForeignLoss(made, facts.num_classes)


def model(config: Config, facts: DataFacts, *, num_outputs: int) -> nn.Module:
    """The model on the CPU, with PyTorch's own initial weights, drawn from the seed of the config.

    A loss may ask for a last layer of its own: then the model has that one, wherever it is made.

    Raises:
        ConfigError: It does not take the images, its output does not fit the classes, or it has no last layer that
            the loss could replace.
    """
    shape = {"num_classes": num_outputs, "in_channels": facts.in_channels, "image_size": facts.image_size}
    set_determinism(False)  # a trial without numbers may do what a run may not; `compute` decides about that
    check_image_size(partial(_call, "model", without_pretrained(config)), name=model_name(config), **shape)
    make_head = getattr(loss(config, facts), "head", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries whose models warn while they are made
        network = _call("model", config, **shape)
    if make_head is not None:
        del shape["num_classes"]
        replace_head(network, make_head, reason=f"loss={config['choices']['loss']}", **shape)
    return network


def without_pretrained(config: Config) -> Config:
    """The same settings without pretrained weights, for where the model's own will be put in, or none are needed."""
    bare = copy.deepcopy(config)
    for key, nothing in (("weights", None), ("pretrained", False), ("init_from", None)):
        if key in bare["model"]:
            bare["model"][key] = nothing
    return bare


def data_name(config: Config) -> str:
    """What to call the data: the option chosen."""
    return str(config["choices"]["data"])


def model_name(config: Config) -> str:
    """What to call the model: the option chosen, or the name that a library knows it by."""
    chosen = str(config["choices"]["model"])
    return str(config["model"]["name"]) if chosen in ("torchvision", "timm") else chosen


def initialised_model(config: Config, facts: DataFacts, *, num_outputs: int) -> tuple[nn.Module, str]:
    """The model with the weights that training starts from, and which initialisation was used."""
    network = model(config, facts, num_outputs=num_outputs)
    used = initialise(network, init=config["trainer"]["init"])
    return network, used


def device(config: Config, rank: Rank | None = None) -> torch.device:
    """Where this process computes.

    Raises:
        ConfigError: The device is not present.
    """
    return choose_device(config["trainer"]["device"], local_number=rank.local_number if rank else None)


def compute(
    config: Config, network: nn.Module | None, *, precision: str | None = None, rank: Rank | None = None
) -> Compute:
    """Device and number format; a resumed run keeps the precision it had."""
    trainer = config["trainer"]
    where = device(config, rank)
    set_determinism(trainer["deterministic"])
    if precision is None:
        precision = choose_precision(trainer["precision"], where, network) if network is not None else "fp32"
    return Compute(where, precision, trainer["channels_last"])


def optimizer(config: Config, network: nn.Module, *, device: torch.device) -> torch.optim.Optimizer:
    """The optimizer over the parameters that are trained.

    Raises:
        ConfigError: It refuses its options.
    """
    settings = config["optimizer"]
    found = targets.resolve("optimizer", settings.get("_target_"), plugins=config.get("plugins", []))
    return build_optimizer(
        found,
        network,
        weight_decay=settings.get("weight_decay", 0.0),
        decay_norm_and_bias=settings.get("decay_norm_and_bias", False),
        device_type=device.type,
        **targets.options_of("optimizer", settings),
    )


def schedule(config: Config, *, total_steps: int, steps_per_epoch: int) -> Any:
    """The course of the learning rate.

    Raises:
        ConfigError: A warm-up that is longer than the run.
    """
    return _call("scheduler", config, total_steps=total_steps, steps_per_epoch=steps_per_epoch)


def total_steps(config: Config, *, steps_per_epoch: int) -> int:
    """The length of a run in steps."""
    trainer = config["trainer"]
    return trainer["steps"] if trainer["steps"] is not None else trainer["epochs"] * steps_per_epoch


def evaluate_every(config: Config, *, steps_per_epoch: int) -> int:
    """Steps between evaluations."""
    wanted = config["trainer"]["evaluate_every"]
    return steps_per_epoch if wanted == "epoch" else wanted


def limit_threads(rank: Rank | None = None) -> None:
    """Uses the cores that this process may use, unless the user, or the launcher, has said how many."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(available_cores(rank.local_size if rank else 1))
