"""What every setting may hold, what must hold between settings, and the words for what is wrong.

Knows plain dictionaries only: neither Hydra nor torch, so that a typing error is answered at once.
A key without a rule of its own takes the type of its default, so a new YAML key is checked from its first day; null is
right where it is the default, or where the rule says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from cvtrain.rules import COUNT, Rule, is_number, of_default, optional
from cvtrain.ruleset import IDLE_KEYS, RULES
from cvtrain.suggestions import unknown_key

Settings = Mapping[str, Any]


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
    problems += _misplaced(settings, defaults)
    for key, value in leaves(settings):
        if key in nodes:
            inside = [k for k in missing if k.startswith(f"{key}.")]
            missing = [k for k in missing if k not in inside]
            names = ", ".join([k.removeprefix(f"{key}.") for k in inside][:5])
            problems.append(f"{key}={shown(value)}: is no value but a group of keys: {names}")
        elif not _is_covered(key, defaults):
            problems.append(explain(key, known))
    return problems + _missing(missing) + cross_checks(settings)


_NAMES_CODE = ("_target_", "_partial_", "_args_", "_recursive_", "_convert_")
"""Words by which other programs of Hydra's kind call what a config names."""


def _misplaced(settings: Settings, defaults: Collection[str]) -> Iterator[str]:
    """Keys that stand where they would have no effect: with dots in them, or naming code below a group."""
    for path, key in _keys(settings):
        is_open = _is_covered(path.rpartition(".")[0], defaults)  # its keys are free, as those of model.kwargs
        if key in _NAMES_CODE and is_open:
            yield f"{path}: code is named by GROUP._target_ alone, and never deeper"
        elif "." in key and not is_open:
            nested = key.replace(".", ": {") + ": ..." + "}" * key.count(".")
            yield f"unknown key '{key}': in a file dots do not part keys; write {shown(nested)}"


