"""Does cvtrain say when a run is not learning, and only then? Planted faults, healthy runs, and what the looking costs.

    python -m benchmarks.diagnosis [--only faults healthy cost] [--seeds 3] [--deep]

A planted fault is a real run on small data, told to stop within 300 steps or one epoch; it counts as named when the
warning, or the error that ends the run, says what was planted. A healthy run is one that is shipped, at its defaults;
any warning but "memorising" counts as a false alarm.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvtrain import compose
from cvtrain.engine.diagnosis.measures import StepMeasure
from cvtrain.engine.diagnosis.observer import Observer
from cvtrain.errors import CvtrainError
from cvtrain.fit import Run
from cvtrain.tasks import train

PLUGIN = ["plugins=[benchmarks]"]
SMALL = [
    "data.image_size=16",
    "trainer.precision=fp32",
    "trainer.batch_size=32",
    "trainer.epochs=null",
    "trainer.steps=300",
]


@dataclass(frozen=True)
class Fault:
    """One planted fault.

    Args:
        what: In words.
        words: The command; `model@name` stands for that function of `benchmarks.planted`.
        names: What the warning must say, one of them.
    """

    what: str
    words: str
    names: tuple[str, ...]


TOO_LONG = ("diverg", "dead ReLUs", "times that of a constant answer", "is the answer to")
VANISHED, HEART = ("trainer.init=he",), ("memorising",)
FAULTS = (
    Fault("13 convolutions, PyTorch's init", "model@thirteen_convolutions trainer.init=default", VANISHED),
    Fault("16 convolutions, Adam", "model@sixteen_convolutions trainer.init=default optimizer=adam", VANISHED),
    Fault("SGD, lr 30 times too high", "optimizer=sgd optimizer.lr=3", TOO_LONG),
    Fault("momentum, lr 20 times too high", "optimizer=momentum optimizer.lr=1", TOO_LONG),
    Fault("momentum, lr 1000 times too high", "optimizer=momentum optimizer.lr=50", TOO_LONG),
    Fault("Adam, lr 300 times too high", "optimizer=adam optimizer.lr=0.3", TOO_LONG),
    Fault("Adam, lr 1000 times too high", "optimizer=adam optimizer.lr=1", TOO_LONG),
    Fault("lr 1e-7", "optimizer=momentum optimizer.lr=1e-7", ("optimizer.lr=1e-06",)),
    Fault(
        "labels shuffled, few images", "data@shuffled_labels model=mlp scheduler=constant", ("validation at chance",)
    ),
    Fault("labels shuffled, many images", "data@shuffled_noise model=mlp", ("labels",)),
    Fault("one answer for all images", "model@Averaging", ("outputs differ between images by 0",)),
    Fault("softmax twice", "model@ends_in_softmax", ("the model ends in a softmax",)),
    Fault("sigmoid under MSE", "model@ends_in_sigmoid loss=mse", ("saturated",)),
    Fault("all frozen but biases", "trainer.freeze=['*weight']", ("trainer.freeze=[]",)),
    Fault("dead ReLUs from the start", "model@dead_from_the_start", ("dead ReLUs",)),
    Fault("weights of zero", "model@all_zero", VANISHED),
    Fault("MAE of the outputs", "data=synthetic data.num_classes=50 loss=mae loss.compare=outputs", ("loss=gce",)),
    Fault("MAE of the softmax, 50 classes", "data=synthetic data.num_classes=50 loss=mae", ("loss=gce",)),
    Fault("gradients clipped to 1e-6", "trainer.grad_clip=1e-6", ("trainer.grad_clip=1",)),
    Fault("weight decay 10", "optimizer.weight_decay=10", ("optimizer.weight_decay=0.0005",)),
    Fault("images all grey", "data@same_images", ("the images hardly differ",)),
    Fault("inputs not normalised", "model@fed_raw_values", ("outputs differ", "dead ReLUs", "diverg")),
    Fault("validation labels of another list", "data@other_labels_to_validate", ("validation at chance",)),
    Fault(
        "100 images by heart, half of them wrong",
        "data@half_wrong_labels data.max_per_class=20 data.val_fraction=0.5 model=mlp trainer.evaluate_every=10",
        HEART,
    ),
    Fault("dropout 0.99", "model=mlp model.dropout=0.99", ("model.dropout=0.5",)),
)


@dataclass(frozen=True)
class Outcome:
    """What a run said.

    Args:
        warnings: Of its card.
        error: What ended it, or None.
        accuracy: On the test images, or None.
        seconds: From the command to its end.
    """

    warnings: list[str]
    error: str | None
    accuracy: float | None
    seconds: float

    def names(self, fault: Fault) -> bool:
        """Whether a fault was named."""
        return any(name in said for name in fault.names for said in [*self.warnings, self.error or ""])


def outcome_of(words: list[str], folder: Path) -> Outcome:
    """Runs a command in this process."""
    started = time.perf_counter()
    error = None
    with contextlib.redirect_stdout(io.StringIO()):
        config = compose.compose([*words, f"output_dir={folder}", "trainer.device=cpu"])
        try:
            train.run(config)
        except CvtrainError as raised:
            error = " ".join(raised.lines())
    cards = sorted(folder.glob("train/*/*/run.json"), key=lambda path: path.stat().st_mtime)
    card = json.loads(cards[-1].read_text()) if cards else {"warnings": []}
    accuracy = (card.get("test") or {}).get("accuracy")
    return Outcome(card["warnings"], error, accuracy, time.perf_counter() - started)


def words_of(fault: Fault) -> list[str]:
    """The whole command of a fault."""
    return [*PLUGIN, *SMALL, *fault.words.replace("@", "._target_=benchmarks.planted.").split()]


def run_faults() -> int:
    """Prints a row for each fault; returns how many were not named."""
    print("| planted | named | said | seconds |\n|---|---|---|---|")
    missed = 0
    for fault in FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            outcome = outcome_of(words_of(fault), Path(folder))
        missed += not outcome.names(fault)
        said = " / ".join([*outcome.warnings, *([outcome.error] if outcome.error else [])]) or "nothing"
        print(
            f"| {fault.what} | {'yes' if outcome.names(fault) else 'NO'} | {said} | {outcome.seconds:.1f} |", flush=True
        )
    print(f"\n{len(FAULTS) - missed} of {len(FAULTS)} named\n")
    return missed


# ------------------------------------------------------------------------------------------------------ healthy runs

FEW = ("trainer.epochs=null", "trainer.steps=300", "trainer.batch_size=16")
QUICK_MODELS = ("linear", "mlp", "fc2", "simple_cnn", "lenet", "conv_pool", "block_cnn")
DEEP_MODELS = {
    "alexnet": (),
    **dict.fromkeys(("resnet18", "resnet34", "resnet50"), ("model.width=8",)),
    **dict.fromkeys(("vgg11", "vgg13", "vgg16", "vgg19", "vgg11_bn", "vgg16_bn", "vgg19_bn"), ()),
}
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "muon")
LOSSES = ("cross_entropy", "mse", "mae", "gce", "focal", "squentropy", "soft_margin_softmax", "am_softmax", "l_softmax")
SYNTHETIC = ("data=synthetic", "data.per_class=50")


def healthy_commands(seeds: int, *, deep: bool) -> list[list[str]]:
    """Shipped models, optimizers and losses at their defaults, on two sets of small data."""
    commands = [[f"model={model}", *data] for model in QUICK_MODELS for data in ((), SYNTHETIC)]
    commands += [[f"optimizer={name}", *data] for name in OPTIMIZERS for data in ((), SYNTHETIC)]
    commands += [[f"loss={name}"] for name in LOSSES]
    commands += [
        ["trainer.steps=400", "trainer.epochs=null", f"augment={name}"] for name in ("mixup", "cutmix", "strong")
    ]
    if deep:
        commands += [[f"model={name}", *words, *FEW] for name, words in DEEP_MODELS.items()]
    return [[*words, f"seed={seed}"] for seed in range(seeds) for words in commands]


def run_healthy(seeds: int, *, deep: bool) -> int:
    """Prints every alarm over runs that learn; returns how many there were."""
    alarms, commands, accuracies = 0, healthy_commands(seeds, deep=deep), []
    for words in commands:
        with tempfile.TemporaryDirectory() as folder:
            outcome = outcome_of(words, Path(folder))
        accuracies.append(outcome.accuracy or 0.0)
        alarming = [said for said in outcome.warnings if not said.startswith("memorising")]
        alarms += bool(alarming or outcome.error)
        for said in [*outcome.warnings, *([outcome.error] if outcome.error else [])]:
            print(f"{' '.join(words)} (test accuracy {outcome.accuracy}): {said}", flush=True)
    print(f"{alarms} false alarms in {len(commands)} healthy runs, test accuracy {min(accuracies):.2f} at least\n")
    return alarms


# -------------------------------------------------------------------------------------------------------------- cost

COSTED = {"lenet": (), "conv_pool": (), "resnet18": ("trainer.steps=25", "trainer.epochs=null")}


class Clock:
    """Counts the CPU seconds that are spent in some functions."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0

    def around(self, owner: type, name: str) -> None:
        """Counts a method of a class from now on."""
        real = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            started, self._depth = time.process_time(), self._depth + 1
            try:
                return real(*args, **kwargs)
            finally:
                self._depth -= 1
                self.seconds += 0.0 if self._depth else time.process_time() - started

        setattr(owner, name, timed)


def run_cost() -> None:
    """Prints what share of the CPU time of training is spent on looking, the first look and its probe included."""
    clock, training = Clock(), Clock()
    for owner, names in (
        (Observer, ("measure", "after_step", "after_evaluation")),
        (StepMeasure, ("outputs", "gradients", "update")),
    ):
        for name in names:
            clock.around(owner, name)
    training.around(Run, "train")
    print("| model | looking, of training |\n|---|---|")
    for model, words in COSTED.items():
        clock.seconds = training.seconds = 0.0
        with tempfile.TemporaryDirectory() as folder:
            outcome_of([f"model={model}", *words], Path(folder))
        print(f"| {model} | {clock.seconds / training.seconds:.2%} of {training.seconds:.1f} s |", flush=True)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=["faults", "healthy", "cost"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--deep", action="store_true", help="deep nets among the healthy runs too: an hour, not a minute"
    )
    arguments = parser.parse_args()
    failed = run_faults() if "faults" in arguments.only else 0
    failed += run_healthy(arguments.seeds, deep=arguments.deep) if "healthy" in arguments.only else 0
    if "cost" in arguments.only:
        run_cost()
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
