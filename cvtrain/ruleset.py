"""Which rule each setting obeys.

Knows names of settings and kinds of rules, not settings that have been composed; `schema.py` compares the two.
"""

from __future__ import annotations

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
    is_number,
    number,
    optional,
    sequence,
    text,
)


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


def _is_store(value: str) -> bool:
    scheme, separator, rest = value.partition("://")
    has_password = ":" in rest.rpartition("@")[0]
    return scheme == "databricks" or bool(separator and rest and scheme != "file" and not has_password)


_EXPORT_FORMAT = choice("onnx", "torch_export", "safetensors")
_FOLDER_NAME = optional(Rule("a word of letters, digits, '.', '_' and '-' (80 at most)", _is_folder_name))
_BETAS = sequence(fraction(), words="two numbers from 0 to less than 1", length=2)
_LENGTH = integer(1, 999_999_999)  # the name of a checkpoint has nine digits
_ODD = Rule("an odd whole number >= 1", lambda v: COUNT.accepts(v) and v % 2 == 1)
_SEED = integer(0, 2**62)
_WEIGHTS = sequence(number(above=0), words="a list of numbers > 0")
_WIDTHS = sequence(COUNT, words="a list of whole numbers >= 1")

RULES: dict[str, Rule] = {
    "seed": _SEED,
    "name": _FOLDER_NAME,
    "output_dir": PATH,
    "plugins": sequence(text(), words="a list of package names"),
    # task
    "resume": optional(PATH),
    "checkpoint": optional(PATH),
    "input": optional(either(PATH, sequence(PATH, words="a list of paths"))),
    "split": choice("train", "val", "test"),
    "run": either(PATH, sequence(PATH, words="a run folder")),
    "runs": sequence(PATH, words="a list of run folders [A,B]"),
    # task=export
    "format": either(_EXPORT_FORMAT, sequence(_EXPORT_FORMAT, words="a list of them")),
    "output": optional(PATH),
    "tolerance": number(0),
    # task=find_lr
    "low": optional(number(above=0)),
    "high": optional(number(above=0)),
    "num_steps": integer(20, 999_999),
    "repeats": integer(1, 100),
    # task=benchmark
    "rounds": COUNT,
    "round_seconds": number(above=0),
    "batch_sizes": sequence(COUNT, words="a list of whole numbers >= 1, such as [32,128,512]"),
    # task=sample_size_sweep
    "protocol": choice("robust", "posts"),
    "sizes": either(choice("auto"), sequence(integer(2), words="a list of whole numbers >= 2, such as [10,100,1000]")),
    "replicates": either(choice("auto"), COUNT, sequence(COUNT, words="a list of whole numbers >= 1")),
    "on_short": choice("error", "cap"),
    "target": optional(Rule("an accuracy above 0 and below 1", lambda v: is_number(v) and 0 < v < 1)),
    "elbow": Rule("a gain above 0 and below 1", lambda v: is_number(v) and 0 < v < 1),
    "budget.epochs": COUNT,
    "budget.min_steps": _LENGTH,
    "budget.max_steps": optional(_LENGTH),
    "budget.evaluations": COUNT,
    "budget.patience": COUNT,
    # --multirun
    "sweep.name": _FOLDER_NAME,
    "sweep.job_timeout": optional(number(above=0)),
    "sweep.jobs": either(choice("auto"), integer(1, 1024)),
    "sweep.threads": integer(1, 1024),
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
    "trainer.on_not_learning": choice("warn", "stop"),
    "trainer.init": choice("auto", "default", "he"),
    "trainer.log_every": optional(COUNT),
    "trainer.evaluate_every": either(choice("epoch"), COUNT),
    "trainer.early_stopping.metric": choice("val_accuracy", "val_loss"),
    "trainer.early_stopping.patience": optional(COUNT),
    "trainer.early_stopping.min_delta": number(0),
    "trainer.early_stopping.min_epochs": integer(0),
    "trainer.early_stopping.min_steps": integer(0),
    "trainer.checkpoint.every_minutes": number(above=0),
    "trainer.checkpoint.keep": COUNT,
    # data
    "data.root": optional(PATH),
    "data.mirror": optional(
        text(accepts=lambda v: v.startswith(("https://", "http://")), words="an address https://...")
    ),
    "data.val_fraction": fraction(),
    "data.max_per_class": optional(COUNT),
    "data.permute_pixels": optional(_SEED),
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
    "data.noise": number(0),
    "data.label": choice("fine", "coarse"),
    "data.train_dir": optional(PATH),
    "data.val_dir": optional(PATH),
    "data.labels": optional(PATH),
    "data.val_labels": optional(PATH),
    "data.test_labels": optional(PATH),
    "data.use_validation_as": choice("test", "val"),
    "data.image_column": optional(text(words="the name of a column")),
    "data.label_column": optional(text(words="the name of a column")),
    "data.split_column": optional(text(words="the name of a column")),
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
    "model.init_from": optional(PATH),
    "model.dropout": fraction(),
    "model.hidden": _WIDTHS,
    "model.activation": choice("relu", "tanh", "none"),
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
    "loss.margin": number(0),
    "loss.scale": number(above=0),
    "loss.embedding": optional(COUNT),
    "loss.lambda_start": number(0),
    "loss.lambda_decay": number(above=0, high=1),
    "loss.lambda_min": number(0),
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
    # tracker
    "tracker.tensorboard.dir": optional(PATH),
    "tracker.mlflow.uri": optional(
        text(
            accepts=_is_store,
            words="http://HOST:PORT or sqlite:///FILE (name and password: MLFLOW_TRACKING_USERNAME, _PASSWORD)",
        )
    ),
    "tracker.mlflow.checkpoints": choice("best", "all", "none"),
    "tracker.mlflow.wait_seconds": number(above=0),
    "tracker.wandb.mode": choice("offline", "online", "disabled"),
    "tracker.wandb.entity": optional(text()),
    "tracker.wandb.run_name": optional(text()),
    "tracker.wandb.tags": sequence(text(), words="a list of words"),
    "tracker.wandb.checkpoints": choice("best", "all", "none"),
    "tracker.wandb.wait_seconds": number(above=0),
}

_ONLY_TRAINED = (
    "trainer.epochs",
    "trainer.steps",
    "trainer.evaluate_every",
    "trainer.early_stopping.",
    "trainer.checkpoint.",
    "trainer.log_every",
    "trainer.on_not_learning",
)

IDLE_KEYS: dict[str, tuple[str, ...]] = {
    "find_lr": (*_ONLY_TRAINED, "scheduler", "trainer.ema", "trainer.eval_batch_size"),
    "benchmark": _ONLY_TRAINED,
}
"""How keys begin that a task composes, for they are parts of a training, and does not use."""
