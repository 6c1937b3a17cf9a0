"""Portraits on disk: found again, whole or not there, and never without the consent that was given."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from stream.portraits import portrait_store
from stream.portraits.picture_files import ORPHAN_AGE_S
from stream.portraits.portrait_store import INDEX, KeptPictureError, PortraitStore, StoreError
from tests.streaming.uploads import kept, picture

ROOT = Path(__file__).parents[2]


def opened(folder: Path | None) -> PortraitStore:
    store = PortraitStore(folder)
    store.open()
    return store


def files(folder: Path) -> set[str]:
    return {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if path.is_file() and INDEX not in path.name
    }


def make_old(folder: Path) -> None:
    """As if every file had been written hours ago."""
    then = time.time() - ORPHAN_AGE_S - 60
    for path in folder.rglob("*"):
        if path.is_file() and INDEX not in path.name:
            os.utime(path, (then, then))


def test_what_was_added_is_there_after_a_restart_in_its_order(tmp_path: Path) -> None:
    data = [picture(level=level) for level in (10, 20, 30)]
    store = opened(tmp_path)
    added = [store.add(kept(i, d, name=f"P{i}"), d, b"thumb") for i, d in enumerate(data)]
    store.order([added[2].id, added[0].id, added[1].id])
    store.rename(added[0].id, "Renamed")
    store.close()
    again = opened(tmp_path)
    assert [item.name for item in again.portraits()] == ["P2", "Renamed", "P1"]
    for item, expected in zip(again.portraits(), (data[2], data[0], data[1]), strict=True):
        assert again.picture(item) == expected
        assert again.thumbnail(item) == b"thumb"
        assert item.consent.given_by == "Eve Example"
        assert "permission" in item.consent.statement
    if os.name == "posix":
        assert (tmp_path / INDEX).stat().st_mode & 0o077 == 0
        assert all(path.stat().st_mode & 0o077 == 0 for path in (tmp_path / "pictures").iterdir())
    again.close()


def test_the_consent_survives_the_picture_and_cannot_be_changed(tmp_path: Path) -> None:
    data = picture()
    store = opened(tmp_path)
    item = store.add(kept(1, data), data, b"thumb")
    store.delete(item)
    store.delete(item)
    assert files(tmp_path) == set()
    assert store.portraits() == []
    (record,) = store.consents()
    assert (record["portrait"], record["given_by"], record["sha256_stored"]) == (
        item.id,
        "Eve Example",
        item.sha256_stored,
    )
    assert record["removed_at"] is not None
    store.close()
    with sqlite3.connect(tmp_path / INDEX) as database:
        with pytest.raises(sqlite3.IntegrityError, match="never deleted"):
            database.execute("DELETE FROM consents")
        with pytest.raises(sqlite3.IntegrityError, match="never changed"):
            database.execute("UPDATE consents SET given_by = 'Mallory'")
    database.close()


def test_a_portrait_without_consent_cannot_be_written(tmp_path: Path) -> None:
    store = opened(tmp_path)
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        store._connection.execute(
            "INSERT INTO portraits VALUES ('up-1', 'Eve', 0, 'now', 'up-1.jpg', 'image/jpeg', '{}')"
        )
    store.close()


CRASH = """
import os, sys
from pathlib import Path
from stream.portraits import picture_files, portrait_store
from stream.portraits.portrait_store import PortraitStore
from tests.streaming.uploads import kept, picture

point, folder = sys.argv[1], Path(sys.argv[2])
die = lambda *arguments, **options: os._exit(9)
store = PortraitStore(folder)
store.open()
first = store.add(kept(1, picture()), picture(), b"thumb")
if point == "half a file":
    os.fsync = die
elif point == "file not in place":
    os.replace = die
elif point == "picture without thumbnail":
    write = picture_files.PictureFiles.write
    def once(self, name, data):
        write(self, name, data)
        die()
    picture_files.PictureFiles.write = once
elif point == "files without row":
    PortraitStore._insert = die
elif point == "row not committed":
    portrait_store.json.dumps = die
elif point == "deleted row with files":
    PortraitStore._remove_files = die
    store.delete(first)
