"""What the driver and the process of a call say to each other: a kind and any content, over a socket.

Knows neither of the two. Only processes that the driver itself began hold the other end.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import struct
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from typing import Any

_HEAD = struct.Struct("!BQ")
"""Kind, and length of what follows."""

_READ_BYTES = 1 << 20

SETUP, FUNCTION, ARGUMENT, MESSAGE, DONE, FAILED, CANNOT_BEGIN = range(7)


def packed(kind: int, content: Any) -> bytes:
    """A frame; whatever content cannot be pickled raises here."""
    data = pickle.dumps(content)
    return _HEAD.pack(kind, len(data)) + data


def unpacked(data: bytes) -> Any:
    """The content of a frame; whatever its classes raise as they are put together again is raised."""
    return ForkingPickler.loads(data)


def receive(connection: socket.socket) -> bytes:
    """Waits for one frame and returns what can be unpacked.

    Raises:
        EOFError: The other end has closed.
    """
    _, length = _HEAD.unpack(_receive_exactly(connection, _HEAD.size))
    return _receive_exactly(connection, length)


def _receive_exactly(connection: socket.socket, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        part = connection.recv(min(length - len(data), _READ_BYTES))
        if not part:
            raise EOFError
        data += part
    return bytes(data)


class Inbox:
    """Frames as they come, without ever waiting: a process may be stopped, or die, in the middle of one."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._data = bytearray()
        self.is_closed = False

    def read(self) -> bool:
        """Takes in some of what has come; returns whether there was anything."""
        with contextlib.suppress(BlockingIOError):
            try:
                part = self._connection.recv(_READ_BYTES, socket.MSG_DONTWAIT)
            except ConnectionError:
                part = b""
            self._data += part
            self.is_closed = not part
            return bool(part)
        return False

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """The frames that are complete, each once."""
        while len(self._data) >= _HEAD.size:
            kind, length = _HEAD.unpack_from(self._data)
            end = _HEAD.size + length
            if len(self._data) < end:
                return
            data = bytes(self._data[_HEAD.size : end])
            del self._data[:end]
            yield kind, data
