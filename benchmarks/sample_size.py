"""The whole sample-size sweep with cvtrain against the same protocol as a textbook writes it, both as real commands.

    python -m benchmarks.sample_size --data DIR [--sizes 10,20,50] [--augment none] [--cores 2] [--output JSON]

DIR holds train/<class>/ and test/<class>/, 32x32 pixels. The protocol is `posts`, one replicate: a fifth of each
subset validates, after every epoch; three epochs without a better accuracy end a training; the best weights are tested
on all test images. In turn run: cvtrain with no image decoded yet, the textbook, cvtrain with the images in its cache.
All files are read once before, so that none of them waits for the disk.

When patience ends is partly luck. So the table counts epochs, and gives beside the plain ratio the one at equal epochs:
the textbook's seconds had each of its trainings taken as many epochs as cvtrain's, over cvtrain's. A process during
which others used more than a tenth of a core is marked.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.commands import MAX_FOREIGN_CORES, read_all, run
from benchmarks.textbook_sweep import BATCH_SIZE, MAX_EPOCHS, add_arguments


@dataclass(frozen=True)
class Size:
    """What one contestant did at one size.

    Args:
        per_class: Labelled images of each class.
        epochs: Until patience ended.
        images: That the training took in: epochs times training images.
        seconds: From the first batch to the end of the test.
        epoch_seconds: Of these without the test; None where it is not told.
        test_accuracy: 0..1.
    """

    per_class: int
    epochs: int
    images: int
    seconds: float
    epoch_seconds: float | None
    test_accuracy: float


@dataclass(frozen=True)
class Sweep:
    """One contestant's sweep.

    Args:
        name: Of the contestant.
        seconds: From the start of the command to its end.
        foreign_cores: Cores that other processes used meanwhile.
        sizes: In the order of the sizes.
    """

    name: str
    seconds: float
    foreign_cores: float
    sizes: list[Size]

    @property
    def images(self) -> int:
        """Trained, at all sizes."""
        return sum(size.images for size in self.sizes)


def run_textbook(arguments: argparse.Namespace) -> Sweep:
    """Runs the textbook's sweep."""
    with tempfile.TemporaryDirectory() as name:
        output_path = Path(name) / "result.json"
        words = ["--data", str(arguments.data), "--sizes", ",".join(map(str, arguments.sizes))]
        words += ["--model", arguments.model, "--augment", arguments.augment]
        words += ["--lr", str(arguments.lr), "--seed", str(arguments.seed), "--output", str(output_path)]
        words += [] if arguments.workers is None else ["--workers", str(arguments.workers)]
        command = [sys.executable, "-m", "benchmarks.textbook_sweep", *words]
        seconds, foreign_cores = run(command, folder=Path(name), variables={})
        return read_textbook(output_path, seconds=seconds, foreign_cores=foreign_cores)


def read_textbook(output_path: Path, *, seconds: float, foreign_cores: float) -> Sweep:
    """What the textbook wrote; prints the setups that it chose.

    Args:
        output_path: Its JSON file.
        seconds: Of the whole command. Its trials of setups are taken off.
        foreign_cores: That others used meanwhile.
    """
    result = json.loads(output_path.read_text(encoding="utf-8"))
    setups = {f"{training['per_class']} per class": training["setup"] for training in result["trainings"]}
    for what, setup in {**setups, "test": result["test_setup"]}.items():
        print(f"textbook, {what}: {setup['num_workers']} loader processes, {setup['num_threads']} threads")
    print(flush=True)
    sizes = [
        Size(
            per_class=training["per_class"],
            epochs=training["epochs"],
            images=training["epochs"] * training["train_size"],
            seconds=training["seconds"],
            epoch_seconds=training["epoch_seconds"],
            test_accuracy=training["test_accuracy"],
        )
        for training in result["trainings"]
    ]
    return Sweep("textbook", seconds - result["seconds_of_trials"], foreign_cores, sizes)


