"""The sample-size sweep as a careful textbook writes it: ImageFolder, PIL transforms, DataLoader, one size at a time.

    python -m benchmarks.textbook_sweep --data DIR [--sizes 10,20,50] [--output JSON]

DIR holds train/<class>/ and test/<class>/, 32x32 pixels. Shares the network with cvtrain and nothing else: torch and
torchvision stand at their defaults. Loader processes and threads are the exception: for each size, and for the test,
some numbers of them are tried on a throw-away network, and others than two processes beside torch's own number of
threads are taken where they are clearly faster. The time of the trials is not counted.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder

SIZES = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
NETWORKS = ("simple_cnn", "lenet", "conv_pool")
IMAGE_SIZE, BATCH_SIZE, EVAL_BATCH_SIZE = 32, 128, 256
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
MAX_EPOCHS, PATIENCE = 100, 3
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)

NUM_WORKERS, CLEARLY_FASTER = (2, 1, 0), 0.95
"""Loader processes: the first is what tutorials take; others must do with this share of its seconds."""

NUM_TRIALS, TRIAL_EPOCHS, MAX_TRIAL_SIZE = 2, 3, 500
"""Trials, of which the quickest counts; epochs of each. Larger sizes are tried with so many images per class."""


@dataclass(frozen=True)
class Setup:
    """What loads and what computes.

    Args:
        num_workers: Loader processes.
        num_threads: Of torch, in the process that trains.
    """

    num_workers: int
    num_threads: int


@dataclass(frozen=True)
class Training:
    """One training of the sweep.

    Args:
        per_class: Labelled images of each class.
        setup: What loaded and what computed.
        train_size: Images to train on, of all classes.
        val_size: Images to validate.
        epochs: Passes over the training images until patience ended.
        best_epoch: Whose weights were tested, from 1.
        train_accuracy: 0..1, during the best epoch.
        val_accuracy: 0..1, after it.
        test_accuracy: 0..1, of its weights.
        epoch_seconds: Spent on training and validation.
        seconds: In all, with loaders, copies of weights and the test.
    """

    per_class: int
    setup: Setup
    train_size: int
    val_size: int
    epochs: int
    best_epoch: int
    train_accuracy: float
    val_accuracy: float
    test_accuracy: float
    epoch_seconds: float
    seconds: float


class Photographs:
    """The folders, read once, and loaders of parts of them."""

    def __init__(self, root: Path, *, augment: bool) -> None:
        plain = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        random = [transforms.RandomCrop(IMAGE_SIZE, padding=4), transforms.RandomHorizontalFlip()]
        self.train = ImageFolder(root / "train", transforms.Compose([*random, *plain] if augment else plain))
        self.val = copy.copy(self.train)  # the same files without a second walk through the folders
        self.val.transform = transforms.Compose(plain)
        self.test = ImageFolder(root / "test", transforms.Compose(plain))
        self.num_classes = len(self.train.classes)

    def part(self, per_class: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Which images train and which validate, four to one, equally many of each class."""
        generator, targets = np.random.default_rng((seed, per_class)), np.array(self.train.targets)
        num_val = max(round(per_class / 5), 1)
        orders = [generator.permutation(np.flatnonzero(targets == c))[:per_class] for c in range(self.num_classes)]
        return np.concatenate([o[num_val:] for o in orders]), np.concatenate([o[:num_val] for o in orders])

    def loaders(self, per_class: int, *, num_workers: int, seed: int) -> tuple[DataLoader, DataLoader]:
        """Of the images that train, and of those that validate."""
        train, val = self.part(per_class, seed=seed)
        return (
            loader_of(Subset(self.train, train), num_workers=num_workers, shuffle=True),
            loader_of(Subset(self.val, val), num_workers=num_workers),
        )


def loader_of(images, *, num_workers: int, shuffle: bool = False) -> DataLoader:
    return DataLoader(
        images,
        batch_size=BATCH_SIZE if shuffle else EVAL_BATCH_SIZE,
        shuffle=shuffle,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )


def make_network(name: str, *, num_classes: int) -> nn.Module:
    """The same network as `model=NAME`, without the composition of settings."""
    from cvtrain.models import cnn

    return getattr(cnn, name)(num_classes=num_classes, in_channels=3, image_size=IMAGE_SIZE)


def sgd(network: nn.Module, *, lr: float) -> torch.optim.SGD:
    return torch.optim.SGD(network.parameters(), lr=lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)


def train_epoch(network: nn.Module, loader: DataLoader, optimizer: torch.optim.SGD) -> float:
    """Trains on every image once; accuracy during it."""
    network.train()
    num_right = 0
    for images, labels in loader:
        optimizer.zero_grad()
        logits = network(images)
        F.cross_entropy(logits, labels).backward()
        optimizer.step()
        num_right += (logits.argmax(1) == labels).sum().item()
    return num_right / len(loader.dataset)


@torch.inference_mode()
def accuracy_on(network: nn.Module, loader: DataLoader) -> float:
    network.eval()
    num_right = sum((network(images).argmax(1) == labels).sum().item() for images, labels in loader)
    return num_right / len(loader.dataset)


