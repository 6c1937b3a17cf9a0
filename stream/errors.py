"""What can go wrong for a client, as a tree. Each message is a sentence that says what to do.

StreamError
|- BadRequestError 400 <- PictureRefusedError
|- UnauthorizedError 401      |- ForbiddenError 403
|- NotFoundError 404          |- TooLargeError 413         |- UnsupportedMediaError 415
|- MethodNotAllowedError 405  |- NotAcceptableError 406    |- ConflictError 409 <- NotLiveError (Retry-After)
|- PreconditionFailedError 412                             |- UnprocessableError 422
|- TooManySessionsError 429   `- UnavailableError 503 (Retry-After)
ConfigError      a YAML file that cannot be used
ListenError      the server cannot listen where it should
EngineError      the model process cannot do what was asked (also after too many crashes)
"""

from __future__ import annotations

from typing import ClassVar


class ConfigError(ValueError):
    """A configuration file holds something that the server does not understand; names key and file."""


class ListenError(RuntimeError):
    """No socket can be opened at the host and port; the text says why and what to do."""


class EngineError(RuntimeError):
    """The model process failed, and the text says how."""


class StreamError(Exception):
    """An answer to a client: HTTP status, stable code, and a sentence."""

    status: ClassVar[int] = 500
    default_code: ClassVar[str] = "internal"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        retry_after_s: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.retry_after_s = retry_after_s
        self.headers = headers or {}


class BadRequestError(StreamError):
    status = 400
    default_code = "bad_request"


class PictureRefusedError(BadRequestError):
    """A picture that cannot become a portrait; the code says why (no_face, not_an_image, ...)."""

    default_code = "picture_refused"


class UnauthorizedError(StreamError):
    status = 401
    default_code = "unauthorized"


class ForbiddenError(StreamError):
    status = 403
    default_code = "forbidden"


class NotFoundError(StreamError):
    status = 404
    default_code = "not_found"


class MethodNotAllowedError(StreamError):
    status = 405
    default_code = "method_not_allowed"


class NotAcceptableError(StreamError):
    status = 406
    default_code = "not_acceptable"


class ConflictError(StreamError):
    status = 409
    default_code = "conflict"


class NotLiveError(ConflictError):
    """Nobody publishes at this address now."""

    default_code = "not_live"

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message, retry_after_s=retry_after_s)


class PreconditionFailedError(StreamError):
    status = 412
    default_code = "precondition_failed"


class UnprocessableError(StreamError):
    status = 422
    default_code = "unprocessable"


class TooLargeError(StreamError):
    status = 413
    default_code = "too_large"


class UnsupportedMediaError(StreamError):
    status = 415
    default_code = "unsupported_media_type"


class TooManySessionsError(StreamError):
    status = 429
    default_code = "too_many_sessions"


class UnavailableError(StreamError):
    status = 503
    default_code = "unavailable"

    def __init__(self, message: str, *, code: str | None = None, retry_after_s: int = 5) -> None:
        super().__init__(message, code=code, retry_after_s=retry_after_s)
