"""Whether a stopped run ends with the bits of one that nobody stopped, for all pairs of settings and more."""

import signal
from contextlib import redirect_stdout
from io import StringIO
from itertools import combinations, product
from random import Random

import numpy as np
import torch

from cvtrain import build
from cvtrain.compose import compose
from cvtrain.config import config_dir
from cvtrain.console import Console
from cvtrain.engine.checkpoint import load_newest
from cvtrain.errors import InterruptedBySignal
from cvtrain.fit import Run
from cvtrain.outputs import RunDir
from cvtrain.signals import StopRequest
from tests.faults.figures import Figure
from tests.faults.small_runs import differences, end_of

STEPS, EVERY = 10, 4
"""Of a run, and between its evaluations: an epoch has 4 steps."""

READERS = {"memory": ["data.loader=memory"]} | {
    f"files, {n} workers": ["data.loader=files", f"data.num_workers={n}"] for n in (0, 1, 2, 4)
}

MOMENTS = {
    "in mid-epoch": {"signal_at": 6},
    "before an evaluation": {"signal_at": 4},
    "in validation": {"signal_at": 8, "training": False},
    "after the best so far": {"signal_at": 5},
    "after an evaluation that was no better": {"signal_at": 9},
    "in the test": {"signal_at": STEPS, "training": False},
}
"""When a run is stopped; in the last evaluation and, when that has been made again, in the test."""

MODELS = {
    "block_cnn": ["model=block_cnn", "model.widths=[4,8]", "model.dropout=0.2"],
    "mlp": ["model=mlp", "model.hidden=[16]", "model.dropout=0.3"],
    "resnet": ["model=resnet18", "model.width=4"],
}


def options(group):
    """Every option of a group of the config."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


FACTORS = {
    **{group: options(group) for group in ("loss", "optimizer", "scheduler", "augment")},
    "moment": list(MOMENTS),
    "reader": list(READERS),
    "next_reader": list(READERS),
    "model": list(MODELS),
    "precision": ["fp32", "bf16"],
    "ema": ["null", "0.9"],
    "accumulate": ["1", "2"],
    "freeze": ["[]", "['*bias']"],
    "grad_clip": ["null", "1"],
}
"""What is combined. Every other thing of a run is the same for all."""

COMPUTED = ("loss", "optimizer", "scheduler", "augment", "model")
"""Of these each must be able to go on, whenever and wherever, but one knows nothing of the state of another."""

OPTIONS = {
    "constant": ["scheduler.warmup_steps=3"],
    "step": ["scheduler.step_epochs=1", "scheduler.gamma=0.5"],
    "multistep": ["scheduler.milestones_epochs=[1,2]"],
    "plateau": ["scheduler.patience=0", "scheduler.min_delta=1"],
}


def all_pairs(factors, *, apart=()):
    """Rows, a dictionary each, in which any two values of any two factors meet at least once.

    Factors that stand in `apart` need not meet each other. Greedy: each row begins with a pair that has not met, and
    takes of every other factor the value that meets most of the row's values for the first time.
    """
    names = list(factors)
    met = [(a, b) for a, b in combinations(names, 2) if not {a, b} <= set(apart)]
    missing = {((a, x), (b, y)) for a, b in met for x in factors[a] for y in factors[b]}
    chance, rows = Random(0), []
    while missing:
        row = dict(chance.choice(sorted(missing)))
        for name in sorted((n for n in names if n not in row), key=lambda n: -len(factors[n])):
            row[name] = max(
                chance.sample(factors[name], len(factors[name])),
                key=lambda value: len(missing & set(pairs_of({**row, name: value}, names))),
            )
        missing -= set(pairs_of(row, names))
        rows.append({name: row[name] for name in names})
    return rows


def pairs_of(row, names):
    """The pairs of values that meet in a row, in the order of the names."""
    return combinations([(name, row[name]) for name in names if name in row], 2)


def write_images(root, *, size=8):
    """A small tree of images of two classes, of which 17 train: the last batch of an epoch would be one image."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for split, counts in (("train", (11, 12)), ("test", (3, 3))):
        for label, (name, count) in enumerate(zip("ab", counts, strict=True)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 160, (size, size, 3)) + 60 * (np.arange(3) == label)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:03d}.png")
    return root


def settings_of(row, root, *, device="cpu"):
    """The words to type for a row, all but how images are read."""
    same = {"freeze", "ema", "accumulate", "grad_clip", "precision"}
    return [
        "data=image_folder",
        f"data.root={root}",
        f"data.cache_dir={root.parent / 'cache'}",
        "data.val_fraction=0.25",
        *MODELS[row["model"]],
        *(f"{group}={row[group]}" for group in ("loss", "optimizer", "scheduler", "augment")),
        *OPTIONS.get(row["scheduler"], []),
        *(f"trainer.{name}={row[name]}" for name in sorted(same)),
        f"trainer.deterministic={'true' if device == 'cuda' else 'false'}",  # else a GPU need not repeat itself
        *[
            "optimizer.lr=0.01",
            "trainer.batch_size=4",
            f"trainer.device={device}",
            "trainer.checkpoint.every_minutes=60",
        ],
        *["trainer.early_stopping.patience=9", "trainer.early_stopping.min_delta=1", "output_dir=out"],
        *[f"trainer.steps={STEPS}", f"trainer.evaluate_every={EVERY}"],
    ]


