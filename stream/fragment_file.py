"""A file that FFmpeg writes an MP4 of fragments to, and that ends with a whole one whatever happens to the disk."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import BinaryIO


class RecordingError(Exception):
    """A recording that cannot begin; the text says why and what to do."""


class FragmentFile:
    """The file that FFmpeg writes to. An error is kept instead of raised: the file is cut back to its last whole
    fragment, and what comes after is swallowed."""

    def __init__(self, path: Path) -> None:
        self.error: BaseException | None = None
        self.playable = True
        self.size = 0
        try:
            self._file = path.open("x+b", buffering=0)
        except FileExistsError as error:
            raise RecordingError(
                f"{path} exists already; choose another name, nothing is overwritten."
            ) from error
        except OSError as error:
            reason = error.strerror or error
            raise RecordingError(
                f"{path} cannot be written ({reason}); is its folder there, and may you write into it?"
            ) from error

    def write(self, data: bytes) -> int:
        left = memoryview(data)
        while len(left) and self.error is None:
            try:
                left = left[self._file.write(left) :]
            except OSError as error:
                self.fail(error)
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fail(self, error: BaseException) -> None:
        if self.error is None:
            self.error = error
            self.playable = trim(self._file)

    def close(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            self.fail(error)
        self.size = self._file.seek(0, os.SEEK_END)
        self._file.close()


def trim(file: BinaryIO) -> bool:
    """Cut an MP4 that was being written when its program died back to its last whole fragment; False if it has none."""
    size = file.seek(0, os.SEEK_END)
    at = whole = media = 0
    while at + 16 <= size:
        file.seek(at)
        header = file.read(16)
        length, kind = struct.unpack(">I4s", header[:8])
        if length == 1:
            length = struct.unpack(">Q", header[8:])[0]
        if length < 8 or at + length > size:
            break
        at += length
        if kind in (b"mdat", b"moov"):
            whole = at
            media += kind == b"mdat"
    if 0 < whole < size:
        file.truncate(whole)
    return media > 0
