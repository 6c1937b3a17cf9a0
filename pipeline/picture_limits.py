"""How large a picture may be; `limits.portrait_*` of the server's configuration changes it for uploads."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PictureLimits:
    """bytes: of the file. pixels: of a picture that can be decoded small, a baseline JPEG (phones make 24, 48 and 200
    megapixels). whole_pixels: of any other, which is in memory as a whole for a moment: PNG, WebP, progressive JPEG."""

    bytes: int = 64_000_000
    pixels: int = 208_000_000
    whole_pixels: int = 52_000_000


LIMITS = PictureLimits()
