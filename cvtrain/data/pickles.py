"""Reads pickles of plain values without running them.

Does not know what the values mean, nor which file a pickle came from.
"""

from __future__ import annotations

import io
import pickle
import pickletools

import numpy as np

from cvtrain.errors import DataError

_MAX_MEMO = 10_000_000


def load_plain_pickle(content: bytes, where: str) -> dict[str, object]:
    """A pickled dictionary of numbers, text, bytes, lists, dictionaries and uint8 arrays; anything else is refused.

    No name in the pickle is ever looked up: the few that numpy's arrays need are acted out by `_Rebuild`.

    Args:
        content: The pickle.
        where: File name, for the message.

    Raises:
        DataError: It is damaged, no such dictionary, or asks for anything else.
    """
    try:
        _check_memo(content, where)
        value = _PlainUnpickler(io.BytesIO(content), where).load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{where} is damaged or cut short: {type(error).__name__}", hint="Fetch it again.") from error
    if not isinstance(value, dict):
        raise DataError(f"{where} holds no dictionary")
    return {_text(key): v.to_numpy(where) if isinstance(v, _PickledArray) else v for key, v in value.items()}


def _check_memo(content: bytes, where: str) -> None:
    """Refuses a pickle that makes the reader reserve memory for billions of slots."""
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ("PUT", "LONG_BINPUT") and argument > _MAX_MEMO:
            raise DataError(f"{where} was refused: it asks for {argument:,} memory slots")


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, where: str) -> None:
        super().__init__(file, encoding="bytes")
        self._where = where

    def find_class(self, module: str, name: str) -> object:
        if (module, name) not in _REBUILT:
            raise DataError(
                f"{self._where} was refused: it asks to run {ascii(module)[1:-1][:60]}.{ascii(name)[1:-1][:60]}",
                hint="This is no original file of the data set. Delete it, and do not trust where it came from.",
            )
        return _Rebuild(name)


_REBUILT = frozenset(
    {
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),  # how Python 3 writes bytes for Python 2
        *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
        *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
    }
)


class _Rebuild:
    """Stands for a function that array pickles call; its state cannot be changed by a pickle."""

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a function has no state")

    def __call__(self, *arguments: object) -> object:
        if self._name == "encode" and arguments[1:] == ("latin1",):
            return arguments[0].encode("latin1")
        if self._name == "dtype":
            return _PickledType(_text(arguments[0]))
        if self._name == "_reconstruct":
            return _PickledArray()
        if self._name == "_frombuffer":
            data, dtype, shape, order = arguments[:4]
            array = _PickledArray()
            array.__setstate__((1, shape, dtype, order == "F", data))
            return array
        raise pickle.UnpicklingError(f"{self._name} cannot be called so")


class _PickledType:
    __slots__ = ("code",)

    def __init__(self, code: str) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Byte order and the like; of no meaning for single bytes."""


class _PickledArray:
    __slots__ = ("_state",)

    def __setstate__(self, state: object) -> None:
        self._state = state

    def to_numpy(self, where: str) -> np.ndarray:
        """The array, if it is one of uint8; numpy's own unpickling is never used."""
        _, shape, dtype, columns_first, data = self._state
        if not isinstance(dtype, _PickledType) or dtype.code not in ("u1", "uint8"):
            raise DataError(f"{where} holds an array that is not of uint8")
        return np.frombuffer(data, np.uint8).reshape(shape, order="F" if columns_first else "C")


def _text(value: object) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
