"""What `benchmarks.throughput` compares: each contestant trains for some seconds whenever it is told to.

Started as a process of its own per contestant and model; reads `run SECONDS` from stdin, answers with images/s.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator

NUM_IMAGES, BATCH_SIZE, IMAGE_SIZE = 50_000, 128, 32
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def bare_model(name: str):
    """The same network as `model=NAME`, made outside of cvtrain's training."""
    from cvtrain import build
    from cvtrain.compose import compose

    config = compose([f"model={name}", "data=cifar10"])
    return build._call("model", config, num_classes=10, in_channels=3, image_size=IMAGE_SIZE)


def plain_sgd(model):
    """The optimizer of the textbook, as torch builds it by default."""
    import torch

    return torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)


def pure_compute(name: str) -> Iterator[int]:
    """One preloaded float32 batch again and again, default settings: no data work at all."""
    import torch
    import torch.nn.functional as F

    model = bare_model(name)
    optimizer = plain_sgd(model)
    images = torch.randn(BATCH_SIZE, 3, IMAGE_SIZE, IMAGE_SIZE)
    labels = torch.randint(0, 10, (BATCH_SIZE,))
    while True:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        yield BATCH_SIZE


def textbook(name: str) -> Iterator[int]:
    """PIL transforms of single images in two DataLoader workers, as torchvision's CIFAR10 class does it."""
    import numpy as np
    import torch
    import torch.nn.functional as F
    from PIL import Image
    from torchvision import transforms

    class Cifar10(torch.utils.data.Dataset):
        def __init__(self) -> None:
            generator = np.random.default_rng(0)
            self.data = generator.integers(0, 256, (NUM_IMAGES, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)
            self.targets = generator.integers(0, 10, NUM_IMAGES).tolist()
            self.transform = transforms.Compose(
                [
                    transforms.RandomCrop(IMAGE_SIZE, padding=4),
                    transforms.RandomHorizontalFlip(),
                    transforms.ToTensor(),
                    transforms.Normalize(MEAN, STD),
                ]
            )

        def __getitem__(self, index: int):
            return self.transform(Image.fromarray(self.data[index])), self.targets[index]

        def __len__(self) -> int:
            return NUM_IMAGES

    loader = torch.utils.data.DataLoader(Cifar10(), batch_size=BATCH_SIZE, shuffle=True, num_workers=2)
    model = bare_model(name)
    optimizer = plain_sgd(model)
    while True:
        for images, labels in loader:
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
            yield len(labels)


def cvtrain(name: str) -> Iterator[int]:
    """`cvtrain model=NAME` with its defaults on 50,000 images, through its own run object."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from cvtrain.engine import runtime

    runtime.prepare()

    from cvtrain import build
    from cvtrain.compose import compose
    from cvtrain.console import Console
    from cvtrain.engine.events import Step
    from cvtrain.fit import Run
    from cvtrain.outputs import RunDir
    from cvtrain.signals import StopRequest

    options = [f"data.per_class={NUM_IMAGES // 10}", "data.val_fraction=0", "augment=flip_crop"]
    config = compose([f"model={name}", "data=synthetic", *options, f"trainer.batch_size={BATCH_SIZE}"])
    build.limit_threads()
    prepared = build.data(config)
    with TemporaryDirectory() as folder:
        run_dir = RunDir.create(Path(folder))
        run = Run(config, prepared, run_dir=run_dir, console=Console(), stop=StopRequest())
        for event in run.trainer.run():
            if isinstance(event, Step):
                yield BATCH_SIZE


CONTESTANTS: dict[str, Callable[[str], Iterator[int]]] = {
    "pure": pure_compute,
    "textbook": textbook,
    "cvtrain": cvtrain,
}


def main() -> None:
    """Serves `run SECONDS` commands until stdin ends."""
    contestant, model = sys.argv[1:3]
    steps = CONTESTANTS[contestant](model)
    for _ in range(3):
        next(steps)
    print("ready", flush=True)
    for line in sys.stdin:
        seconds = float(line.split()[1])
        num_images, started = 0, time.perf_counter()
        while True:
            num_images += next(steps)
            elapsed = time.perf_counter() - started
            if elapsed >= seconds:
                break
        print(num_images / elapsed, flush=True)


if __name__ == "__main__":
    main()
