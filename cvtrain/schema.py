"""What every setting may hold: types, ranges and choices, and the words for what is wrong.

Knows plain dictionaries only: neither Hydra nor torch, so that a typing error is answered at once.
A key without a rule of its own takes the type of its default, so a new YAML key is checked from its first day.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Rule:
    """What one setting may hold.

    Args:
        describe: Completes "must be ...".
        accepts: Whether a value is right.
        optional: Whether null is right too.
    """

    describe: str
    accepts: Callable[[Any], bool]
    optional: bool = False

    def problem(self, value: Any) -> str | None:
        """What is wrong with `value`, or None."""
        if (value is None and self.optional) or (value is not None and self.accepts(value)):
            return None
        return f"must be {self.describe}{' or null' if self.optional else ''}"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def number(low: float = -math.inf, high: float = math.inf, *, above: float | None = None) -> Rule:
    """A finite number in `[low, high]`, and greater than `above` where given."""
    if above is not None:
        words = f"a number > {above:g}" + (f" and <= {high:g}" if high < math.inf else "")
    elif high < math.inf:
        words = f"a number from {low:g} to {high:g}"
    else:
        words = f"a number >= {low:g}" if low > -math.inf else "a number"
    floor = -math.inf if above is None else above
    return Rule(words, lambda v: _is_number(v) and low <= v <= high and (above is None or v > floor))


def fraction(*, below_one: bool = True) -> Rule:
    """A number in [0, 1), or in [0, 1]."""
    if not below_one:
        return number(0, 1)
    return Rule("a number from 0 to less than 1", lambda v: _is_number(v) and 0 <= v < 1)


def integer(low: int | None = None, high: int | None = None) -> Rule:
    """A whole number in `[low, high]`."""
    words = "a whole number"
    if low is not None and high is not None:
        words += f" from {low} to {high}"
    elif low is not None:
        words += f" >= {low}"

    def accepts(value: Any) -> bool:
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and (low is None or value >= low) and (high is None or value <= high)

    return Rule(words, accepts)


def choice(*words: str) -> Rule:
    """One of a few words."""
    return Rule(" | ".join(words), lambda v: v in words)


def text(*, pattern: Callable[[str], bool] = bool, words: str = "a word") -> Rule:
    """A string that is not empty."""
    return Rule(words, lambda v: isinstance(v, str) and pattern(v))


def sequence(of: Rule, *, words: str) -> Rule:
    """A list whose items all obey one rule."""
    return Rule(words, lambda v: isinstance(v, list | tuple) and all(of.problem(i) is None for i in v))


def either(*rules: Rule) -> Rule:
    """Any of several rules."""
    return Rule(" or ".join(r.describe for r in rules), lambda v: any(r.accepts(v) for r in rules))


def optional(rule: Rule) -> Rule:
    """The same, or null."""
    return Rule(rule.describe, rule.accepts, optional=True)


BOOLEAN = Rule("true or false", lambda v: isinstance(v, bool))
COUNT = integer(1)
PATH = text(words="a path")
WIDTHS = sequence(COUNT, words="a list of whole numbers >= 1")
WEIGHTS = sequence(number(above=0), words="a list of numbers > 0")
OPEN = Rule("anything", lambda _value: True, optional=True)


def _is_device(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    kind, _, index = value.partition(":")
    return value in ("auto", "cpu", "cuda", "mps") or (kind == "cuda" and index.isdecimal())


_BETAS = Rule(
    "two numbers from 0 to less than 1",
    lambda v: isinstance(v, list | tuple) and len(v) == 2 and all(fraction().problem(b) is None for b in v),
)

RULES: dict[str, Rule] = {
    "seed": integer(0, 2**62),
    "name": optional(
        Rule(
            "a word of letters, digits, '.', '_' and '-' (80 at most)",
            lambda v: (
                isinstance(v, str)
                and 0 < len(v) <= 80
                and v[0] != "."
                and all(c.isascii() and (c.isalnum() or c in "._-") for c in v)
            ),
        )
    ),
    "output_dir": PATH,
    "resume": optional(PATH),
    "checkpoint": optional(PATH),
    "input": optional(either(PATH, sequence(PATH, words="a list of paths"))),
    "split": choice("train", "val", "test"),
    "plugins": sequence(text(), words="a list of package names"),
    # trainer
    "trainer.epochs": optional(COUNT),
    "trainer.steps": optional(COUNT),
    "trainer.batch_size": COUNT,
    "trainer.eval_batch_size": COUNT,
    "trainer.accumulate": COUNT,
    "trainer.device": Rule("auto | cpu | cuda | cuda:N | mps", _is_device),
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
    "data.val_fraction": fraction(),
    "data.max_per_class": optional(COUNT),
    "data.image_size": optional(integer(1, 4096)),
    "data.channels": either(choice("auto"), Rule("1 or 3", lambda v: v in (1, 3) and v is not True)),
    "data.resize": choice("crop", "stretch", "pad"),
    "data.loader": choice("auto", "memory", "files"),
    "data.on_bad": choice("error", "skip"),
    "data.cache_dir": optional(PATH),
    "data.num_workers": optional(integer(0, 256)),
    "data.memory_limit_gb": optional(number(above=0)),
    "data.num_classes": integer(2),
    "data.per_class": COUNT,
    "data.seed": integer(0, 2**62),
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
    "model.hidden": WIDTHS,
    "model.widths": WIDTHS,
    "model.width": COUNT,
    "model.stem": choice("auto", "small", "large"),
    "model.name": text(),
    "model.weights": optional(text()),
    "model.kwargs": OPEN,
    # loss
    "loss.label_smoothing": fraction(),
    "loss.class_weights": optional(either(choice("auto"), WEIGHTS)),
    "loss.pos_weight": optional(either(choice("auto"), number(above=0))),
    "loss.on": choice("softmax", "outputs"),
    "loss.q": number(above=0, high=1),
    "loss.gamma": number(0),
    # optimizer
    "optimizer.lr": number(above=0),
    "optimizer.weight_decay": number(0),
    "optimizer.momentum": fraction(),
    "optimizer.betas": _BETAS,
    "optimizer.eps": number(above=0),
    "optimizer.alpha": fraction(),
    # scheduler
    "scheduler.warmup_epochs": number(0),
    "scheduler.warmup_steps": integer(0),
    "scheduler.warmup_start": number(0, 1),
    "scheduler.final_factor": number(0, 1),
    "scheduler.start_factor": number(0, 1),
    "scheduler.peak_fraction": number(0, 1),
    "scheduler.gamma": number(above=0, high=1),
    "scheduler.step_epochs": COUNT,
    "scheduler.milestones_epochs": sequence(number(above=0), words="a list of numbers > 0"),
    "scheduler.patience": integer(0),
    "scheduler.min_delta": number(0),
    "scheduler.min_factor": number(0, 1),
}


def leaves(settings: Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every `(dotted key, value)` below a dictionary; lists and empty dictionaries are values."""
    for key, value in settings.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def rule_for(key: str, default: Any) -> Rule:
    """The rule of a key: its own, or the type of its default."""
    if key in RULES:
        return RULES[key]
    if isinstance(default, bool):
        return BOOLEAN
    if isinstance(default, int):
        return integer()
    if isinstance(default, float):
        return number()
    if isinstance(default, str):
        return text()
    return OPEN


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The known word most like `word`, or None when none comes close."""
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=cutoff)
    return found[0] if found else None


def unknown_key(key: str, known: list[str]) -> str:
    """The sentence for a key that does not exist, with the key that was probably meant."""
    node, _, name = key.rpartition(".")
    siblings = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == node]
    match = nearest(name, siblings)
    if match:
        return f"unknown key {key}: did you mean {node + '.' if node else ''}{match}?"
    same_name = [k for k in known if k.rpartition(".")[2] == name]
    match = same_name[0] if same_name else nearest(key, known)
    if match:
        return f"unknown key {key}: did you mean {match}?"
    some = f"; {node} has {', '.join(siblings)}" if node and siblings else ""
    return f"unknown key {key}{some}"


def problems_of(settings: Settings, reference: Settings) -> list[str]:
    """Everything that is wrong with composed settings.

    Args:
        settings: The composed settings, resolved to plain values.
        reference: The same groups composed without any value of the user: which keys exist, and their defaults.
    """
    defaults = dict(leaves(reference))
    known = [k for k in defaults if not k.endswith("_target_")]
    problems = []
    for key, value in leaves(settings):
        if key in defaults:
            problem = rule_for(key, defaults[key]).problem(value)
            if problem:
                problems.append(f"{key}={_shown(value)}: {problem}")
        elif not _inside_open_node(key, defaults):
            problems.append(unknown_key(key, known))
    return problems + cross_checks(settings)


def _inside_open_node(key: str, defaults: Mapping[str, Any]) -> bool:
    """Whether `key` lies in a dictionary that takes any key, such as `model.kwargs`."""
    parts = key.split(".")
    nodes = (".".join(parts[:i]) for i in range(1, len(parts)))
    return any(node in defaults and RULES.get(node) is OPEN for node in nodes)


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    shown = str(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def cross_checks(settings: Settings) -> list[str]:
    """What is wrong between settings that are each right."""
    trainer, data = settings.get("trainer", {}), settings.get("data", {})
    stopping = trainer.get("early_stopping") or {}
    problems = []
    if trainer.get("epochs") is None and trainer.get("steps") is None:
        problems.append("trainer.epochs and trainer.steps are both null: set one of them")
    if trainer.get("epochs") is not None and trainer.get("steps") is not None:
        problems.append("trainer.epochs and trainer.steps are both set: choose one")
    batch_size, parts = trainer.get("batch_size"), trainer.get("accumulate")
    if isinstance(batch_size, int) and isinstance(parts, int) and parts > batch_size > 0:
        problems.append(f"trainer.accumulate={parts}: cannot part a batch of {batch_size}")
    if stopping.get("patience") is not None and data.get("val_fraction") == 0:
        problems.append("trainer.early_stopping.patience needs validation images: data.val_fraction is 0")
    augment = settings.get("augment", {})
    if augment.get("mixup") and augment.get("cutmix"):
        problems.append("augment.mixup and augment.cutmix are both on: choose one")
    return problems
