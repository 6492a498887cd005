"""Two sample-size sweeps whose trainings are pairs: read, checked, and named by what differs.

Knows folders of sweeps, their settings and figures; not how curves are compared.
"""

from __future__ import annotations

import csv
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvtrain import build
from cvtrain.analysis.learning_curve.points import CurvePoint, points_of
from cvtrain.config import RESUME_MAY_CHANGE, Config, load_config
from cvtrain.engine.diagnosis.chance import chance_accuracy
from cvtrain.errors import CheckpointError, ConfigError
from cvtrain.outputs import RunDir
from cvtrain.sample_size.table import TABLE_NAME, Row, read_table
from cvtrain.schema import leaves, look_up, shown

TAKES = "runs=[A,B] takes two folders such as outputs/sample_size_sweep/digits-lenet/<time>"

_GROUPS = ("model", "optimizer", "augment", "protocol", "loss", "scheduler", "trainer", "budget", "data")
"""Where two sweeps may differ, what matters most first."""

_PAIRING_KEYS = ("seed", "data.val_fraction", "data.max_per_class")
"""Which image has which role follows from these."""

_LENGTHS = ("trainer.epochs", "trainer.steps", "trainer.early_stopping.patience")
_WITHOUT_EFFECT = frozenset(RESUME_MAY_CHANGE) - set(_LENGTHS)
"""Settings of place and speed: they make no difference between two sweeps."""

_LONGEST_NAME = 24


@dataclass(frozen=True)
class Sweep:
    """What a folder says of a sweep.

    Args:
        path: Of the folder, absolute.
        config: As it was saved.
        rows: Of the trainings that are done.
        num_runs: Trainings that were planned.
        data_fingerprint: Of the images.
        class_names: In the order of the labels.
        test_counts: Test images of each class.
    """

    path: Path
    config: Config
    rows: tuple[Row, ...]
    num_runs: int
    data_fingerprint: str
    class_names: tuple[str, ...]
    test_counts: tuple[int, ...]

    @property
    def points(self) -> tuple[CurvePoint, ...]:
        """The measured accuracies, smallest size first."""
        return points_of([(row.per_class, row.replicate, row.test_accuracy) for row in self.rows])

    @property
    def num_test(self) -> int:
        """Test images."""
        return sum(self.test_counts)

    @property
    def chance_accuracy(self) -> float:
        """0..1, of always naming the most frequent class of the test images."""
        return chance_accuracy(self.test_counts)

    @property
    def split_hashes(self) -> dict[Hashable, str]:
        """Which image had which role, of each `(per_class, replicate)`."""
        return {(row.per_class, row.replicate): row.split_hash for row in self.rows}


@dataclass(frozen=True)
class SettingDifference:
    """One setting in which two sweeps differ.

    Args:
        key: A group such as `model`, `protocol`, or a key such as `optimizer.lr`.
        a: Its value in the first, as it is typed.
        b: In the second.
        is_choice: Whether the values are words that speak for themselves, such as `lenet`.
    """

    key: str
    a: str
    b: str
    is_choice: bool


# ------------------------------------------------------------------------------------------------------ reading


def read_pair(runs: Sequence[str] | None) -> tuple[Sweep, Sweep]:
    """Reads two sweeps whose trainings are pairs.

    Args:
        runs: Two folders.

    Raises:
        ConfigError: They are not two, or their trainings are no pairs.
        CheckpointError: A folder holds no sweep with at least two sizes done.
    """
    if runs is None or len(runs) != 2:
        found = "none is named" if not runs else f"{len(runs)} are named"
        raise ConfigError(f"task=compare needs two sample-size sweeps, and {found}", hint=TAKES)
    first, second = (read_sweep(Path(run)) for run in runs)
    check_pair(first, second)
    return first, second


def read_sweep(run: Path) -> Sweep:
    """Reads what a folder says of a sweep, finished or not.

    Raises:
        CheckpointError: It holds none, or fewer than two sizes are done.
    """
    path = run.expanduser().resolve()
    if not (path / "config.yaml").is_file():
        raise _no_run(run, path)
    config = load_config(path)
    if config.get("task") != "sample_size_sweep":
        raise CheckpointError(f"{run} holds a run of task={config.get('task')}, no sample-size sweep", hint=TAKES)
    card, rows = RunDir(path).read_card(), _rows(path)
    num_sizes = len({row.per_class for row in rows})
    if num_sizes < 2:
        sizes = f"{num_sizes} size{'' if num_sizes == 1 else 's'}"
        done = f"{len(rows)} of {card.get('num_runs', 'its')} trainings are done, of {sizes}"
        raise CheckpointError(
            f"{run}: a curve needs two sizes, and {done}",
            hint=f"wait for it, or continue it with: cvtrain resume={path}",
        )
    try:
        return Sweep(
            path=path,
            config=config,
            rows=tuple(rows),
            num_runs=card["num_runs"],
            data_fingerprint=card["data_fingerprint"],
            class_names=tuple(card["class_names"]),
            test_counts=_test_counts(path),
        )
    except (KeyError, TypeError, StopIteration):
        raise CheckpointError(
            f"{run} is incomplete: its run.json, or those in its folder runs, are damaged or missing",
            hint=f"do what is missing with: cvtrain resume={path}",
        ) from None


def _no_run(run: Path, path: Path) -> CheckpointError:
    """The error for a folder without a config, with the newest of the runs that it may hold."""
    if not path.is_dir():
        return CheckpointError(f"{run}: there is no such folder", hint=TAKES)
    inside = sorted(found.parent for found in path.glob("*/config.yaml"))
    return CheckpointError(f"{run} is not the folder of a run", hint=f"{inside[-1]} is one" if inside else TAKES)


