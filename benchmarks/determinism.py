"""What `trainer=deterministic` costs: milliseconds per step with and without it, in alternating rounds.

    python -m benchmarks.determinism                  # cpu or gpu, whichever trainer.device=auto takes
    python -m benchmarks.determinism --rounds 20 model=vgg11_bn trainer.batch_size=64

Both sides are the real loop on the same synthetic images in one process; only the setting differs. A round takes the
same number of steps on each side, one after the other, which goes first alternates; the ratio is the median over
rounds of the two times of a round, and its spread the middle half. Where it is above the limit, the exit code is 1.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import torch

from cvtrain import build
from cvtrain.compose import compose
from cvtrain.config import Config
from cvtrain.engine.device import set_determinism
from cvtrain.parts import make_parts, make_trainer

WORDS = ["data=synthetic", "data.per_class=64", "data.image_size=32", "model=resnet18", "model.width=16"]
LIMIT = 1.10


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--steps", type=int, default=5, help="of each side in a round (%(default)s)")
    arguments, words = parser.parse_known_args()
    config = compose([*WORDS, *words, "trainer.epochs=null", "trainer.steps=1000000", "trainer.evaluate_every=1000000"])
    prepared = build.data(config)
    sides = {
        name: steps(config, prepared, deterministic=name == "deterministic") for name in ("default", "deterministic")
    }
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-2, arguments.rounds):  # two to warm up
        for name in sorted(sides, reverse=bool(number % 2)):
            taken = timed(sides[name], arguments.steps, deterministic=name == "deterministic")
            seconds[name] += [taken] if number >= 0 else []
    return report(seconds, arguments.steps)


def steps(config: Config, prepared: Any, *, deterministic: bool) -> Iterator[Any]:
    """The steps of a run with or without determinism."""
    config = copy.deepcopy(config)
    config["trainer"]["deterministic"] = deterministic
    parts = make_parts(config, prepared, precision=None, start=None, team=None)
    return make_trainer(config, parts, evaluate_fn=None, warn=print).run()


def timed(side: Iterator[Any], num_steps: int, *, deterministic: bool) -> float:
    """Seconds that some steps take."""
    set_determinism(deterministic)
    started = time.perf_counter()
    for _ in range(num_steps):
        next(side)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def report(seconds: dict[str, list[float]], num_steps: int) -> int:
    """Prints milliseconds and the ratio; 1 where that is above the limit."""
    for name, values in seconds.items():
        print(f"{name:<14} {1000 * statistics.median(values) / num_steps:8.2f} ms a step")
    ratios = [b / a for a, b in zip(seconds["default"], seconds["deterministic"], strict=True)]
    low, ratio, high = statistics.quantiles(ratios, n=4)
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"cpu, {torch.get_num_threads()} threads"
    print(f"ratio          {ratio:8.3f} (middle half {low:.3f} to {high:.3f}, n = {len(ratios)}; {where})")
    return int(ratio > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
