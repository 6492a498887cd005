"""Fully connected classifiers, and the hidden layers that the classic convolutional nets end in.

Does not know that pixels have neighbours: an image is one long vector here.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from torch import nn

from cvtrain.errors import ConfigError

_ACTIVATIONS: dict[str, Callable[[], nn.Module] | None] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "tanh": nn.Tanh,
    "none": None,
}


def linear(*, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Multinomial logistic regression: one linear layer on the pixels.

    Maps float images `(B, in_channels, image_size, image_size)` to logits `(B, num_classes)`.
    """
    num_pixels = in_channels * image_size**2
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            head=nn.Linear(num_pixels, num_classes),
        )
    )


def mlp(
    *,
    num_classes: int,
    in_channels: int,
    image_size: int,
    hidden: Sequence[int] = (256, 128),
    activation: str = "relu",
    dropout: float = 0.0,
) -> nn.Module:
    """A multilayer perceptron.

    Maps float images `(B, in_channels, image_size, image_size)` to logits `(B, num_classes)`.

    Args:
        num_classes: Length of the logits.
        in_channels: Channels of the images.
        image_size: Height and width of the images, in pixels.
        hidden: Width of each hidden layer.
        activation: `relu`, `tanh`, or `none`: then the layers are one linear map, learnt as a product.
        dropout: Share of hidden activations that are zeroed in training, 0..1.

    Raises:
        ConfigError: A width below 1, a dropout outside 0..1, an unknown activation, or one of the two other than by
            default without a hidden layer.
    """
    num_pixels = in_channels * image_size**2
    return nn.Sequential(
        OrderedDict(
            flatten=nn.Flatten(),
            hidden=hidden_layers(num_pixels, hidden, activation=activation, dropout=dropout),
            head=nn.Linear(hidden[-1] if hidden else num_pixels, num_classes),
        )
    )


def fc2(*, num_classes: int, in_channels: int, image_size: int) -> nn.Module:
    """Two hidden layers of 8: as many parameters as `simple_cnn`, and no idea of neighbourhood.

    Maps float images `(B, in_channels, image_size, image_size)` to logits `(B, num_classes)`; 6,442 parameters at
    28x28 grey pixels and 10 classes.

    Source: NYU Deep Learning (LeCun & Canziani, 2020), practicum 3, `FC2Layer`.
    """
    return mlp(num_classes=num_classes, in_channels=in_channels, image_size=image_size, hidden=(8, 8))


def hidden_layers(
    num_features: int, hidden: Sequence[int], *, dropout: float, activation: str = "relu"
) -> nn.Sequential:
    """Linear, activation, dropout for each width: `(B, num_features)` to `(B, hidden[-1])`.

    The dropout modules are there even at 0, so that no setting of it renames a weight.

    Raises:
        ConfigError: See `mlp`.

    Source: Krizhevsky, Sutskever & Hinton 2012, section 4.2: dropout acts on the outputs of hidden neurons.
    """
    if not 0 <= dropout < 1:
        raise ConfigError(f"model.dropout={dropout:g} is not in the range from 0 to below 1")
    if any(width < 1 for width in hidden):
        raise ConfigError(f"model.hidden={list(hidden)} holds a width below 1")
    if dropout > 0 and not hidden:
        raise ConfigError(
            f"model.dropout={dropout:g} has no effect without hidden layers",
            hint="give layers, as in model.hidden=[512], or set model.dropout=0",
        )
    if activation not in _ACTIVATIONS:
        raise ConfigError(f"model.activation={activation} is none of {', '.join(_ACTIVATIONS)}")
    if activation != "relu" and not hidden:
        raise ConfigError(f"model.activation={activation} has no effect without hidden layers")
    layers, make_activation = OrderedDict(), _ACTIVATIONS[activation]
    for index, width in enumerate(hidden, start=1):
        layers[f"fc{index}"] = nn.Linear(num_features, width)
        if make_activation is not None:
            layers[f"{activation}{index}"] = make_activation()
        layers[f"dropout{index}"] = nn.Dropout(dropout)
        num_features = width
    return nn.Sequential(layers)