class Stage:
    """The real parts of runs in this process, with a signal sent in the middle of a chosen forward pass.

    Args:
        words: What is typed.
        folder: To make run folders in.
    """

    def __init__(self, words, folder):
        self.folder = folder
        self.read(words)
        self.clear()

    def read(self, words):
        """Settings and data, of which the next process goes on."""
        self.config = compose(words)
        self.prepared = build.data(self.config)

    def clear(self):
        """Begins a run of the same settings in a new folder."""
        self.run_dir = RunDir.create(self.folder)

    def go(self, *, signal_at=None, training=True):
        """Trains from the newest checkpoint; a signal comes in step `signal_at`, or in the evaluation after it."""
        try:
            with StopRequest() as stop:
                run = self._run(stop, signal_at, training)
                if signal_at == 0:
                    signal.raise_signal(signal.SIGUSR1)
                return run.test(run.train())
        except InterruptedBySignal as stopped:
            return stopped.exit_code, run.trainer.step

    def _run(self, stop, signal_at, training):
        checkpoint = load_newest(self.run_dir.checkpoint_dir)
        parts = {"run_dir": self.run_dir, "console": Console(), "stop": stop, "checkpoint": checkpoint}
        run = Run(self.config, self.prepared, **parts)

        def send(module, _inputs):
            if module.training == training and run.trainer.step + training == signal_at and not stop:
                signal.raise_signal(signal.SIGUSR1)

        run.model.register_forward_pre_hook(send)
        return run


def stopped_at(step):
    """What `Stage.go` says of a run that stopped where it was told to."""
    return 128 + signal.SIGUSR1, step


def broken_pieces(row, root, folder, *, device="cpu"):
    """What is not the same after a run that is read from memory, and one of the same settings that is stopped.

    The second one is stopped at the moment of the row, and reads its images as the row says, before and after.
    """
    words, moment = settings_of(row, root, device=device), MOMENTS[row["moment"]]
    whole = Stage([*words, *READERS["memory"]], folder)
    stopped = Stage([*words, *READERS[row["reader"]]], folder)
    try:
        result = whole.go()
        for _ in range(2 if row["moment"] == "in the test" else 1):
            if stopped.go(**moment) != stopped_at(moment["signal_at"]):
                return ["it did not stop when it was told to"]
        stopped.read([*words, *READERS[row["next_reader"]]])
        again = stopped.go()
        expected = end_of(whole.run_dir.path)
    finally:
        whole.run_dir.close()
        stopped.run_dir.close()
    broken = differences(stopped.run_dir.path, expected)
    return broken + ["predictions"] * (not torch.equal(result.test.probabilities, again.test.probabilities))


def measure(settings):
    """All pairs of all settings; and every reader with every other, precision and moment, all else drawn."""
    root = write_images(settings.folder(__name__) / "images")
    devices = {"cpu": ["fp32", "bf16"]}
    if torch.cuda.is_available():
        devices["cuda"] = ["fp32", "bf16", "fp16"]
    figures = []
    for device, precisions in devices.items():
        rows = all_pairs({**FACTORS, "precision": precisions})
        for reader, next_reader, precision, moment in product(READERS, READERS, precisions, MOMENTS):
            chance = settings.random(device, reader, next_reader, precision, moment)
            row = {name: chance.choice(values) for name, values in FACTORS.items()}
            chosen = {"reader": reader, "next_reader": next_reader, "precision": precision, "moment": moment}
            rows.append({**row, **chosen})
        figures.append(_measured(rows, root, device, settings))
    if "cuda" not in devices:
        required = "the same on a GPU, with fp16 too"
        figures.append(Figure("stopped and continued on a GPU", 0, 0, required, left_out="there is no GPU here"))
    return figures


def _measured(rows, root, device, settings):
    broken = []
    for number, row in enumerate(rows, 1):
        with redirect_stdout(StringIO()):
            found = broken_pieces(row, root, settings.folder(__name__) / "runs", device=device)
        if found:
            broken.append(f"{', '.join(found)}: {row}")
        if number % 50 == 0:
            settings.say(f"exactness on {device}: {number} of {len(rows)} runs, {len(broken)} broken")
    return Figure(
        f"stopped and continued on {device}, with any number of workers",
        num_faults=len(rows),
        num_runs=len(rows),
        required="the bits of a run that nobody stopped",
        broken=tuple(broken),
    )
