"""What every setting may hold, what must hold between settings, and the words for what is wrong.

Knows plain dictionaries only: neither Hydra nor torch, so that a typing error is answered at once.
A key without a rule of its own takes the type of its default, so a new YAML key is checked from its first day; null is
right where it is the default, or where the rule says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from cvtrain.rules import (
    COUNT,
    DICTIONARY,
    PATH,
    Rule,
    choice,
    either,
    fraction,
    integer,
    number,
    of_default,
    optional,
    sequence,
    text,
)
from cvtrain.suggestions import unknown_key

Settings = Mapping[str, Any]


def _is_device(value: str) -> bool:
    kind, _, index = value.partition(":")
    return value in ("auto", "cpu", "cuda", "mps") or (kind == "cuda" and index.isdecimal())


def _is_folder_name(value: Any) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return value >= 0
    return (
        isinstance(value, str)
        and 0 < len(value) <= 80
        and value[0] != "."
        and all(c.isascii() and (c.isalnum() or c in "._-") for c in value)
    )


_BETAS = sequence(fraction(), words="two numbers from 0 to less than 1", length=2)
_LENGTH = integer(1, 999_999_999)  # the name of a checkpoint has nine digits
_ODD = Rule("an odd whole number >= 1", lambda v: COUNT.accepts(v) and v % 2 == 1)
_SEED = integer(0, 2**62)
_WEIGHTS = sequence(number(above=0), words="a list of numbers > 0")
_WIDTHS = sequence(COUNT, words="a list of whole numbers >= 1")

RULES: dict[str, Rule] = {
    "seed": _SEED,
    "name": optional(Rule("a word of letters, digits, '.', '_' and '-' (80 at most)", _is_folder_name)),
    "output_dir": PATH,
    "plugins": sequence(text(), words="a list of package names"),
    # task
    "resume": optional(PATH),
    "checkpoint": optional(PATH),
    "input": optional(either(PATH, sequence(PATH, words="a list of paths"))),
    "split": choice("train", "val", "test"),
    # trainer
    "trainer.epochs": optional(_LENGTH),
    "trainer.steps": optional(_LENGTH),
    "trainer.batch_size": COUNT,
    "trainer.eval_batch_size": COUNT,
    "trainer.accumulate": COUNT,
    "trainer.device": text(accepts=_is_device, words="auto | cpu | cuda | cuda:N | mps"),
    "trainer.precision": choice("auto", "fp32", "bf16", "fp16"),
    "trainer.grad_clip": optional(number(above=0)),
    "trainer.ema": optional(fraction()),
    "trainer.freeze": sequence(text(), words="a list of name patterns such as ['features.*']"),
    "trainer.init": choice("auto", "default", "he"),
    "trainer.evaluate_every": either(choice("epoch"), COUNT),
    "trainer.early_stopping.metric": choice("val_accuracy", "val_loss"),
    "trainer.early_stopping.patience": optional(COUNT),
    "trainer.early_stopping.min_delta": number(0),
    "trainer.early_stopping.min_epochs": integer(0),
    "trainer.checkpoint.every_minutes": number(above=0),
    "trainer.checkpoint.keep": COUNT,
    # data
    "data.root": optional(PATH),
    "data.mirror": optional(
        text(accepts=lambda v: v.startswith(("https://", "http://")), words="an address https://...")
    ),
    "data.val_fraction": fraction(),
    "data.max_per_class": optional(COUNT),
    "data.image_size": integer(1, 4096),
    "data.channels": either(choice("auto"), Rule("1 or 3", lambda v: v in (1, 3) and v is not True)),
    "data.resize": choice("crop", "stretch", "pad"),
    "data.loader": choice("auto", "memory", "files"),
    "data.on_bad": choice("error", "skip"),
    "data.cache_dir": optional(PATH),
    "data.num_workers": optional(integer(0, 256)),
    "data.memory_limit_gb": optional(number(above=0)),
    "data.num_classes": integer(2),
    "data.per_class": COUNT,
    "data.seed": _SEED,
    "data.label": choice("fine", "coarse"),
    # augment
    "augment.crop_padding": integer(0, 1024),
    "augment.crop_fill": choice("reflect", "zeros"),
    "augment.flip": choice("none", "random", "alternating"),
    "augment.cutout": integer(0, 4096),
    "augment.rotate": number(0, 180),
    "augment.shift": number(0, 1),
    "augment.scale": fraction(),
    "augment.color": number(0, 1),
    "augment.erase": number(0, 1),
    "augment.mixup": number(0),
    "augment.cutmix": number(0),
    # model
    "model.dropout": fraction(),
    "model.hidden": _WIDTHS,
    "model.widths": _WIDTHS,
    "model.width": COUNT,
    "model.kernel_size": _ODD,
    "model.stem": choice("auto", "small", "large"),
    "model.name": text(),
    "model.weights": optional(text()),
    "model.kwargs": DICTIONARY,
    # loss
    "loss.label_smoothing": fraction(),
    "loss.class_weights": optional(either(choice("auto"), _WEIGHTS)),
    "loss.pos_weight": optional(either(choice("auto"), number(above=0))),
    "loss.compare": choice("softmax", "outputs"),
    "loss.target_scale": number(above=0),
    "loss.target_value": number(above=0),
    "loss.q": number(above=0, high=1),
    "loss.gamma": number(0),
    # optimizer
    "optimizer.lr": number(above=0),
    "optimizer.weight_decay": number(0),
    "optimizer.momentum": fraction(),
    "optimizer.dampening": fraction(),
    "optimizer.betas": _BETAS,
    "optimizer.eps": number(above=0),
    "optimizer.alpha": fraction(),
    "optimizer.lr_decay": number(0),
    "optimizer.initial_accumulator_value": number(0),
    "optimizer.ns_steps": COUNT,
    "optimizer.adamw_lr": number(above=0),
    "optimizer.adamw_betas": _BETAS,
    "optimizer.adamw_eps": number(above=0),
    # scheduler
    "scheduler.warmup_epochs": number(0),
    "scheduler.warmup_steps": integer(0),
    "scheduler.warmup_start": number(0, 1),
    "scheduler.final_factor": number(0, 1),
    "scheduler.start_factor": number(0, 1),
    "scheduler.peak_fraction": number(0, 1),
    "scheduler.anneal": choice("cosine", "linear"),
    "scheduler.gamma": number(above=0, high=1),
    "scheduler.step_epochs": number(above=0),
    "scheduler.milestones_epochs": sequence(number(above=0), words="a list of numbers > 0"),
    "scheduler.patience": integer(0),
    "scheduler.min_delta": number(0),
    "scheduler.min_factor": number(0, 1),
}


def rule_for(key: str, default: Any) -> Rule:
    """The rule of a key: its own, or the type of its default."""
    rule = RULES[key] if key in RULES else of_default(default)
    return optional(rule) if default is None else rule


def leaves(settings: Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every `(dotted key, value)` below a dictionary; lists and empty dictionaries are values."""
    for key, value in settings.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def look_up(settings: Settings, key: str) -> tuple[bool, Any]:
    """Whether a dotted key is there, and its value."""
    value: Any = settings
    for name in key.split("."):
        if not isinstance(value, Mapping) or name not in value:
            return False, None
        value = value[name]
    return True, value


