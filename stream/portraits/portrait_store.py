"""Uploaded portraits on disk: an SQLite index, pictures and thumbnails as files beside it.

    FOLDER/index.sqlite3          names, order, hashes, what was found; consents, append-only
    FOLDER/pictures/ID.jpg|png    upright, without metadata, transparency kept
    FOLDER/thumbnails/ID.jpg
    FOLDER/prepared/ID.safetensors   what is drawn from; made anew where it is missing or of another model

A picture is added file first, row second, and deleted row first, files second: whenever the process dies, every row
has its files, and files without a row are swept at the next start. A consent record has no foreign key and survives
its picture: whoever is asked later about a recording made with it must still be able to say who agreed.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from stream.portraits.consent import Consent, Means, now
from stream.portraits.picture_files import PictureFiles

logger = logging.getLogger(__name__)

INDEX = "index.sqlite3"
BUSY_TIMEOUT_S = 5.0
MIGRATIONS = (
    """
    CREATE TABLE consents (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        portrait TEXT NOT NULL UNIQUE,
        given_by TEXT NOT NULL,
        statement_version TEXT NOT NULL,
        statement TEXT NOT NULL,
        given_at TEXT NOT NULL,
        means TEXT NOT NULL CHECK (means IN ('page', 'api', 'import')),
        sha256_uploaded TEXT NOT NULL,
        sha256_stored TEXT NOT NULL
    );
    CREATE TRIGGER consents_stay BEFORE DELETE ON consents
        BEGIN SELECT RAISE(ABORT, 'consent records are never deleted'); END;
    CREATE TRIGGER consents_are_final BEFORE UPDATE ON consents
        BEGIN SELECT RAISE(ABORT, 'consent records are never changed'); END;
    CREATE TABLE removals (
        portrait TEXT NOT NULL PRIMARY KEY,
        removed_at TEXT NOT NULL
    );
    CREATE TABLE portraits (
        id TEXT NOT NULL PRIMARY KEY REFERENCES consents (portrait),
        name TEXT NOT NULL,
        position INTEGER NOT NULL,
        added_at TEXT NOT NULL,
        picture TEXT NOT NULL,
        media_type TEXT NOT NULL,
        found TEXT NOT NULL
    );
    """,
)
"""One script per schema version, `PRAGMA user_version` counts them."""


class StoreError(RuntimeError):
    """The folder or its index cannot be used; nothing in it was changed. The message is a sentence."""


class KeptPictureError(RuntimeError):
    """One picture of the store cannot be used; the message says why and what to do."""


@dataclass(frozen=True, kw_only=True)
class KeptPortrait:
    """A row of the index with its consent. added_at: UTC, ISO 8601. The hashes are SHA-256: of the picture as it was
    uploaded, and as it is stored."""

    id: str
    name: str
    media_type: str
    sha256_uploaded: str
    sha256_stored: str
    found: dict[str, Any]
    consent: Consent
    added_at: str
    position: int = 0

    @property
    def file_name(self) -> str:
        return f"{self.id}.{'png' if self.media_type == 'image/png' else 'jpg'}"


class PortraitStore:
    """One connection: to be used by one thread at a time. folder None: everything in memory, and no files."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._pictures = PictureFiles(folder / "pictures") if folder else None
        self._thumbnails = PictureFiles(folder / "thumbnails") if folder else None
        self._prepared = PictureFiles(folder / "prepared") if folder else None
        self._database: sqlite3.Connection | None = None

    def open(self) -> None:
        """Create or open, migrate, sweep up after crashes; raises StoreError. Idempotent."""
        if self._database is not None:
            return
        try:
            for files in self._files:
                files.create()
            self._database = self._connect()
            self._migrate()
            self._sweep()
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise StoreError(
                f"The portraits kept in {self.folder} cannot be used ({error}). Make the folder readable and writable "
                "for this user, restore it from a copy, or name another one (TALKALONG_UPLOADS)."
            ) from error
        except StoreError:
            self.close()
            raise

    def close(self) -> None:
        """Idempotent."""
        database, self._database = self._database, None
        if database is not None:
            database.close()

    def add(self, kept: KeptPortrait, picture: bytes, thumbnail: bytes) -> KeptPortrait:
        """Consent and portrait become known together, after the files are safe; the portrait with its place."""
        try:
            if self._pictures is not None and self._thumbnails is not None:
                self._pictures.write(kept.file_name, picture)
                self._thumbnails.write(f"{kept.id}.jpg", thumbnail)
            return self._insert(kept)
        except BaseException:
            self._remove_files(kept)
            raise

    def _insert(self, kept: KeptPortrait) -> KeptPortrait:
        consent = kept.consent
        with self._transaction() as database:
            (position,) = database.execute("SELECT coalesce(max(position) + 1, 0) FROM portraits").fetchone()
            database.execute(
                "INSERT INTO consents (portrait, given_by, statement_version, statement, given_at, means, "
                "sha256_uploaded, sha256_stored) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    kept.id, consent.given_by, consent.statement_version, consent.statement, consent.given_at,
                    consent.means, kept.sha256_uploaded, kept.sha256_stored,
                ),
            )  # fmt: skip
            database.execute(
                "INSERT INTO portraits (id, name, position, added_at, picture, media_type, found) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    kept.id, kept.name, position, kept.added_at, kept.file_name, kept.media_type,
                    json.dumps(kept.found),
                ),
            )  # fmt: skip
        return replace(kept, position=position)

    def portraits(self) -> list[KeptPortrait]:
        """In their order."""
        rows = self._connection.execute(
            "SELECT * FROM portraits JOIN consents ON portraits.id = consents.portrait ORDER BY position, added_at, id"
        )
        return [_kept(row) for row in rows]

    def picture(self, kept: KeptPortrait) -> bytes:
        """The file as it was when consent was given to it; raises KeptPictureError."""
        assert self._pictures is not None, "in memory there are no files"
        path = self._pictures.folder / kept.file_name
        try:
            data = self._pictures.read(kept.file_name)
        except FileNotFoundError as error:
            raise KeptPictureError(
                f"The picture of '{kept.name}' is missing ({path}). Restore the file, or delete the portrait and "
                "upload it again."
            ) from error
        except OSError as error:
            raise KeptPictureError(
                f"The picture of '{kept.name}' cannot be read ({path}: {error.strerror or error}). Check the file, or "
                "delete the portrait and upload it again."
            ) from error
        if hashlib.sha256(data).hexdigest() != kept.sha256_stored:
            raise KeptPictureError(
                f"The picture of '{kept.name}' ({path}) is not the one to which consent was given: it was changed or "
                "damaged. Restore the file, or delete the portrait and upload it again."
            )
        return data

    def thumbnail(self, kept: KeptPortrait) -> bytes | None:
        """JPEG; None if there is none that can be read."""
        if self._thumbnails is None:
            return None
        try:
            return self._thumbnails.read(f"{kept.id}.jpg")
        except OSError:
            return None

    def write_thumbnail(self, kept: KeptPortrait, thumbnail: bytes) -> None:
        if self._thumbnails is not None:
            self._thumbnails.write(f"{kept.id}.jpg", thumbnail)

    def prepared(self, kept: KeptPortrait) -> bytes | None:
        """`PreparedPortrait` as a file; None if there is none that can be read."""
        if self._prepared is None:
            return None
        try:
            return self._prepared.read(f"{kept.id}.safetensors")
        except OSError:
            return None

    def write_prepared(self, kept: KeptPortrait, prepared: bytes) -> None:
        if self._prepared is not None:
            self._prepared.write(f"{kept.id}.safetensors", prepared)

    def rename(self, portrait_id: str, name: str) -> None:
        with self._transaction() as database:
            database.execute("UPDATE portraits SET name = ? WHERE id = ?", (name, portrait_id))

    def order(self, ids: list[str]) -> None:
        """These first, in this order."""
        with self._transaction() as database:
            for position, portrait_id in enumerate(ids):
                database.execute("UPDATE portraits SET position = ? WHERE id = ?", (position, portrait_id))

    def delete(self, kept: KeptPortrait) -> None:
        """Row, then files; the consent stays. Idempotent."""
        with self._transaction() as database:
            deleted = database.execute("DELETE FROM portraits WHERE id = ?", (kept.id,))
            if deleted.rowcount:
                database.execute("INSERT OR IGNORE INTO removals VALUES (?, ?)", (kept.id, now()))
        self._remove_files(kept)

    def _remove_files(self, kept: KeptPortrait) -> None:
        if self._pictures is not None and self._thumbnails is not None and self._prepared is not None:
            self._pictures.remove(kept.file_name)
            self._thumbnails.remove(f"{kept.id}.jpg")
            self._prepared.remove(f"{kept.id}.safetensors")

    def consents(self) -> list[dict[str, Any]]:
        """Every record ever made, oldest first; removed_at is None while the portrait is there."""
        rows = self._connection.execute(
            "SELECT consents.*, removed_at FROM consents LEFT JOIN removals USING (portrait) ORDER BY number"
        )
        return [dict(row) for row in rows]

    # --- inside ---

    @property
    def _files(self) -> list[PictureFiles]:
        return [files for files in (self._pictures, self._thumbnails, self._prepared) if files is not None]

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._database is None:
            raise sqlite3.ProgrammingError("the store is closed")
        return self._database

    def _connect(self) -> sqlite3.Connection:
        name = ":memory:" if self.folder is None else str(self.folder / INDEX)
        # Autocommit: transactions are begun by name below. One thread at a time, not always the same.
        database = sqlite3.connect(
            name, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            database.row_factory = sqlite3.Row
            if self.folder is not None and os.name != "nt":
                (self.folder / INDEX).chmod(0o600)
            _use_write_ahead_log(database)
            database.execute("PRAGMA synchronous = FULL")
            database.execute("PRAGMA foreign_keys = ON")
        except BaseException:
            database.close()
            raise
        return database

    def _migrate(self) -> None:
        with self._transaction() as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version > len(MIGRATIONS):
                raise StoreError(
                    f"The portraits kept in {self.folder} were written by a newer Talkalong (schema {version}, this "
                    f"one knows {len(MIGRATIONS)}). Update Talkalong, or name another folder (TALKALONG_UPLOADS)."
                )
            for script in MIGRATIONS[version:]:
                for statement in _statements(script):
                    database.execute(statement)
            database.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _sweep(self) -> None:
        if self._pictures is None or self._thumbnails is None or self._prepared is None:
            return
        kept = self.portraits()
        swept = self._pictures.sweep({item.file_name for item in kept})
        swept += self._thumbnails.sweep({f"{item.id}.jpg" for item in kept})
        swept += self._prepared.sweep({f"{item.id}.safetensors" for item in kept})
        if swept:
            logger.warning("removed %d files without a portrait, left by a crash: %s", len(swept), swept)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        database = self._connection
        database.execute("BEGIN IMMEDIATE")
        try:
            yield database
            database.execute("COMMIT")
        except BaseException:
            if database.in_transaction:
                database.execute("ROLLBACK")
            raise


def _statements(script: str) -> Iterator[str]:
    """The script's statements; a trigger, which has semicolons inside, is one."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if statement.strip() and sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _use_write_ahead_log(database: sqlite3.Connection) -> None:
    """SQLite does not wait for others that open a new index at this moment, whatever the timeout: it says locked."""
    give_up = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up:
                raise
            time.sleep(0.01)


def _kept(row: sqlite3.Row) -> KeptPortrait:
    consent = Consent(
        given_by=row["given_by"],
        statement_version=row["statement_version"],
        statement=row["statement"],
        given_at=row["given_at"],
        means=cast(Means, row["means"]),
    )
    return KeptPortrait(
        id=row["id"],
        name=row["name"],
        media_type=row["media_type"],
        sha256_uploaded=row["sha256_uploaded"],
        sha256_stored=row["sha256_stored"],
        found=json.loads(row["found"]),
        consent=consent,
        added_at=row["added_at"],
        position=row["position"],
    )
