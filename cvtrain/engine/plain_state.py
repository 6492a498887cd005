"""What a file of tensors may hold: a sound archive, plain values, ordinary tensors, as many as have room in it.

Knows nothing of what the values mean. `torch.load(weights_only=True)` runs no code of a file, but it unpacks what is
packed, and it gives whatever tensors the file describes: ones that claim terabytes, or that no kernel is made for.
"""

from __future__ import annotations

import math
import os
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any, BinaryIO

import torch
from torch import Tensor

MAX_DEPTH = 50
"""Containers in each other; our own states have less than ten."""
MAX_VALUES = 1_000_000
"""Values in all: about a second for whoever looks at each."""
MAX_TEXT = 100_000
"""Characters of one text."""
MAX_BITS = 128
"""Of a whole number."""

_RULED = ("lr", "initial_lr")
"""Of the settings of an optimizer those that the schedule changes."""
_KERNELS = ("foreach", "fused", "capturable")
"""And those that depend on the device."""
_FACTORS = ("row_var", "col_var")
"""What Adafactor keeps of a matrix: its rows, and its columns. Source: torch.optim.Adafactor."""

_PLAIN = (str, int, float, bool, type(None))
_NUMBERS = (
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16),
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
)


def check_archive(file: BinaryIO) -> None:
    """Looks at the directory of a file of `torch.save`, before anything in it is read.

    Its members are never compressed: one that is may unpack to any size. Each lies in a place of its own.

    Raises:
        ValueError: In words that go after "it is no checkpoint:".
    """
    num_bytes = file.seek(0, os.SEEK_END)
    file.seek(0)
    if file.read(4) != b"PK\x03\x04":
        raise ValueError("it is no file of torch.save")
    try:
        with zipfile.ZipFile(file) as archive:
            members = sorted(archive.infolist(), key=lambda member: member.header_offset)
    except Exception as error:  # a damaged directory makes the reader fail in any way
        raise ValueError(f"its directory is damaged: {type(error).__name__}") from None
    end = 0
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise ValueError("parts of it are compressed")
        if member.header_offset < end:
            raise ValueError("two parts of it lie at one place")
        end = member.header_offset + member.file_size
        if end > num_bytes:
            raise ValueError("a part of it is larger than the file")
    if any(member.filename.endswith("/constants.pkl") for member in members):
        raise ValueError("it is a program of torch.jit.save")
    if len({member.filename for member in members}) < len(members):
        raise ValueError("two parts of it have one name")


def check_plain(state: Any, *, num_bytes: int) -> None:
    """Looks at every value that was read from a file.

    Args:
        state: Dictionaries, lists and tuples of text, numbers and tensors.
        num_bytes: Length of the file: its tensors cannot be larger, apart from those that are there twice.

    Raises:
        ValueError: In words that name the place.
    """
    most, num_tensor_bytes = 2 * num_bytes + (1 << 20), 0
    for num_values, (path, value, depth) in enumerate(_walk(state), 1):
        if num_values > MAX_VALUES:
            raise ValueError(f"it holds more than {MAX_VALUES:,} values")
        if depth > MAX_DEPTH:
            raise ValueError(f"{path} holds containers in each other without end")
        problem = _problem(value)
        if problem:
            raise ValueError(f"{path[:60] or 'it'} {problem}")
        if type(value) is Tensor:
            num_tensor_bytes += value.nbytes
            if num_tensor_bytes > most:
                raise ValueError("its tensors claim to be larger than the file is")


def _walk(state: Any) -> Iterator[tuple[str, Any, int]]:
    """Place, value and depth of everything; without recursion, since a file may be nested as deep as it likes."""
    left = [("", state, 0)]
    while left:
        path, value, depth = left.pop()
        yield path, value, depth
        if type(value) in (dict, OrderedDict):
            left += [(f"{path}.{key}" if path else str(key), item, depth + 1) for key, item in value.items()]
        elif type(value) in (list, tuple):
            left += [(path, item, depth + 1) for item in value]


def _problem(value: Any) -> str | None:
    """What is wrong with a value, whatever a container holds; subclasses may do anything, and are nothing plain."""
    kind = type(value)
    if kind in (dict, OrderedDict):
        odd = [key for key in value if type(key) not in (str, int) or not _is_short(key)]
        return "has a key that is no short text and no number" if odd else None
    if kind in (list, tuple):
        return None
    if kind is Tensor:
        return _tensor_problem(value)
    if kind not in _PLAIN:
        return f"is a {kind.__name__[:40]}, no plain value"
    return None if _is_short(value) else "is a text or number longer than any that belongs there"


def _is_short(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_TEXT
    return not isinstance(value, int) or value.bit_length() <= MAX_BITS


def _tensor_problem(tensor: Tensor) -> str | None:
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.dtype not in _NUMBERS:
        return f"is a tensor of {tensor.dtype}, {tensor.layout}: none of ordinary numbers"
    if tensor.device.type != "cpu":
        return f"is a tensor on the device {tensor.device.type}, without numbers"
    return None if _is_dense(tensor) else "is a tensor that shows the same numbers at several places"


def _is_dense(tensor: Tensor) -> bool:
    """Whether every number has a place of its own in memory, and none lies between them, in whatever order."""
    step = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size > 1 and stride != step:
            return False
        step *= size
    return step == 0 or math.prod(tensor.shape) == step


def check_fits_optimizer(saved: Any, optimizer: torch.optim.Optimizer) -> None:
    """Looks at the state of an optimizer before it is loaded: its kernels do not ask whether shapes agree.

    Args:
        saved: As `optimizer.state_dict()` gives it.
        optimizer: Made by the settings of the run.

    Raises:
        ValueError: A tensor that is not of the shape of its parameter, or a setting of another kind.
    """
    own = optimizer.state_dict()["param_groups"]
    groups = saved["param_groups"]
    if len(groups) != len(own) or [len(g["params"]) for g in groups] != [len(g["params"]) for g in own]:
        raise ValueError("the optimizer has other parameters")
    for group, ours in zip(groups, own, strict=True):
        for name in group.keys() & ours.keys() - {"params"}:
            if name in _RULED:
                is_wrong = not _is_finite_number(group[name])
            elif name in _KERNELS:
                is_wrong = group[name] not in (None, True, False)
            else:
                is_wrong = _plain(group[name]) != _plain(ours[name])
            if is_wrong:
                raise ValueError(f"{name} of the optimizer is {str(group[name])[:40]}")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, state in saved["state"].items():
        shape = parameters[number].shape
        for name, value in state.items():
            if isinstance(value, Tensor) and not _is_of(shape, value, is_factor=name in _FACTORS):
                raise ValueError(f"{name} of the optimizer is of another shape than its parameter")


def _is_of(shape: torch.Size, value: Tensor, *, is_factor: bool) -> bool:
    if is_factor and value.dim() == len(shape):
        return all(size in (1, whole) for size, whole in zip(value.shape, shape, strict=True))
    return value.shape in (shape, torch.Size())


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _is_finite_number(value: Any) -> bool:
    return isinstance(value, int | float | Tensor) and math.isfinite(value)
