"""The folder of recordings: names, room, what is there, and what a crash left behind. Thread-safe, blocking."""

from __future__ import annotations

import contextlib
import functools
import logging
import re
import secrets
import shutil
import threading
import unicodedata
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import av

from stream.config import RecordingConfig
from stream.errors import BadRequestError, ForbiddenError, NotFoundError, UnavailableError
from stream.fragment_file import RecordingError, trim
from stream.recording_file import AI_GENERATED, Ended, RecordingFile, RecordingLimits

logger = logging.getLogger(__name__)

SUFFIX = ".mp4"
PARTIAL = ".partial.mp4"  # being written, or left by a crash
ID = re.compile(r"[0-9]{8}-[0-9]{6}-[a-z0-9-]{1,40}-[0-9a-f]{16}")
TITLE_LENGTH = 100


@dataclass(frozen=True, kw_only=True)
class RecordingEntry:
    """A file of the folder. state: recording, complete, or partial (its program died; it plays up to there)."""

    id: str
    path: Path
    state: str
    bytes: int
    started: str
    title: str = ""
    portrait: str = ""
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "state": self.state,
            "title": self.title,
            "portrait": self.portrait,
            "started": self.started,
            "seconds": round(self.seconds, 2),
            "bytes": self.bytes,
            "url": f"/v1/recordings/{self.id}",
        }


class RecordingFolder:
    """Files named by time, portrait and 64 random bits: safe on every system, unique, and not to be guessed."""

    def __init__(self, config: RecordingConfig) -> None:
        self.config = config
        self.directory = Path(config.directory).expanduser()
        self._active: set[str] = set()
        self._lock = threading.Lock()

    # --- writing ---

    def check_allowed(self) -> None:
        if not self.config.allowed:
            raise ForbiddenError(
                "Clients may not begin or end recordings on this server; its operator can allow it "
                "(recording: allowed: true).",
                code="recording_off",
            )

    def create(self, *, title: str, portrait: str, part: int = 1) -> RecordingFile:
        """A new file with its metadata; raises `RecordingError` with a sentence."""
        config = self.config
        room = self._room_bytes()
        free_bytes = round(1e6 * config.min_free_megabytes)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.directory).free
        except OSError as error:
            raise RecordingError(
                f"The server's folder for recordings, {self.directory}, cannot be used ({error.strerror or error}); "
                "its operator can name another one (recording: directory)."
            ) from error
        if free < free_bytes:
            raise RecordingError(
                f"The server's disk has only {free / 1e6:.0f} MB left, and recording keeps "
                f"{config.min_free_megabytes:.0f} MB free; delete something first."
            )
        if room <= 0:
            raise RecordingError(_folder_full(config).message)
        now = datetime.now(UTC)
        name = re.sub(r"[^a-z0-9]+", "-", _ascii(portrait).lower()).strip("-")[:40].strip("-") or "portrait"
        recording_id = f"{now:%Y%m%d-%H%M%S}-{name}-{secrets.token_hex(8)}"
        title = clean_title(title) or f"{portrait}, {now:%Y-%m-%d %H:%M} UTC"
        tags = {
            "title": title if part == 1 else f"{title} ({part})",
            "artist": portrait,
            "date": now.strftime("%Y-%m-%d"),
            "creation_time": now.isoformat(timespec="seconds"),
            "comment": AI_GENERATED,
        }
        limits = RecordingLimits(
            max_seconds=60 * config.max_minutes,
            max_bytes=min(round(1e6 * config.max_megabytes), room),
            min_free_bytes=free_bytes,
        )
        with self._lock:
            self._active.add(recording_id)
        try:
            return RecordingFile(self.directory / f"{recording_id}{PARTIAL}", tags=tags, limits=limits)
        except RecordingError:
            with self._lock:
                self._active.discard(recording_id)
            raise

    def finish(self, path: Path) -> None:
        """A closed file gets its final name; one without a picture is gone already."""
        with self._lock:
            self._active.discard(_id_of(path))
        if path.exists():
            path.rename(path.with_name(_id_of(path) + SUFFIX))

    def check(self) -> Ended | None:
        """Whether the folder has grown to its limit."""
        return _folder_full(self.config) if self._room_bytes() <= 0 else None

    def _room_bytes(self) -> int:
        return round(1e6 * self.config.total_megabytes) - sum(size for _, size in self._files())

    # --- reading ---

    def adopt(self) -> list[RecordingEntry]:
        """At start-up: what a crash left unfinished, cut back to its last whole fragment."""
        found = []
        for path, _ in self._files():
            if path.name.endswith(PARTIAL):
                with path.open("r+b") as file:
                    trim(file)
                entry = self._entry(path)
                logger.warning("a recording was interrupted; it plays for %.0f s: %s", entry.seconds, path)
                found.append(entry)
        return found

    def entries(self) -> list[RecordingEntry]:
        """Newest first."""
        entries = [self._entry(path) for path, _ in self._files()]
        return sorted(entries, key=lambda entry: entry.id, reverse=True)

    @staticmethod
    def id_of(path: Path) -> str:
        return _id_of(path)

    def has(self, recording_id: str) -> bool:
        return any((self.directory / f"{recording_id}{suffix}").is_file() for suffix in (SUFFIX, PARTIAL))

    def get(self, recording_id: str) -> RecordingEntry:
        if ID.fullmatch(recording_id):
            for suffix in (SUFFIX, PARTIAL, SUFFIX):  # it may be renamed just now
                path = self.directory / f"{recording_id}{suffix}"
                if path.is_file():
                    return self._entry(path)
        raise NotFoundError(
            "There is no such recording; GET /v1/recordings lists them.", code="recording_not_found"
        )

    def delete(self, recording_id: str) -> None:
        entry = self.get(recording_id)
        if entry.state == "recording":
            raise BadRequestError("This recording is still running; stop it first.", code="recording_running")
        try:
            entry.path.unlink(missing_ok=True)
        except OSError as error:
            raise UnavailableError(
                f"The recording cannot be deleted ({error.strerror or error}).", code="delete_failed"
            ) from error

    def _files(self) -> list[tuple[Path, int]]:
        """Our own files and their sizes; others in the folder are left alone."""
        files = []
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):  # not there (yet)
            for path in self.directory.iterdir():
                if ID.fullmatch(_id_of(path)):
                    with contextlib.suppress(FileNotFoundError):  # deleted just now
                        files.append((path, path.stat().st_size))
        return files

    def _entry(self, path: Path) -> RecordingEntry:
        recording_id = _id_of(path)
        status = path.stat()
        active = recording_id in self._active
        state = "recording" if active else "partial" if path.name.endswith(PARTIAL) else "complete"
        about = _About() if active else _read(path, status.st_size, status.st_mtime_ns)
        started = datetime.strptime(recording_id[:15], "%Y%m%d-%H%M%S").replace(tzinfo=UTC)
        return RecordingEntry(
            id=recording_id,
            path=path,
            state=state,
            bytes=status.st_size,
            started=started.isoformat(timespec="seconds"),
            title=about.title,
            portrait=about.portrait,
            seconds=about.seconds,
        )


