"""The server's side of the process that prepares portraits: started when it is first needed, replaced when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable
from typing import Self

from pipeline.drawing import PreparedPortrait
from stream import child_process
from stream.config import ModelConfig
from stream.errors import EngineError, PictureRefusedError
from stream.portraits.preparation import PreparedUpload
from stream.portraits.preparation_messages import (
    FromPreparation,
    Prepare,
    Prepared,
    Progress,
    Refusal,
    Want,
)
from stream.wire import Unpacker, pack

logger = logging.getLogger(__name__)

READ_BYTES = 1 << 20
TIMEOUT_S = 180.0

OnProgress = Callable[[float], None]


class Preparer:
    """Prepares pictures one after the other. Event loop only; `aclose` it.

    A picture that brings the process down costs that picture, and the next one the start of a new process.
    """

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[asyncio.Future[Prepared], OnProgress]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._starting = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        process.stdin.close()
        await child_process.end(process, 0.0)  # what it may be doing is of no use any more
        if self._reading is not None:
            await asyncio.gather(self._reading, return_exceptions=True)

    def kill(self) -> None:
        """End the process at once. May be called in a signal handler."""
        child_process.kill(self._process)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def warm_up(self) -> None:
        """Start the process before it is needed: it takes some seconds."""
        async with self._starting:
            if self._process is not None and self._process.returncode is None:
                return
            self._process = await child_process.spawn(
                "The process that prepares portraits",
                "stream.portraits.preparation_process",
                self._config,
                pipes=True,
            )
            self._reading = asyncio.create_task(self._read(self._process), name="preparer")

    async def prepare(
        self,
        picture: bytes,
        *,
        name: str,
        kept: bool = False,
        progress: OnProgress = lambda share: None,
    ) -> PreparedPortrait:
        """A portrait from a JPEG, PNG or WebP file; raises PictureRefusedError or EngineError.

        kept: the file is one that `prepare_upload` made. progress: told the share that is done, 0 to 1.
        """
        answer = await self._ask(picture, name, "kept" if kept else "given", progress)
        return await asyncio.to_thread(PreparedPortrait.from_bytes, answer.portrait)

    async def prepare_upload(
        self, picture: bytes, *, name: str, progress: OnProgress = lambda share: None
    ) -> PreparedUpload:
        """A foreign picture made safe, its portrait and previews of it; raises as `prepare` does."""
        answer = await self._ask(picture, name, "upload", progress)
        return PreparedUpload(
            portrait=await asyncio.to_thread(PreparedPortrait.from_bytes, answer.portrait),
            picture=answer.picture,
            media_type=answer.media_type,
            found=answer.found,
            images=answer.images,
        )

    async def _ask(self, picture: bytes, name: str, want: Want, progress: OnProgress) -> Prepared:
        await self.warm_up()
        process = self._process
        assert process is not None
        assert process.stdin is not None
        number = next(self._numbers)
        future: asyncio.Future[Prepared] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (future, progress)
        try:
            process.stdin.write(pack(Prepare(number=number, name=name, want=want, picture=picture)))
            async with asyncio.timeout(TIMEOUT_S):
                with contextlib.suppress(ConnectionError):  # then its end is heard of by the reader
                    await process.stdin.drain()
                return await future
        except TimeoutError as error:
            child_process.kill(process)
            raise EngineError("The picture took too long to prepare; please try again.") from error
        finally:
            del self._waiting[number]

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        """What the process says, until it ends."""
        assert process.stdout is not None
        unpacker: Unpacker[FromPreparation] = Unpacker(FromPreparation)  # type: ignore[arg-type]
        while data := await process.stdout.read(READ_BYTES):
            for message in unpacker.push(data):
                self._heard(message)
        await process.wait()
        if self._process is process and process.returncode:
            logger.error("the process that prepares portraits ended (exit code %s)", process.returncode)
        for future, _ in self._waiting.values():
            if not future.done():
                future.set_exception(
                    EngineError("The picture could not be prepared on the server; please try again.")
                )

    def _heard(self, message: FromPreparation) -> None:
        future, progress = self._waiting.get(message.number, (None, None))
        if future is None or progress is None or future.done():
            return
        if isinstance(message, Progress):
            progress(message.share)
        elif isinstance(message, Refusal):
            future.set_exception(PictureRefusedError(message.message, code=message.code))
        else:
            future.set_result(message)