# ------------------------------------------------------------------------------------------------- all problems


def problems_of(
    settings: Settings, reference: Settings, *, explain: Callable[[str, list[str]], str] = unknown_key
) -> list[str]:
    """Everything that is wrong with composed settings.

    Args:
        settings: The composed settings, resolved to plain values.
        reference: The same groups composed without any value of the user: which keys exist, and their defaults.
        explain: Makes the sentence for an unknown key from it and all known keys.
    """
    defaults = dict(leaves(reference))
    nodes = {key.rpartition(".")[0] for key in defaults} - {""}
    problems, missing = [], []
    for key, default in defaults.items():
        found, value = look_up(settings, key)
        if not found:
            missing.append(key)
        elif problem := rule_for(key, default).problem(value):
            is_quoted = isinstance(value, str) and isinstance(default, int | float) and _is_numeral(value)
            problems.append(f"{key}={shown(value)}: {problem}{'; leave out the quotes' if is_quoted else ''}")
    known = [key for key in defaults if not key.endswith("_target_")]
    for key, value in leaves(settings):
        if key in nodes:
            inside = [k for k in missing if k.startswith(f"{key}.")]
            missing = [k for k in missing if k not in inside]
            names = ", ".join([k.removeprefix(f"{key}.") for k in inside][:5])
            problems.append(f"{key}={shown(value)}: is no value but a group of keys: {names}")
        elif not _is_covered(key, defaults):
            problems.append(explain(key, known))
    return problems + _missing(missing) + cross_checks(settings)


