"""Classifiers from torchvision and timm, by name, made to fit the data.

Does not know which of them suit small images: most were made for 224 px and shrink 32 px to a single pixel.
"""

from __future__ import annotations

import contextlib
import difflib
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from cvtrain.errors import ConfigError, DataError

# Transformers whose weights belong to one image size.
_BUILT_FOR_ONE_SIZE = ("vit_", "maxvit_")

# Set by other options; the last four name files or addresses, which older versions of timm unpickle freely.
_TAKEN_OF_TIMM = (
    *("model_name", "pretrained", "num_classes", "in_chans"),
    *("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"),
)

# Nets with auxiliary classifiers return several tensors in training; and they warn unless told how to initialise.
_ARGUMENTS_OF_AUXILIARY_NETS = {"aux_logits": False, "init_weights": True}


def torchvision(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    name: str = "resnet18",
    weights: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Any classification model of `torchvision.models`.

    Maps float images `(B, in_channels, image_size, image_size)` to logits `(B, num_classes)`. For other than three
    channels the first convolution is replaced; with pretrained weights the last layer is, too, unless the number of
    classes is that of the weights. No weights are fetched while the default device is `meta`.

    Args:
        num_classes: Length of the logits.
        in_channels: Channels of the images.
        image_size: Height and width of the images, in pixels; handed to the transformers, which are built for one.
        name: As in `torchvision.models.list_models()`.
        weights: `DEFAULT` or a name such as `IMAGENET1K_V1`; None: from scratch.
        kwargs: Further arguments of the model's own function.

    Raises:
        ConfigError: A name that is unknown or no image classifier, unknown weights, or arguments that do not fit.
        DataError: Weights that cannot be downloaded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torchvision import models

        _require_classifier(name, models)
        _require_free(kwargs, ("name", "weights", "progress", "num_classes"))
        if weights is not None:
            _require_weights(name, weights, models, image_size=image_size)
        arguments = {**_own_arguments(name, image_size), **(kwargs or {})}
        if weights is None or torch.get_default_device().type == "meta":
            model = _call(models.get_model, name, **arguments, num_classes=num_classes)
            keep_weights = False
        else:
            model = _pretrained_torchvision(models, name, weights, arguments, num_classes=num_classes)
            keep_weights = True
    if in_channels != 3:
        _replace_first_convolution(model, in_channels, keep_weights=keep_weights)
    return model


def timm(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    name: str = "resnet18",
    pretrained: bool = False,
    kwargs: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Any classification model of the package timm.

    Maps float images `(B, in_channels, image_size, image_size)` to logits `(B, num_classes)`. No weights are fetched
    while the default device is `meta`.

    Args:
        num_classes: Length of the logits.
        in_channels: Channels of the images; pretrained first layers are adapted by timm.
        image_size: Height and width of the images, in pixels; handed to the models that are built for one.
        name: As in `timm.list_models()`, with or without a tag of its weights (`resnet18.a1_in1k`).
        pretrained: Download weights.
        kwargs: Further arguments of the model.

    Raises:
        ConfigError: The package is missing, the name is unknown, or the arguments do not fit.
        DataError: Weights that cannot be downloaded.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from timm import create_model
        except ImportError as error:
            raise ConfigError(
                f"model=timm needs the package timm ({error})", hint="pip install 'cvtrain[timm]'"
            ) from error
        _require_free(kwargs, _TAKEN_OF_TIMM)
        arguments = {**_timm_facts(name, image_size), **(kwargs or {})}
        arguments.update(num_classes=num_classes, in_chans=in_channels)
        if not pretrained or torch.get_default_device().type == "meta":
            return _call(create_model, name, **arguments)
        try:
            return create_model(name, pretrained=True, **arguments)
        except TypeError as error:
            raise _argument_error(name, error) from error
        except Exception as error:  # whatever the downloader of the day raises
            raise _download_error(name, error, setting="model.pretrained=false") from error


def _require_classifier(name: str, models: Any) -> None:
    classifiers = models.list_models(module=models)
    if name in classifiers:
        return
    if name in models.list_models():
        kind = models.get_model_builder(name).__module__.removeprefix("torchvision.models.").split(".")[0]
        raise ConfigError(f"model.name={name} is a {kind} model of torchvision, not a plain image classifier")
    raise _unknown_name(name, classifiers, library="torchvision")


def _require_weights(name: str, weights: str, models: Any, *, image_size: int) -> None:
    known = models.get_model_weights(name).__members__
    if weights not in known:
        raise ConfigError(
            f"model.weights={weights} is unknown for {name}", hint=f"take one of {', '.join(known)}, or null"
        )
    size = known[weights].meta["min_size"][0]
    if name.startswith(_BUILT_FOR_ONE_SIZE) and image_size != size:
        raise ConfigError(
            f"the weights {weights} of {name} are for images of {size} px; these have {image_size} px",
            hint=f"set data.image_size={size} where the data are image files, or model.weights=null",
        )


def _require_free(kwargs: Mapping[str, Any] | None, taken: Iterable[str]) -> None:
    clashes = sorted(set(kwargs or {}) & set(taken))
    if clashes:
        raise ConfigError(
            f"model.kwargs sets {', '.join(clashes)}, which is left to the data and to the model's other options",
            hint="leave it out of model.kwargs",
        )


def _own_arguments(name: str, image_size: int) -> dict[str, Any]:
    """What torchvision's model needs to be told beside the number of classes."""
    if name in ("googlenet", "inception_v3"):
        return dict(_ARGUMENTS_OF_AUXILIARY_NETS)
    if name.startswith("vit_"):
        return {"image_size": image_size}
    if name.startswith("maxvit_"):
        return {"input_size": (image_size, image_size)}
    return {}


def _pretrained_torchvision(
    models: Any, name: str, weights: str, arguments: dict[str, Any], *, num_classes: int
) -> nn.Module:
    entry = models.get_model_weights(name)[weights]
    for argument in _ARGUMENTS_OF_AUXILIARY_NETS:
        arguments.pop(argument, None)  # with weights the functions of these nets accept nothing but their own choice
    try:
        # torchvision unpickles what lies in its cache; reading it first as plain tensors refuses all else.
        with contextlib.redirect_stdout(sys.stderr):
            entry.get_state_dict(progress=False, check_hash=True, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the downloader of the day raises
        raise _download_error(name, error, setting="model.weights=null") from error
    try:
        model = models.get_model(name, weights=entry, progress=False, **arguments)
    except (TypeError, ValueError) as error:
        raise _argument_error(name, error) from error
    _drop_auxiliary_classifiers(model)
    if num_classes != len(entry.meta["categories"]):
        _replace_last_layer(model, num_classes, num_known=len(entry.meta["categories"]))
    return model


def _drop_auxiliary_classifiers(model: nn.Module) -> None:
    """Make GoogLeNet and Inception return one tensor in training, too."""
    if getattr(model, "aux_logits", False):
        model.aux_logits = False
    for name in ("aux1", "aux2", "AuxLogits"):
        if hasattr(model, name):
            setattr(model, name, None)


def _timm_facts(name: str, image_size: int) -> dict[str, Any]:
    """What timm's model needs to be told of the images, once its name is known to be good."""
    from timm import get_pretrained_cfg, is_model, list_models, list_pretrained

    if not is_model(name):
        raise _unknown_name(name, list_models(), library="timm")
    try:
        config = get_pretrained_cfg(name)
    except RuntimeError as error:  # a tag that the model does not have
        raise _unknown_name(name, list_pretrained(), library="timm") from error
    return {"img_size": image_size} if config is not None and config.fixed_input_size else {}


def _call(build_fn: Any, name: str, **arguments: Any) -> nn.Module:
    try:
        return build_fn(name, **arguments)
    except TypeError as error:
        raise _argument_error(name, error) from error


def _replace_first_convolution(model: nn.Module, in_channels: int, *, keep_weights: bool) -> None:
    """Let the first convolution see `in_channels` channels instead of 3."""
    name, old = next(
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d) and module.in_channels == 3
    )
    new = nn.Conv2d(
        in_channels,
        old.out_channels,
        old.kernel_size,
        stride=old.stride,
        padding=old.padding,
        dilation=old.dilation,
        bias=old.bias is not None,
    )
    if keep_weights:
        with torch.no_grad():
            # For one channel this is the sum of the three filters: a grey picture gets the response that it got
            # with its grey in all three channels.
            new.weight.copy_(old.weight.mean(dim=1, keepdim=True) * (3 / in_channels))
            if old.bias is not None:
                new.bias.copy_(old.bias)
    model.set_submodule(name, new)
    if getattr(model, "transform_input", False):
        model.transform_input = False  # GoogLeNet's and Inception's own normalisation is for three channels


def _replace_last_layer(model: nn.Module, num_classes: int, *, num_known: int) -> None:
    """Give a pretrained model a new classifier; the old one returns `num_known` logits."""
    for name, module in reversed(list(model.named_modules())):
        if isinstance(module, nn.Linear) and module.out_features == num_known:
            head = nn.Linear(module.in_features, num_classes, bias=module.bias is not None)
        elif isinstance(module, nn.Conv2d) and module.out_channels == num_known:  # SqueezeNet
            head = nn.Conv2d(module.in_channels, num_classes, module.kernel_size)
        else:
            continue
        model.set_submodule(name, head)
        return
    raise ConfigError(f"the pretrained model has no last layer of {num_known} logits to replace")


def _unknown_name(name: str, names: Iterable[str], *, library: str) -> ConfigError:
    nearest = difflib.get_close_matches(name, list(names), n=3, cutoff=0.0)
    return ConfigError(
        f"model.name={name} is not a classification model of {library}", hint=f"nearest: {', '.join(nearest)}"
    )


def _argument_error(name: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{name} cannot be built with these arguments: {_one_line(error)}",
        hint="see model.kwargs",
    )


def _download_error(name: str, error: Exception, *, setting: str) -> DataError:
    return DataError(
        f"the pretrained weights of {name} cannot be fetched: {_one_line(error)}",
        hint=f"{setting} trains from scratch; or put the weights in the library's cache beforehand",
    )


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
