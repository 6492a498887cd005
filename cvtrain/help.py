"""The page that `cvtrain --help` prints, made from the config folder itself so that it is never out of date.

Knows no Hydra and no torch: it must be there within a fraction of a second.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

GROUPS = {
    "task": "what to do",
    "data": "which images",
    "augment": "how training images are varied; each data option names its own default",
    "model": "which network",
    "loss": "what training minimises",
    "optimizer": "how it steps",
    "scheduler": "how the learning rate moves; warm-up in each",
    "trainer": "the loop: epochs, batch_size, device, precision, early_stopping, ...",
    "tracker": "where figures go besides the run folder; several at once: tracker=[tensorboard,mlflow]",
    "experiment": "ready-made combinations",
}

_HEAD = """\
cvtrain - train image classifiers from a few words, resume them exactly, learn from the results

Usage:
  cvtrain [GROUP=OPTION ...] [GROUP.KEY=VALUE ...]

Examples:
  cvtrain                                             train on the digits inside the package: seconds on a CPU
  cvtrain model=vgg16_bn data=cifar10                 a bigger network on a bigger data set
  cvtrain data=image_folder data.root=photos          your own images, one folder per class
  cvtrain optimizer=adamw trainer.epochs=50 seed=1    any value of any group
  cvtrain resume=outputs/train/digits-lenet/<run>     continue a stopped run, exactly where it was
  cvtrain task=predict checkpoint=<run> input=photos  classify pictures with a trained model
  cvtrain task=sample_size_sweep data=cifar10         how many images per class are enough?
  cvtrain --multirun optimizer=sgd,adam seed=0,1,2    every combination, each a job of its own, and one table at the end

Groups and their options (the default in brackets):
"""

_TAIL = """
Flags:
  --help                this page
  --version             the versions of cvtrain, Python, torch and torchvision
  --cfg job             print the config that a command would use, and do nothing
  --multirun            run every combination of comma-separated values: optimizer.lr=0.1,0.01; docs/sweeps.md
  --config-dir DIR      options of your own: DIR/model/mine.yaml becomes model=mine
  --config-name NAME    a root config of your own: DIR/NAME.yaml, which begins with defaults: [config, _self_]
  -sc install=bash      Tab completes groups, options and keys after: eval "$(cvtrain -sc install=bash)"

Exit codes: 0 done, 1 internal error, 2 config, 3 data, 4 checkpoint or output, 5 diverged or not learning,
6 out of memory, 128+N stopped by signal N (resumable).

Read on: README.md and docs/; every key with its meaning stands in docs/config.md, made from {configs}
"""


def options_of(group: str, *config_dirs: Path) -> list[str]:
    """The options of a group, in alphabetical order."""
    files = (path for config_dir in config_dirs for path in (config_dir / group).glob("*.yaml"))
    return sorted({path.stem for path in files if path.is_file()}, key=_natural)


def options_with(config_dir: Path, key: str) -> list[str]:
    """The packaged options that have a key, as `group=option`; a key of the top level belongs to a task."""
    group, _, name = key.partition(".") if "." in key else ("task", "", key)
    if group == "tracker":  # the keys of each option lie below its name
        option, _, name = name.partition(".")
        file = config_dir / group / f"{option}.yaml"
        is_there = option in options_of(group, config_dir) and name.partition(".")[0] in _keys_of(file)
        return [f"{group}={option}"] if is_there else []
    if group not in GROUPS:
        return []
    files = {option: config_dir / group / f"{option}.yaml" for option in options_of(group, config_dir)}
    return [f"{group}={o}" for o, file in files.items() if name in _keys_of(file)]


def _keys_of(file: Path) -> dict:
    import yaml

    return yaml.safe_load(file.read_text(encoding="utf-8")) or {}


def _natural(word: str) -> tuple[str, int, str]:
    """Sorts vgg11 before vgg16_bn, and every plain net before its `_bn`."""
    name = word.removesuffix("_bn")
    digits = "".join(c for c in name if c.isdigit())
    return name.rstrip("0123456789"), int(digits or 0), word


def _defaults(config_dir: Path) -> dict[str, str]:
    """The option of each group that is taken when none is typed."""
    entries = _keys_of(config_dir / "config.yaml")["defaults"]
    return {group: option for entry in entries if isinstance(entry, dict) for group, option in entry.items()}


def help_text(config_dir: Path) -> str:
    """The whole help page."""
    defaults, lines = _defaults(config_dir), []
    for group, meaning in GROUPS.items():
        lines.append(f"  {group + '=':<12}{meaning}")
        names = (f"[{o}]" if o == defaults.get(group) else o for o in options_of(group, config_dir))
        options = " ".join(names)
        lines += textwrap.wrap(options, width=98, initial_indent=" " * 16, subsequent_indent=" " * 16)
    return _HEAD + "\n".join(lines) + "\n" + _TAIL.format(configs=config_dir)
