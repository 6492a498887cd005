"""The check, before anything is trained, that a model takes the images and returns one logit per class.

Does not know where images come from; it runs the model on shapes alone.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from cvtrain.errors import ConfigError
from cvtrain.models.meta import on_meta

# Sizes to try, in pixels, when the images are too small: those of data sets and of published models.
_USUAL_SIZES = (6, 8, 12, 16, 24, 28, 32, 40, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 288, 299, 320)
_SEARCH_SECONDS = 2.0

# What a model that cannot take a shape has been seen to raise.
_ShapeErrors = (RuntimeError, ValueError, ArithmeticError, AssertionError, IndexError)


def check_image_size(
    factory: Callable[..., nn.Module], *, num_classes: int, in_channels: int, image_size: int, name: str
) -> None:
    """Build the model on the meta device and run two images through it, in training mode.

    Takes milliseconds and no memory, and leaves torch's global random state as it was.

    Args:
        factory: Called as `factory(num_classes=..., in_channels=..., image_size=...)`.
        num_classes: Length of the logits.
        in_channels: Channels of the images.
        image_size: Height and width of the images, in pixels.
        name: What to call the model in messages.

    Raises:
        ConfigError: The images are too small (with the smallest size that works), the model fails for another
            reason, or its output is not `(2, num_classes)`. Also any that the factory raises.
    """

    def run(size: int) -> object:
        return _run_on_meta(factory, num_classes=num_classes, in_channels=in_channels, image_size=size)

    # Not every library keeps its hands off the generator when it builds on the meta device.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            logits = run(image_size)
        except TypeError as error:
            raise ConfigError(f"{name} cannot be built: {_one_line(error)}") from error
        except _ShapeErrors as error:
            raise _size_error(error, run, image_size=image_size, name=name) from error
    _check_logits(logits, num_classes=num_classes, name=name)


def _run_on_meta(factory: Callable[..., nn.Module], *, num_classes: int, in_channels: int, image_size: int) -> object:
    facts = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    try:
        with torch.device("meta"):
            model = factory(**facts)
    except NotImplementedError:
        # Some constructors compute with tensors (torchvision's RegNets do), which takes a device with numbers.
        model = on_meta(factory(**facts))
    for layer, module in model.named_modules():
        if image_size == 1 and isinstance(module, nn.Conv2d):
            raise ValueError(f"its layer {layer} looks at neighbours, and a point has none")
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(partial(_check_features, layer))
    with torch.no_grad():
        return model.train()(torch.empty(2, in_channels, image_size, image_size, device="meta"))


def _check_features(layer: str, linear: nn.Linear, inputs: tuple[Tensor, ...]) -> None:
    """Says which layer does not fit: torch's own words name two matrices."""
    if inputs and inputs[0].shape[-1] != linear.in_features:
        given = f"{inputs[0].shape[-1]:,} from what comes before it"
        raise ValueError(f"its layer {layer} takes {linear.in_features:,} features per image and is given {given}")


def _size_error(error: Exception, run: Callable[[int], object], *, image_size: int, name: str) -> ConfigError:
    if image_size == 1:
        found = f"{name} needs images; these are points, each a single pixel"
        return ConfigError(found, hint="type model=mlp or model=linear")
    deadline = time.monotonic() + _SEARCH_SECONDS
    smallest = _next_size(run, above=image_size, deadline=deadline)
    if smallest is None:
        return ConfigError(f"{name} cannot take images of {image_size} px: {_one_line(error)}")
    # Transformers take multiples of their patch: there a smaller size may work as well as a larger one.
    if any(_takes(run, size) for size in _USUAL_SIZES if size < image_size and time.monotonic() < deadline):
        found = f"{name} cannot take images of {image_size} px; the next size that works is {smallest} px"
    else:
        found = f"{name} needs images of at least {smallest} px; these have {image_size} px"
    return ConfigError(
        found, hint=f"set data.image_size={smallest} where the data are image files, or take a smaller model"
    )


def _next_size(run: Callable[[int], object], *, above: int, deadline: float) -> int | None:
    """The smallest image size above `above` that `run` takes; None if none is found in time."""
    fails, works = above, None
    for size in _USUAL_SIZES:
        if size <= above:
            continue
        if time.monotonic() > deadline:
            return None
        if _takes(run, size):
            works = size
            break
        fails = size
    # `works` works at every moment, so that running out of time costs exactness alone.
    while works is not None and works - fails > 1 and time.monotonic() < deadline:
        middle = (fails + works) // 2
        if _takes(run, middle):
            works = middle
        else:
            fails = middle
    return works


def _takes(run: Callable[[int], object], size: int) -> bool:
    try:
        run(size)
    except _ShapeErrors:
        return False
    return True


def _check_logits(logits: object, *, num_classes: int, name: str) -> None:
    if not isinstance(logits, Tensor):
        raise ConfigError(f"{name} returns a {type(logits).__name__}, not one tensor of logits")
    if tuple(logits.shape) != (2, num_classes):
        raise ConfigError(
            f"{name} returns logits of shape {tuple(logits.shape)} for 2 images; "
            f"{num_classes} classes need (2, {num_classes})"
        )


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