def _rows(path: Path) -> list[Row]:
    """The table of a sweep; no rows before there is one."""
    try:
        rows = read_table(path)
    except FileNotFoundError:
        return []
    except (OSError, ValueError, csv.Error) as error:
        raise CheckpointError(f"{path / TABLE_NAME} cannot be read: {error}".splitlines()[0]) from None
    if not all(0 <= row.test_accuracy <= 1 for row in rows):
        raise CheckpointError(f"{path / TABLE_NAME} holds test accuracies outside of 0..1")
    return rows


def _test_counts(path: Path) -> tuple[int, ...]:
    """Test images of each class, as any of the trainings tells: all of them have the same."""
    cards = (RunDir(folder).read_card() for folder in sorted((path / "runs").glob("*")))
    test = next(card["test"] for card in cards if card.get("test"))
    return tuple(row["num_images"] for row in test["per_class"])


# ----------------------------------------------------------------------------------------------------- checking


def check_pair(a: Sweep, b: Sweep) -> None:
    """Refuses two sweeps that do not share images, classes, test images and, where both have a training, subsets.

    Raises:
        ConfigError: With what makes the difference and what to type.
    """
    if a.path == b.path:
        raise ConfigError(f"both of runs= are {a.path}: a sweep is not compared with itself", hint=TAKES)
    if (a.data_fingerprint, a.class_names) != (b.data_fingerprint, b.class_names):
        keys = [each.key for each in setting_differences(a.config, b.config) if each.key.startswith("data")]
        why = f" ({_both(a, b, keys)})" if keys else ": the files have changed between them"
        raise ConfigError(f"the two sweeps saw different images{why}", hint="train one of them again on those of both")
    if a.test_counts != b.test_counts:
        why = _both(a, b, _differing(a, b, ("data.max_per_class",)))
        raise ConfigError(
            f"the two sweeps were tested on different images, {a.num_test:,} and {b.num_test:,}"
            + (f" ({why})" if why else ""),
            hint="train one of them again with the same test images",
        )
    of_a, of_b = a.split_hashes, b.split_hashes
    common = [cell for cell in of_a if cell in of_b]
    if not common:
        sizes = [",".join(str(point.per_class) for point in sweep.points) for sweep in (a, b)]
        raise ConfigError(
            f"the two sweeps have no training in common: sizes [{sizes[0]}] and [{sizes[1]}]",
            hint=f"add sizes to one of them: cvtrain resume={b.path} sizes=[{sizes[0]}]",
        )
    if any(of_a[cell] != of_b[cell] for cell in common):
        keys = _differing(a, b, _PAIRING_KEYS)
        why = _both(a, b, keys) if keys else "though their settings agree: made by different versions?"
        same = " ".join(f"{key}={shown(look_up(a.config, key)[1])}" for key in keys) or "the settings of the other"
        raise ConfigError(
            f"the trainings of the two sweeps are no pairs: they were given different images ({why})",
            hint=f"train the second again with {same}",
        )


def _differing(a: Sweep, b: Sweep, keys: Sequence[str]) -> list[str]:
    return [key for key in keys if look_up(a.config, key) != look_up(b.config, key)]


def _both(a: Sweep, b: Sweep, keys: Sequence[str]) -> str:
    """`seed=0 and seed=1`, of each key."""
    return ", ".join(f"{key}={_word(a.config, key)} and {key}={_word(b.config, key)}" for key in keys)


# ------------------------------------------------------------------------------------------------------- naming


def setting_differences(a: Config, b: Config) -> tuple[SettingDifference, ...]:
    """The settings that differ and can change a result: chosen options first, then keys of options that both chose."""
    choices, keys = [], []
    for group in _GROUPS:
        words = _word(a, group), _word(b, group)
        if words[0] != words[1]:
            choices.append(SettingDifference(group, *words, is_choice=True))
        elif group != "budget" or "posts" not in (a["protocol"], b["protocol"]):  # which has no such budget
            keys += _key_differences(a, b, group)
    return (*choices, *keys)


def _key_differences(a: Config, b: Config, group: str) -> list[SettingDifference]:
    nodes = [config[group] if isinstance(config.get(group), dict) else {} for config in (a, b)]
    keys = dict.fromkeys(key for node in nodes for key, _ in leaves(node, f"{group}."))
    return [
        SettingDifference(key, _word(a, key), _word(b, key), is_choice=False)
        for key in keys
        if key not in _WITHOUT_EFFECT and look_up(a, key)[1] != look_up(b, key)[1]
    ]


def _word(config: Config, key: str) -> str:
    """The option of a group, the name of a model, or the value of a key, as it is typed."""
    if key == "model":
        return build.model_name(config)
    if key in config["choices"]:
        return str(config["choices"][key])
    value: Any = look_up(config, key)[1]
    return "" if isinstance(value, dict) else shown(value)


def names_of(differences: Sequence[SettingDifference]) -> tuple[str, str]:
    """Short names for the two: their first difference, or A and B where that has no short words."""
    if not differences:
        return "A", "B"
    first, key = differences[0], differences[0].key.rpartition(".")[2]
    names = (first.a, first.b) if first.is_choice else (f"{key}={first.a}", f"{key}={first.b}")
    return names if max(map(len, names)) <= _LONGEST_NAME else ("A", "B")
