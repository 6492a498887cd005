"""What checkpoints cost: the share of training time that saving takes at the default interval, model by model.

    python -m benchmarks.checkpoint_cost [--models lenet conv_pool resnet18 vgg16_bn] [--rounds 5] [--seconds 6]

Each model trains in a process of its own on images of the shape of CIFAR-10, with momentum and, in a second row,
averaged weights. Rounds of training after a checkpoint take turns with rounds without one, so that what the disk does
in the background counts too. The interval is the default: after every epoch of 50,000 images, which also marks the
best, or every 5 minutes, whichever is shorter. A save is split into what it consists of: look (are all numbers
finite), serialise, hash, and the rest, which is writing and syncing, below the folder that the command is started in.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

IMAGES_PER_EPOCH, LONGEST_INTERVAL_SECONDS = 50_000, 300
SETTINGS = [
    "data=synthetic",
    "data.num_classes=10",
    "data.per_class=300",
    "data.image_size=32",
    "augment=flip_crop",
    "optimizer=momentum",
    "trainer.steps=1000000",
    "trainer.evaluate_every=1000000",
]


def measure(model: str, *, averaged: bool, rounds: int, seconds: float) -> dict[str, float]:
    """The figures of one model, in this process."""
    import torch

    from cvtrain import build
    from cvtrain.compose import compose
    from cvtrain.console import SilentConsole
    from cvtrain.fit import Run
    from cvtrain.outputs import RunDir
    from cvtrain.signals import StopRequest

    config = compose([*SETTINGS, f"model={model}", *(["trainer.ema=0.999"] if averaged else [])])
    build.limit_threads()
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix="checkpoint-cost-") as folder, StopRequest() as stop:
        run_dir = RunDir.create(Path(folder) / "run")
        console = SilentConsole(lambda _line: None, on_step=lambda _step: None)
        run = Run(config, build.data(config), run_dir=run_dir, console=console, stop=stop)
        events, batch_size = run.trainer.run(), config["trainer"]["batch_size"]
        num_steps = _steps_in(events, seconds)

        def timed_steps() -> float:
            started = time.perf_counter()
            for _ in islice(events, num_steps):
                pass
            return time.perf_counter() - started

        timed_steps()
        without, with_save, saves = [], [], []
        for _ in range(rounds):
            without.append(timed_steps())
            started = time.perf_counter()
            run.save(is_best=True)
            saves.append(time.perf_counter() - started)
            with_save.append(timed_steps())
        step_seconds = statistics.median(without) / num_steps
        interval = min(step_seconds * IMAGES_PER_EPOCH / batch_size, LONGEST_INTERVAL_SECONDS)
        cost = statistics.median(saves)
        after = statistics.median(b - a for a, b in zip(without, with_save, strict=True))
        size = next(run_dir.checkpoint_dir.glob("step-*")).stat().st_size
        parts = _parts_of_a_save(run, torch)
        run_dir.close()
    return {
        "megabytes": size / 1e6,
        "interval_seconds": interval,
        "milliseconds": 1000 * cost,
        "milliseconds_after": 1000 * after,
        "share": cost / (cost + interval),
        "share_with_after": max(cost + after, 0) / (cost + interval),
        **parts,
    }


def _steps_in(events: object, seconds: float) -> int:
    """How many steps take about so long."""
    list(islice(events, 3))
    started, num_steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        next(events)
        num_steps += 1
    return max(num_steps, 1)


def _parts_of_a_save(run: object, torch: object) -> dict[str, float]:
    """Milliseconds of what a save does before it writes; the median of five times."""

    def milliseconds(action: object) -> float:
        times = []
        for _ in range(5):
            started = time.perf_counter()
            action()
            times.append(1000 * (time.perf_counter() - started))
        return statistics.median(times)

    buffer = io.BytesIO()
    torch.save(run.state_dict(), buffer)

    def serialise() -> None:
        buffer.seek(0)
        torch.save(run.state_dict(), buffer)

    return {
        "look": milliseconds(run.trainer.check_finite),
        "serialise": milliseconds(serialise),
        "hash": milliseconds(lambda: hashlib.sha256(buffer.getbuffer()).hexdigest()),
    }


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["lenet", "conv_pool", "resnet18", "vgg16_bn"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--only", choices=["plain", "averaged"], help="one of the two rows")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    length = {"rounds": arguments.rounds, "seconds": arguments.seconds}
    if arguments.inside:
        averaged = arguments.only == "averaged"
        print(json.dumps(measure(arguments.models[0], averaged=averaged, **length)))
        return
    print(
        "| model | weights | MB | interval, s | save, ms (look, serialise, hash, write) | steps after it, ms | share |"
    )
    print("|---|---|---|---|---|---|---|")
    for model in arguments.models:
        for row in [arguments.only] if arguments.only else ["plain", "averaged"]:
            command = [sys.executable, "-m", "benchmarks.checkpoint_cost", "--inside", "--only", row, "--models", model]
            for name, value in length.items():
                command += [f"--{name}", str(value)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            found = json.loads(done.stdout.splitlines()[-1])
            write = found["milliseconds"] - found["look"] - found["serialise"] - found["hash"]
            parts = ", ".join(f"{value:.1f}" for value in (found["look"], found["serialise"], found["hash"], write))
            print(
                f"| {model} | {row} | {found['megabytes']:.1f} | {found['interval_seconds']:.1f}"
                f" | {found['milliseconds']:.1f} ({parts}) | {found['milliseconds_after']:+.1f}"
                f" | {found['share']:.2%} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
