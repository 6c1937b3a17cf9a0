"""What can go wrong for a client, as sentences that say what to do.

ClientError
├── ServerUnreachableError   nothing answers at the URL
├── ServerRefusedError       the server answered no (status, code, retry_after_s)
├── ConnectionLostError      sound and picture stopped, or never came
├── DeviceError              no PortAudio, no microphone, no loudspeaker
└── RecorderError            a recording that cannot begin
"""

from __future__ import annotations


class ClientError(Exception):
    """The tree's root; its text can be shown to a person as it is."""


class ServerUnreachableError(ClientError):
    def __init__(self, url: str, reason: object) -> None:
        super().__init__(
            f"No Talkalong server answers at {url} ({reason}). Start one with `talkalong serve`, or "
            "check the address."
        )


class ServerRefusedError(ClientError):
    """The server's own sentence; `retry_after_s` is 0 where waiting does not help."""

    def __init__(self, message: str, *, status: int, code: str = "", retry_after_s: float = 0.0) -> None:
        wait = f" Try again in {retry_after_s:.0f} s." if retry_after_s else ""
        super().__init__(message + wait)
        self.status = status
        self.code = code
        self.retry_after_s = retry_after_s


class ConnectionLostError(ClientError):
    pass


class DeviceError(ClientError):
    pass


class RecorderError(ClientError):
    pass
