"""Small runs that have everything, and what they come to: two that ended alike give equal dictionaries."""

import csv
import hashlib
import io
import json

import numpy as np
import torch

from cvtrain.engine.checkpoint import list_checkpoints, read_checkpoint

DATA = ["data=synthetic", "data.num_classes=4", "data.per_class=60", "data.image_size=16", "data.val_fraction=0.2"]
MODEL = ["augment=flip_crop", "model=block_cnn", "model.widths=[8,16]", "model.dropout=0.2", "trainer.precision=fp32"]
TRAINING = [
    "optimizer=momentum",
    "scheduler=plateau",
    "scheduler.patience=1",
    "trainer.batch_size=16",
    "trainer.ema=0.9",
    "trainer.early_stopping.patience=30",
    "trainer.checkpoint.every_minutes=0.001",
    "output_dir=out",
]
WARM_UP = [*DATA, *MODEL, *TRAINING, "trainer.steps=2", "trainer.evaluate_every=1"]
"""A run that loads all that later ones need; two evaluations are drawn."""

TIMES = {"seconds", "images_per_second"}
"""What no two runs share, wherever it stands; the length of metrics.csv depends on it."""


def words(*more, steps, every=7):
    """The settings of a small run that has everything, some of them replaced."""
    chosen = {word.partition("=")[0] for word in more}
    kept = [w for w in [*DATA, *MODEL, *TRAINING] if not chosen & {w.partition("=")[0], w.partition(".")[0]}]
    return [*kept, f"trainer.steps={steps}", f"trainer.evaluate_every={every}", *more]


def files_words(root, *more, workers, steps, every=7):
    """The same for training from image files, which worker processes decode, if there are any."""
    data = ["data=image_folder", f"data.root={root}", "data.loader=files", f"data.num_workers={workers}"]
    return [*data, *(word for word in words(*more, steps=steps, every=every) if not word.startswith("data"))]


def write_images(root, *, per_class=20):
    """Makes a small tree of PNG files."""
    from PIL import Image

    generator = np.random.default_rng(0)
    for split, count in (("train", per_class), ("test", 4)):
        for label, name in enumerate("abc"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = generator.integers(0, 120, (16, 16, 3)) + 60 * (np.arange(3) == label)
                Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:03d}.png")
    return root


def only_run(cwd):
    """The one run folder below a working folder, or None."""
    found = sorted(cwd.glob("out/train/*/*"))
    assert len(found) <= 1, found
    return found[0] if found else None


def read_card(run):
    """The run card of a run, as strict JSON."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((run / "run.json").read_text(), parse_constant=refuse)


def end_of(run):
    """What a run has come to, apart from times, as hashes by name: equal runs give equal dictionaries."""
    files = list_checkpoints(run / "checkpoints", "step")
    last = [read_checkpoint(file.path) for file in files if file.step == files[-1].step]
    step = max(last, key=lambda state: state["metrics_num_bytes"])  # that before an evaluation may be there still
    best = list_checkpoints(run / "checkpoints", "best")[-1]
    found = {f"{key}": state_hash(value) for key, value in _parts(step)}
    found["best"] = state_hash(read_checkpoint(best.path)["trainer"])
    found["metrics.csv"] = metrics_without_times(run)
    if (run / "predictions.csv").exists():
        found["predictions.csv"] = (run / "predictions.csv").read_text()
    return found


def _parts(state):
    left_out = {"config", "metrics_num_bytes", "metrics_sha256", *TIMES}  # the config holds how the command was typed
    for key, value in state.items():
        if key == "trainer":
            yield from value.items()
        elif key not in left_out:
            yield key, value


def state_hash(value):
    """SHA-256 over every tensor's bytes and every plain value of a state, times left out."""
    digest = hashlib.sha256()

    def add(item):
        if isinstance(item, dict):
            for key in item:
                if key not in TIMES:
                    digest.update(repr(key).encode())
                    add(item[key])
        elif isinstance(item, list | tuple):
            digest.update(f"{len(item)} items".encode())
            for one in item:
                add(one)
        elif isinstance(item, torch.Tensor):
            digest.update(f"{item.dtype} {tuple(item.shape)}".encode())
            digest.update(item.detach().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(item).encode())

    add(value)
    return digest.hexdigest()[:16]


def metrics_without_times(run):
    """metrics.csv without its columns of times."""
    with open(run / "metrics.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    kept = [i for i, name in enumerate(rows[0]) if name not in TIMES]
    text = io.StringIO()
    csv.writer(text).writerows([row[i] for i in kept] for row in rows)
    return text.getvalue()


def differences(run, expected):
    """The names of what a run has come to that is not as expected."""
    found = end_of(run)
    return sorted(key for key in found.keys() | expected.keys() if found.get(key) != expected.get(key))


def num_evaluations(stdout):
    """How many evaluations a run has told of."""
    return sum(line.startswith("epoch ") for line in stdout.splitlines())


def leftovers(run):
    """Names of temporary and of damaged files."""
    return [path.name for path in [*run.rglob(".*"), *run.rglob("*.bad")] if path.name != ".lock"]


def kinds_of_calls(names):
    """The numbers, from 1, of the last call of each kind: those with the same name after one of the same name."""
    return sorted(
        {pair: number for number, pair in enumerate(zip(["", *names], names, strict=False), start=1)}.values()
    )
