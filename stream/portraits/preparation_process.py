"""The process that prepares portraits: `python -m stream.portraits.preparation_process SETTINGS`.

Torch and decoders of foreign files stay out of the server's own process, and the work out of the one whose motion is
due: it has a lower priority. One picture at a time; the end of its input means that the server
is gone: exit.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import sys
import time
from typing import Any

from pipeline.portrait import PortraitError
from stream.portraits.preparation import error_code, prepare_given, prepare_kept, prepare_upload
from stream.portraits.preparation_messages import FromPreparation, Prepare, Prepared, Progress, Refusal
from stream.served_model import load_from
from stream.wire import Unpacker, pack

logger = logging.getLogger("stream.portraits")

READ_BYTES = 1 << 20
NICE = 5  # below what talks live, but not starved by it: with 10 a picture took minutes beside a busy browser
PROGRESS_S = 0.1
IDLE_S = 600.0
"""After so long without a picture it gives its memory back."""
_KINDS = {"given": prepare_given, "kept": prepare_kept}


class PreparationProcess:
    """Requests in on one descriptor, answers out on another."""

    def __init__(self, pipe: Any, incoming: int, outgoing: int) -> None:
        self._pipe, self._incoming, self._outgoing = pipe, incoming, outgoing

    def run(self) -> None:
        unpacker = Unpacker(Prepare)
        while select.select([self._incoming], [], [], IDLE_S)[0]:
            data = os.read(self._incoming, READ_BYTES)
            if not data:
                return
            for request in unpacker.push(data):
                self._send(self._answer(request))

    def _answer(self, request: Prepare) -> FromPreparation:
        number = request.number
        told_at = 0.0

        def progress(share: float) -> None:
            nonlocal told_at
            if share >= 1 or time.monotonic() - told_at >= PROGRESS_S:
                told_at = time.monotonic()
                self._send(Progress(number=number, share=share))

        try:
            if request.want == "upload":
                upload = prepare_upload(
                    request.picture, name=request.name, pipe=self._pipe, progress=progress
                )
                return Prepared(
                    number=number,
                    portrait=upload.portrait.to_bytes(),
                    picture=upload.picture,
                    media_type=upload.media_type,
                    found=upload.found,
                    images=upload.images,
                )
            prepare = _KINDS[request.want]
            portrait = prepare(request.picture, name=request.name, pipe=self._pipe, progress=progress)
            return Prepared(number=number, portrait=portrait.to_bytes())
        except PortraitError as error:
            return Refusal(number=number, code=error_code(error), message=str(error))
        except Exception:
            logger.exception("a picture could not be prepared")
            text = "The picture could not be read on the server; please try another one."
            return Refusal(number=number, code="not_an_image", message=text)

    def _send(self, message: FromPreparation) -> None:
        data = memoryview(pack(message))
        while data:
            data = data[os.write(self._outgoing, data) :]


def main() -> int:
    settings = json.loads(sys.argv[1])
    logging.basicConfig(level=settings["log_level"], format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for number in (signal.SIGINT, signal.SIGTERM):  # the server's to handle, which ends this process in order
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICE)
    outgoing = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no message
    # Its anchors are decoded by as many threads as there are cores, one each.
    pipe = load_from(settings["factory"], settings | {"threads": 1})
    try:
        PreparationProcess(pipe, 0, outgoing).run()
    except BrokenPipeError:
        logger.debug("the server is gone; the preparation process ends")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
