"""What a picture file says about itself, judged before a pixel is decoded."""

from __future__ import annotations

from pipeline.picture import PictureTooLargeError, PortraitError, judged
from pipeline.picture_limits import PictureLimits
from stream.errors import PictureRefusedError, TooLargeError


def check_header(data: bytes, limits: PictureLimits) -> None:
    """Raises a StreamError for what is too large, too small for a face, or no JPEG, PNG or WebP file."""
    try:
        judged(data, limits)
    except PictureTooLargeError as error:
        raise TooLargeError(str(error), code="picture_too_large") from error
    except PortraitError as error:
        raise PictureRefusedError(str(error), code="not_an_image") from error
