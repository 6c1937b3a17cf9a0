"""Small JSON messages between the server and the model process, length first; the pictures stay in arenas."""

from __future__ import annotations

import json
import struct
from typing import Any

LENGTH = struct.Struct("!I")
MAX_WIRE_BYTES = 1 << 20


def pack(message: dict[str, Any]) -> bytes:
    body = json.dumps(message).encode()
    return LENGTH.pack(len(body)) + body


class Unpacker:
    """Bytes in, whole messages out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def push(self, data: bytes) -> list[dict[str, Any]]:
        self._buffer += data
        messages = []
        while len(self._buffer) >= LENGTH.size:
            (size,) = LENGTH.unpack_from(self._buffer)
            if size > MAX_WIRE_BYTES:
                raise ValueError(f"A message of {size} bytes between the processes cannot be right.")
            if len(self._buffer) < LENGTH.size + size:
                break
            messages.append(json.loads(self._buffer[LENGTH.size : LENGTH.size + size]))
            del self._buffer[: LENGTH.size + size]
        return messages
