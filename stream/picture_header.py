"""What a picture file says about itself, judged before a pixel is decoded."""

from __future__ import annotations

from pipeline.picture import PictureTooLargeError, PortraitError, opened
from stream.errors import PictureRefusedError, TooLargeError


def check_header(data: bytes, *, max_bytes: int, max_pixels: int) -> None:
    """Raises a StreamError for what is too large, or no JPEG, PNG or WebP file."""
    if len(data) > max_bytes:
        raise TooLargeError(
            f"The picture has {len(data) / 1e6:.1f} MB; {max_bytes / 1e6:.0f} MB are accepted at most.",
            code="picture_too_large",
        )
    try:
        with opened(data) as image:
            width, height = image.size
    except PictureTooLargeError as error:
        raise TooLargeError(str(error), code="picture_too_large") from error
    except PortraitError as error:
        raise PictureRefusedError(str(error), code="not_an_image") from error
    if width * height > max_pixels:
        raise TooLargeError(
            f"The picture has {width} x {height} pixels; {max_pixels // 10**6} megapixels are "
            "accepted at most. Make it smaller and try again.",
            code="picture_too_large",
        )