def _is_numeral(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _is_covered(key: str, defaults: Collection[str]) -> bool:
    """Whether a key, or a dictionary that it lies in, such as `model.kwargs`, has been looked at."""
    parts = key.split(".")
    return any(".".join(parts[:i]) in defaults for i in range(1, len(parts) + 1))


def _missing(keys: list[str]) -> list[str]:
    if len(keys) <= 2:
        return [f"{key} is missing, and needed" for key in keys]
    some = ", ".join(keys[:3])
    return [f"{len(keys)} keys are missing ({some}, ...): a config of your own begins with defaults: [config, _self_]"]


def shown(value: Any) -> str:
    """A value as it is typed, shortened."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(map(shown, value))}]"[:60]
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{k}:{shown(v)}' for k, v in value.items())}}}"[:60]
    whole = str(value)
    return whole if len(whole) <= 60 else f"{whole[:57]}..."


# ------------------------------------------------------------------------------------------- between settings


def _node(settings: Settings, key: str) -> Settings:
    value = look_up(settings, key)[1]
    return value if isinstance(value, Mapping) else {}


def cross_checks(settings: Settings) -> list[str]:
    """What is wrong between settings that are each right."""
    trainer, data, augment = (_node(settings, group) for group in ("trainer", "data", "augment"))
    optimizer, scheduler = _node(settings, "optimizer"), _node(settings, "scheduler")
    patience = _node(settings, "trainer.early_stopping").get("patience")
    problems = []
    if "epochs" in trainer and trainer["epochs"] is None and trainer.get("steps") is None:
        problems.append("trainer.epochs and trainer.steps are both null: set one of them")
    if trainer.get("epochs") is not None and trainer.get("steps") is not None:
        problems.append("trainer.epochs and trainer.steps are both set: choose one")
    batch_size, parts = trainer.get("batch_size"), trainer.get("accumulate")
    if COUNT.problem(batch_size) is None and COUNT.problem(parts) is None and parts > batch_size:
        problems.append(f"trainer.accumulate={parts}: cannot part a batch of {batch_size}")
    # Folders of images, which have a loader, may bring validation images of their own.
    if data.get("val_fraction") == 0 and "loader" not in data:
        needing = ["trainer.early_stopping.patience"] if patience is not None else []
        needing += ["scheduler=plateau"] if "min_factor" in scheduler else []
        problems += [f"{what} needs validation images: data.val_fraction is 0" for what in needing]
    if augment.get("mixup") and augment.get("cutmix"):
        problems.append("augment.mixup and augment.cutmix are both on: choose one")
    if optimizer.get("nesterov") is True and "dampening" in optimizer:
        if optimizer.get("momentum") == 0:
            problems.append("optimizer.nesterov=true needs optimizer.momentum > 0")
        if optimizer["dampening"] != 0:
            problems.append("optimizer.nesterov=true needs optimizer.dampening=0")
    if scheduler.get("warmup_epochs") and scheduler.get("warmup_steps"):
        problems.append("scheduler.warmup_epochs and scheduler.warmup_steps are both set: choose one")
    if "root" in data and data["root"] is None:
        problems.append(
            "data.root is needed: data.root=FOLDER, which holds train/<class>/ and test/<class>/ with images"
        )
    return problems


def idle_settings(settings: Settings, typed: Collection[str]) -> list[str]:
    """Typed settings that cannot take effect, because another setting has switched off what they tune."""
    stopping, augment = _node(settings, "trainer.early_stopping"), _node(settings, "augment")
    problems = []
    if "trainer.early_stopping.min_epochs" in typed and stopping.get("patience") is None:
        problems.append("trainer.early_stopping.min_epochs has no effect without trainer.early_stopping.patience")
    if "augment.crop_fill" in typed and augment.get("crop_padding") == 0:
        problems.append("augment.crop_fill has no effect without augment.crop_padding")
    return problems
