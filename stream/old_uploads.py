"""Uploads of the first layout: `ID.picture` (the file as uploaded) and `ID.consent.json` in one folder.

They are taken over once: a picture that can be used becomes a portrait with the consent that was given then, a consent
without its picture becomes a record. What was taken over is removed, as the old pictures still hold what cameras write
into them; what cannot be is left where it is, and named in the log.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from stream.consent import Consent, in_own_words
from stream.errors import BadRequestError

PICTURE, CONSENT = ".picture", ".consent.json"


class OldUploadError(ValueError):
    """An old upload that cannot be taken over; says which and why."""


@dataclass(frozen=True, kw_only=True)
class OldUpload:
    """picture is None where it was deleted: then only the consent is left."""

    id: str
    picture: bytes | None
    sha256: str
    consent: Consent
    folder: Path

    def remove(self) -> None:
        """Idempotent. The consent last: without it the picture could not be taken over."""
        (self.folder / f"{self.id}{PICTURE}").unlink(missing_ok=True)
        (self.folder / f"{self.id}{CONSENT}").unlink(missing_ok=True)


def old_upload_ids(folder: Path) -> list[str]:
    names = (path.name for path in folder.glob("up-*"))
    return sorted({name.split(".")[0] for name in names if name.endswith((PICTURE, CONSENT))})


def read_old_upload(folder: Path, upload_id: str) -> OldUpload:
    """Raises OldUploadError."""
    path = folder / f"{upload_id}{CONSENT}"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        consent = in_own_words(record["consent"], given_by="", means="import", given_at=record["time"])
        sha256 = str(record["sha256"])
    except FileNotFoundError as error:
        raise OldUploadError(f"the picture {upload_id} in {folder} has no record of consent") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, BadRequestError) as error:
        raise OldUploadError(f"{path} is not a record of consent that can be read ({error})") from error
    try:
        picture = (folder / f"{upload_id}{PICTURE}").read_bytes()
    except FileNotFoundError:
        picture = None
    except OSError as error:
        raise OldUploadError(f"the picture {upload_id} in {folder} cannot be read ({error})") from error
    if picture is not None and hashlib.sha256(picture).hexdigest() != sha256:
        raise OldUploadError(f"the picture {upload_id} in {folder} is not the one to which consent was given")
    return OldUpload(id=upload_id, picture=picture, sha256=sha256, consent=consent, folder=folder)