store.add(kept(2, picture()), picture(), b"thumb")
"""


@pytest.mark.parametrize(
    "point",
    [
        "half a file",
        "file not in place",
        "picture without thumbnail",
        "files without row",
        "row not committed",
        "deleted row with files",
    ],
)
def test_a_process_that_dies_leaves_nothing_broken(point: str, tmp_path: Path) -> None:
    died = subprocess.run([sys.executable, "-c", CRASH, point, str(tmp_path)], cwd=ROOT)
    assert died.returncode == 9
    left = files(tmp_path)
    assert len(left) > (0 if point == "deleted row with files" else 2)
    make_old(tmp_path)
    store = opened(tmp_path)
    rows = store.portraits()
    assert len(rows) == (0 if point == "deleted row with files" else 1)
    for row in rows:
        assert store.picture(row) == picture()
    assert len(files(tmp_path)) == 2 * len(rows)
    assert len(store.consents()) == 1
    item = store.add(kept(2, picture()), picture(), b"thumb")  # the same again works
    assert item in store.portraits()
    store.close()


def test_files_of_a_server_that_is_just_writing_are_not_swept(tmp_path: Path) -> None:
    opened(tmp_path).close()
    (tmp_path / "pictures" / "up-9.jpg").write_bytes(b"another server's, whose row comes in a moment")
    opened(tmp_path).close()
    assert (tmp_path / "pictures" / "up-9.jpg").exists()


def test_a_full_disk_leaves_neither_row_nor_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stream.portraits.picture_files.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.add(kept(1, picture()), picture(), b"thumb")
    monkeypatch.undo()
    assert files(tmp_path) == set()
    assert store.consents() == []
    assert store.add(kept(1, picture()), picture(), b"thumb").position == 0
    store.close()


def test_missing_and_changed_pictures_are_told_apart(tmp_path: Path) -> None:
    store = opened(tmp_path)
    item = store.add(kept(1, picture()), picture(), b"thumb")
    path = tmp_path / "pictures" / item.file_name
    path.write_bytes(picture(level=3))
    with pytest.raises(KeptPictureError, match="not the one to which consent was given"):
        store.picture(item)
    path.unlink()
    with pytest.raises(KeptPictureError, match=r"is missing .*upload it again\."):
        store.picture(item)
    path.mkdir()
    with pytest.raises(KeptPictureError, match="cannot be read"):
        store.picture(item)
    store.close()


def test_an_index_that_cannot_be_used_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / INDEX).write_bytes(b"This is a letter, not a database." * 100)
    with pytest.raises(StoreError, match=r"cannot be used \(file is not a database\)"):
        opened(tmp_path)
    assert (tmp_path / INDEX).read_bytes().startswith(b"This is a letter")
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(StoreError, match="TALKALONG_UPLOADS"):
        opened(tmp_path / "taken")


def test_schema_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path)
    item = store.add(kept(1, picture()), picture(), b"thumb")
    store.close()
    with monkeypatch.context() as newer:
        newer.setattr(
            portrait_store,
            "MIGRATIONS",
            (
                *portrait_store.MIGRATIONS,
                "ALTER TABLE portraits ADD COLUMN mood TEXT NOT NULL DEFAULT 'calm';",
            ),
        )
        later = opened(tmp_path)
        assert later.portraits() == [item]
        assert later._connection.execute("SELECT mood FROM portraits").fetchone()[0] == "calm"
        later.close()
    with pytest.raises(StoreError, match="newer Talkalong"):
        opened(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(portrait_store, "MIGRATIONS", (*portrait_store.MIGRATIONS, "SELECT 1;", "NONSENSE;"))
        with pytest.raises(StoreError, match="NONSENSE"):
            opened(tmp_path)
    with sqlite3.connect(tmp_path / INDEX) as database:
        assert database.execute("PRAGMA user_version").fetchone()[0] == 2  # all or nothing
    database.close()


def test_two_servers_may_share_a_folder(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def add(first: int) -> None:
        try:
            store = opened(tmp_path)
            for number in range(first, first + 6):
                store.add(kept(number, picture()), picture(), b"thumb")
            store.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=add, args=(first,)) for first in (0, 100, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    store = opened(tmp_path)
    rows = store.portraits()
    assert sorted(row.position for row in rows) == list(range(18))
    assert all(store.picture(row) == picture() for row in rows)
    store.close()


def test_in_memory_there_are_no_files_but_consents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = opened(None)
    item = store.add(kept(1, b""), b"", b"")
    store.delete(item)
    assert [record["given_by"] for record in store.consents()] == ["Eve Example"]
    store.close()
    assert list(tmp_path.iterdir()) == []