@dataclass(frozen=True)
class _About:
    title: str = ""
    portrait: str = ""
    seconds: float = 0.0


@functools.lru_cache(maxsize=1024)
def _read(path: Path, size: int, changed_ns: int) -> _About:
    """What the file says of itself. The last packet tells how long it plays: the head of a partial file cannot."""
    try:
        with av.open(str(path)) as container:
            end = 0.0
            if path.name.endswith(PARTIAL) or not container.duration:
                for packet in container.demux(video=0):
                    if packet.pts is not None and packet.time_base is not None:
                        end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            else:
                end = container.duration / 1e6
            return _About(container.metadata.get("title", ""), container.metadata.get("artist", ""), end)
    except (av.FFmpegError, OSError):
        return _About()


def clean_title(text: str) -> str:
    """One line without control characters, not too long."""
    printable = "".join(" " if unicodedata.category(letter)[0] == "C" else letter for letter in text)
    return re.sub(r"\s+", " ", printable).strip()[:TITLE_LENGTH]


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def _id_of(path: Path) -> str:
    return path.name.removesuffix(SUFFIX).removesuffix(".partial")


def _folder_full(config: RecordingConfig) -> Ended:
    return Ended(
        "folder_full",
        f"The server's folder for recordings holds the {config.total_megabytes:.0f} MB that it may; "
        "delete a recording first.",
    )