def train_size(
    photographs: Photographs,
    network: nn.Module,
    *,
    per_class: int,
    setup: Setup,
    test_setup: Setup,
    lr: float,
    seed: int,
) -> Training:
    """Trains until three epochs in a row bring no better validation accuracy; tests the best weights."""
    started = time.perf_counter()
    torch.set_num_threads(setup.num_threads)
    train_loader, val_loader = photographs.loaders(per_class, num_workers=setup.num_workers, seed=seed)
    optimizer = sgd(network, lr=lr)
    best_val, best_train, best_epoch, best_weights = -1.0, 0.0, 0, {}
    epochs_started = time.perf_counter()
    for epoch in range(1, MAX_EPOCHS + 1):
        train_accuracy = train_epoch(network, train_loader, optimizer)
        val_accuracy = accuracy_on(network, val_loader)
        if val_accuracy > best_val:
            best_val, best_train, best_epoch = val_accuracy, train_accuracy, epoch
            best_weights = copy.deepcopy(network.state_dict())
        elif epoch - best_epoch == PATIENCE:
            break
    epoch_seconds = time.perf_counter() - epochs_started
    network.load_state_dict(best_weights)
    torch.set_num_threads(test_setup.num_threads)
    test_accuracy = accuracy_on(network, loader_of(photographs.test, num_workers=test_setup.num_workers))
    return Training(
        per_class=per_class,
        setup=setup,
        train_size=len(train_loader.dataset),
        val_size=len(val_loader.dataset),
        epochs=epoch,
        best_epoch=best_epoch,
        train_accuracy=best_train,
        val_accuracy=best_val,
        test_accuracy=test_accuracy,
        epoch_seconds=epoch_seconds,
        seconds=time.perf_counter() - started,
    )


def seconds_of_training(
    photographs: Photographs, network: nn.Module, *, per_class: int, setup: Setup, lr: float, seed: int
) -> float:
    """Of the first epochs, with the start of the loader processes."""
    network = copy.deepcopy(network)
    optimizer = sgd(network, lr=lr)
    torch.set_num_threads(setup.num_threads)
    started = time.perf_counter()
    train_loader, val_loader = photographs.loaders(per_class, num_workers=setup.num_workers, seed=seed)
    for _ in range(TRIAL_EPOCHS):
        train_epoch(network, train_loader, optimizer)
        accuracy_on(network, val_loader)
    return time.perf_counter() - started


def seconds_of_test(photographs: Photographs, network: nn.Module, *, setup: Setup) -> float:
    torch.set_num_threads(setup.num_threads)
    started = time.perf_counter()
    accuracy_on(network, loader_of(photographs.test, num_workers=setup.num_workers))
    return time.perf_counter() - started


def fastest_setup(seconds_of: Callable[[Setup], float], *, own_threads: int) -> Setup:
    """Two loader processes and torch's own number of threads, or what is clearly faster."""
    # One thread is tried too: OpenMP's waiting threads spin, and keep the loader processes from the cores meanwhile.
    setups = [Setup(workers, threads) for threads in dict.fromkeys((own_threads, 1)) for workers in NUM_WORKERS]
    seconds = dict.fromkeys(setups, float("inf"))
    for _ in range(NUM_TRIALS):
        for setup in setups:  # in turn, so that a disturbance hits all alike
            seconds[setup] = min(seconds[setup], seconds_of(setup))
    fastest = min(setups, key=seconds.__getitem__)
    return fastest if seconds[fastest] < CLEARLY_FASTER * seconds[setups[0]] else setups[0]


def find_setups(photographs: Photographs, new_network: Callable[[], nn.Module], *, sizes, lr: float, seed: int):
    """The setup of each size, and that of the test."""
    network, own_threads = new_network(), torch.get_num_threads()
    tried = {
        per_class: fastest_setup(
            lambda setup, n=per_class: seconds_of_training(
                photographs, network, per_class=n, setup=setup, lr=lr, seed=seed
            ),
            own_threads=own_threads,
        )
        for per_class in sorted({min(size, MAX_TRIAL_SIZE) for size in sizes})
    }
    test_setup = fastest_setup(
        lambda setup: seconds_of_test(photographs, network, setup=setup), own_threads=own_threads
    )
    return {size: tried[min(size, MAX_TRIAL_SIZE)] for size in sizes}, test_setup


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is trained: the same for the textbook and for whoever is measured against it."""
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sizes", type=lambda words: tuple(map(int, words.split(","))), default=SIZES)
    parser.add_argument("--model", choices=NETWORKS, default="conv_pool")
    parser.add_argument("--augment", choices=("none", "flip_crop"), default="flip_crop")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, help="loader processes of the textbook; tried out without it")


def main() -> None:
    """Trains all sizes; prints a line per size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    photographs = Photographs(arguments.data, augment=arguments.augment == "flip_crop")
    new_network = functools.partial(make_network, arguments.model, num_classes=photographs.num_classes)
    how, started = {"lr": arguments.lr, "seed": arguments.seed}, time.perf_counter()
    if arguments.workers is None:
        setups, test_setup = find_setups(photographs, new_network, sizes=arguments.sizes, **how)
    else:
        test_setup = Setup(arguments.workers, torch.get_num_threads())
        setups = dict.fromkeys(arguments.sizes, test_setup)
    seconds_of_trials, trainings = time.perf_counter() - started, []
    for per_class in arguments.sizes:
        setup = {"setup": setups[per_class], "test_setup": test_setup}
        trainings.append(train_size(photographs, new_network(), per_class=per_class, **setup, **how))
        print(json.dumps(asdict(trainings[-1])), flush=True)
    if arguments.output:
        result = {"seconds_of_trials": seconds_of_trials, "trainings": [asdict(t) for t in trainings]}
        result["test_setup"] = asdict(test_setup)
        arguments.output.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
