"""Messages between the server and its own processes: msgpack, length first."""

from __future__ import annotations

import struct
from typing import Generic, TypeVar

import msgspec

LENGTH = struct.Struct("!I")
MAX_WIRE_BYTES = 1 << 27

MessageT = TypeVar("MessageT")
_encoder = msgspec.msgpack.Encoder()


def pack(message: msgspec.Struct) -> bytes:
    body = _encoder.encode(message)
    return LENGTH.pack(len(body)) + body


class Unpacker(Generic[MessageT]):
    """Bytes in, whole messages of the given union of types out; ValueError for anything else."""

    def __init__(self, kinds: type[MessageT]) -> None:
        self._decoder = msgspec.msgpack.Decoder(kinds)
        self._buffer = bytearray()

    def push(self, data: bytes) -> list[MessageT]:
        self._buffer += data
        messages = []
        while len(self._buffer) >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._buffer)
            if size > MAX_WIRE_BYTES:
                raise ValueError(f"A message of {size} bytes between the processes cannot be right.")
            if len(self._buffer) < LENGTH.size + size:
                break
            messages.append(self._decoder.decode(self._buffer[LENGTH.size : LENGTH.size + size]))
            del self._buffer[: LENGTH.size + size]
        return messages