def run_cvtrain(arguments: argparse.Namespace, *, name: str, cache_dir: Path) -> Sweep:
    """Runs `cvtrain task=sample_size_sweep` and reads what it leaves."""
    with tempfile.TemporaryDirectory() as output_dir:
        words = [
            "task=sample_size_sweep",
            "protocol=posts",
            "replicates=1",
            f"sizes=[{','.join(map(str, arguments.sizes))}]",
            f"model={arguments.model}",
            "data=cifar10_images",
            f"data.root={arguments.data}",
            f"augment={arguments.augment}",
            "optimizer=momentum",
            f"optimizer.lr={arguments.lr}",
            "scheduler=constant",
            f"trainer.epochs={MAX_EPOCHS}",
            f"trainer.batch_size={BATCH_SIZE}",
            f"seed={arguments.seed}",
            f"output_dir={output_dir}",
        ]
        command = [sys.executable, "-m", "cvtrain", *words]
        variables = {"XDG_CACHE_HOME": str(cache_dir)}
        seconds, foreign_cores = run(command, folder=Path(output_dir), variables=variables)
        (table,) = Path(output_dir).rglob("sample_size.csv")
        with table.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
    return Sweep(name, seconds, foreign_cores, [size_of(row) for row in rows])


def size_of(row: dict[str, str]) -> Size:
    """A line of cvtrain's table."""
    from cvtrain.data.batches import batch_bounds

    train_size = int(row["train_size"])
    epochs = int(row["steps"]) // len(batch_bounds(train_size, BATCH_SIZE))
    return Size(
        per_class=int(row["per_class"]),
        epochs=epochs,
        images=epochs * train_size,
        seconds=float(row["seconds"]),
        epoch_seconds=None,
        test_accuracy=float(row["test_accuracy"]),
    )


def seconds_at(textbook: Sweep, epochs: dict[int, int]) -> float:
    """The textbook's seconds had it trained so many epochs at each size; the rest of its time stays as it is."""
    change = sum(size.epoch_seconds * (epochs[size.per_class] / size.epochs - 1) for size in textbook.sizes)
    return textbook.seconds + change


def print_sizes(textbook: Sweep, cvtrain: Sweep) -> None:
    """Prints a row per size: textbook / cvtrain."""
    print("| images per class | epochs | images trained | seconds | ms per image trained | test accuracy |")
    print("|---|---|---|---|---|---|")
    for a, b in zip(textbook.sizes, cvtrain.sizes, strict=True):
        cells = [
            f"{a.epochs} / {b.epochs}",
            f"{a.images:,} / {b.images:,}",
            f"{a.seconds:.1f} / {b.seconds:.1f}",
            f"{1000 * a.seconds / a.images:.2f} / {1000 * b.seconds / b.images:.2f}",
            f"{100 * a.test_accuracy:.1f} % / {100 * b.test_accuracy:.1f} %",
        ]
        print(f"| {a.per_class} | " + " | ".join(cells) + " |")
    print("\nEach cell: textbook / cvtrain with its cache; cvtrain's trainings run side by side, a core each.\n")


def print_sweeps(textbook: Sweep, others: list[Sweep]) -> None:
    """Prints a row per contestant, with what it gains over the textbook."""
    print("| sweep | seconds | images trained | textbook / this | at equal epochs | per image trained |")
    print("|---|---|---|---|---|---|")
    for sweep in (textbook, *others):
        equal = seconds_at(textbook, {size.per_class: size.epochs for size in sweep.sizes}) / sweep.seconds
        per_image = (textbook.seconds / textbook.images) / (sweep.seconds / sweep.images)
        ratios = f"{textbook.seconds / sweep.seconds:.2f} | {equal:.2f} | {per_image:.2f}"
        mark = f" (disturbed: {sweep.foreign_cores:.1f} cores)" if sweep.foreign_cores > MAX_FOREIGN_CORES else ""
        print(f"| {sweep.name}{mark} | {sweep.seconds:.1f} | {sweep.images:,} | {ratios} |")


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--cores", type=int, default=2, help="that both may use")
    parser.add_argument("--output", type=Path, help="a JSON file for all figures")
    arguments = parser.parse_args()
    arguments.data = arguments.data.resolve()

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.cores])
    print(f"{read_all(arguments.data):,} files, {len(os.sched_getaffinity(0))} cores\n", flush=True)
    with tempfile.TemporaryDirectory() as cache_dir:
        cold = run_cvtrain(arguments, name="cvtrain, nothing decoded yet", cache_dir=Path(cache_dir))
        textbook = run_textbook(arguments)
        warm = run_cvtrain(arguments, name="cvtrain, images in its cache", cache_dir=Path(cache_dir))
    print_sizes(textbook, warm)
    print_sweeps(textbook, [cold, warm])
    if arguments.output:
        arguments.output.write_text(json.dumps([asdict(s) for s in (textbook, cold, warm)], indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