def _keys(node: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every `(dotted key, key)` of nested containers."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield f"{prefix}{key}", str(key)
            yield from _keys(value, f"{prefix}{key}.")
    elif isinstance(node, list | tuple):
        for i, value in enumerate(node):
            yield from _keys(value, f"{prefix}{i}.")


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


_ROOT_HOLDS = {
    "cvtrain.data.folder.load_image_folder": "FOLDER, which holds train/<class>/ and test/<class>/ with images",
    "cvtrain.data.palm.load_palm": "FOLDER, which holds PALM-Training400/, PALM-Validation400/ and labels.csv",
    "cvtrain.data.food11.load_food11": "PATH of the folder that holds training/, validation/ and evaluation/, or a zip",
    "cvtrain.data.image_csv.load_image_csv": "FOLDER, which holds images and labels.csv (image,label)",
}


def cross_checks(settings: Settings) -> list[str]:
    """What is wrong between settings that are each right."""
    trainer, data, augment = (_node(settings, group) for group in ("trainer", "data", "augment"))
    optimizer, scheduler = _node(settings, "optimizer"), _node(settings, "scheduler")
    patience = _node(settings, "trainer.early_stopping").get("patience")
    problems = []
    if settings.get("task") == "sample_size_sweep":
        problems += _sample_size_problems(settings)
    elif "evaluate_every" in trainer and trainer["evaluate_every"] is None:
        problems.append("trainer=sample_size is for task=sample_size_sweep alone")
    elif "epochs" in trainer and trainer["epochs"] is None and trainer.get("steps") is None:
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
    model = _node(settings, "model")
    for key in ("weights", "pretrained"):
        if model.get("init_from") is not None and model.get(key):
            problems.append(f"model.init_from and model.{key} are both set: choose one")
    if "root" in data and data["root"] is None:
        holds = _ROOT_HOLDS.get(str(data.get("_target_")), _ROOT_HOLDS["cvtrain.data.folder.load_image_folder"])
        problems.append(f"data.root is needed: data.root={holds}")
    return problems


def _sample_size_problems(settings: Settings) -> list[str]:
    """What is wrong between the settings of a sample-size sweep."""
    sizes, replicates, budget = settings.get("sizes"), settings.get("replicates"), _node(settings, "budget")
    problems = []
    if isinstance(replicates, list) and (not isinstance(sizes, list) or len(sizes) != len(replicates)):
        problems.append(f"replicates={shown(replicates)}: a list needs sizes=[...] of the same length")
    if isinstance(sizes, list) and len(set(map(str, sizes))) < len(sizes):
        problems.append(f"sizes={shown(sizes)}: a size stands there twice")
    low, high = budget.get("min_steps"), budget.get("max_steps")
    if COUNT.problem(low) is None and COUNT.problem(high) is None and low > high:
        problems.append(f"budget.min_steps={low} is more than budget.max_steps={high}")
    if sizes == []:
        problems.append("sizes=[]: name a size at least, such as sizes=[10,100,1000]")
    fraction = _node(settings, "data").get("val_fraction")
    if fraction == 0:
        problems.append("task=sample_size_sweep needs images to validate: data.val_fraction is 0")
    elif is_number(fraction) and 0.5 < fraction <= 1:
        problems.append(f"data.val_fraction={fraction}: at most half of a subset can validate")
    return problems


def idle_settings(settings: Settings, typed: Collection[str]) -> list[str]:
    """Typed settings that cannot take effect, because another setting has switched off what they tune."""
    stopping, augment = _node(settings, "trainer.early_stopping"), _node(settings, "augment")
    problems = []
    is_sweep = settings.get("task") == "sample_size_sweep"
    if settings.get("tracker") and settings.get("task") != "train":
        keys = [key for key in typed if key.partition(".")[0] == "tracker"]
        problems += [f"{key} has no effect with task={settings.get('task')}: task=train is tracked" for key in keys]
    idle = IDLE_KEYS.get(str(settings.get("task")), ())
    problems += [f"{key} has no effect with task={settings.get('task')}" for key in typed if key.startswith(idle)]
    if is_sweep and settings.get("protocol") == "posts":
        problems += [f"{key} has no effect with protocol=posts" for key in typed if key.startswith("budget.")]
    if not is_sweep and "trainer.early_stopping.min_epochs" in typed and stopping.get("patience") is None:
        problems.append("trainer.early_stopping.min_epochs has no effect without trainer.early_stopping.patience")
    if "augment.crop_fill" in typed and augment.get("crop_padding") == 0:
        problems.append("augment.crop_fill has no effect without augment.crop_padding")
    return problems


# ------------------------------------------------------------------------------------------ right, and hardly meant

_HARDLY_MEANT: dict[str, tuple[float, float, str]] = {
    "optimizer.lr": (1e-9, 10, "steps of such a length teach nothing"),
    "optimizer.adamw_lr": (1e-9, 10, "steps of such a length teach nothing"),
    "optimizer.weight_decay": (0, 1, "it pulls weights to zero faster than gradients can move them"),
    "trainer.epochs": (0, 100_000, "the run would hardly end"),
    "trainer.steps": (0, 100_000_000, "the run would hardly end"),
    "trainer.batch_size": (0, 2**16, "few data sets have so many images for one step"),
    "trainer.eval_batch_size": (0, 2**16, "so many images hardly fit into memory at once"),
    "trainer.grad_clip": (1e-6, math.inf, "it leaves next to nothing of a gradient"),
    "data.image_size": (4, 2048, "images of such a size show nothing, or fill the memory"),
    "data.val_fraction": (0, 0.9, "little is left to train on"),
    "model.dropout": (0, 0.95, "little is left to learn from"),
    "loss.label_smoothing": (0, 0.9, "labels tell next to nothing then"),
    "trainer.checkpoint.every_minutes": (0, 10_080, "a run that is killed loses more than a week"),
}
"""What is usual, from and to, and what is odd about the rest. These are no limits: the run goes on."""


def oddities(settings: Settings) -> list[str]:
    """A line for every value that is right and hardly meant."""
    found = []
    for key, (low, high, reason) in _HARDLY_MEANT.items():
        value = look_up(settings, key)[1]
        if is_number(value) and not low <= value <= high:
            found.append(f"{key}={shown(value)}: {reason}")
    size, cutout = (look_up(settings, key)[1] for key in ("data.image_size", "augment.cutout"))
    if is_number(size) and is_number(cutout) and cutout >= 2 * size:
        found.append(f"augment.cutout={cutout}: covers whole images of {size} px")
    return found
