"""The application: what it holds, how it starts and stops, and the FastAPI app around it."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Protocol

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from pipeline.picture_limits import PictureLimits
from stream import aiortc_patches
from stream.broadcasting.audience import Audience
from stream.broadcasting.broadcast import Broadcast, Broadcasts, new_name
from stream.config import ServeConfig
from stream.data_directory import cache_directory, uploads_directory
from stream.engine import ModelEngine
from stream.errors import ConflictError, EngineError, NotFoundError, StreamError, UnavailableError
from stream.ice import Ice
from stream.metrics import Metrics
from stream.pace import Pace
from stream.portraits.bundled import PreparedCache
from stream.portraits.gallery import Gallery
from stream.portraits.portrait_store import PortraitStore
from stream.portraits.preparer import Preparer
from stream.protocol import ChunkTrace, LatencyBudget, SessionConfig, SessionStats
from stream.recordings.recording_folder import RecordingFolder
from stream.security import Guard, new_session_id
from stream.session import Session
from stream.warm_up import warm_up

logger = logging.getLogger(__name__)

WEB_DIRECTORY = Path(__file__).resolve().parent.parent / "client" / "web"
BUNDLED_MODEL = "portrait_256"
WHEP_RELATION = "urn:ietf:params:whep"


class OpenSession(Protocol):
    """What the API needs of every session, whatever its transport."""

    @property
    def id(self) -> str: ...

    def stats(self) -> SessionStats: ...

    def chunks(self, after: int) -> list[ChunkTrace]: ...

    async def aclose(self) -> None: ...


class Server:
    """Everything that lives as long as the application. Event loop only.

    status: warming_up, ready, restarting (the model is coming back), stopping, failed.
    on_failure: told, in a sentence, that the model does not load or is given up: the server will never serve again.
    None logs it.
    """

    def __init__(
        self,
        config: ServeConfig,
        *,
        gallery: Gallery | None = None,
        on_ready: Callable[[Server], None] | None = None,
        on_failure: Callable[[str], None] | None = None,
    ) -> None:
        self.config = config
        self.metrics = Metrics()
        self.guard = Guard(config)
        self.ice = Ice(config)
        self.recordings = RecordingFolder(config.recording)
        self.sessions: dict[str, OpenSession] = {}
        self.broadcasts = Broadcasts(config)
        self.audience = Audience(config, self.broadcasts, guard=self.guard, metrics=self.metrics)
        self.sockets: set[asyncio.Task[Any]] = set()  # WebSocket connections
        self._gallery = gallery
        self._on_ready = on_ready
        self._on_failure = on_failure
        self._engine: ModelEngine | None = None
        self._preparer = Preparer(config.model)
        self._preparing = ""
        self._pace = Pace(config.media, {}, {})
        self._warm = False
        self._stopping = False
        self._failure: str | None = None
        self._starting: asyncio.Task[None] | None = None

    @property
    def status(self) -> str:
        if self._stopping:
            return "stopping"
        if self._failure is not None or (self._engine is not None and self._engine.failed):
            return "failed"
        if not self._warm:
            return "warming_up"
        return "ready" if self._engine is not None and self._engine.live else "restarting"

    @property
    def message(self) -> str:
        """The status as a sentence."""
        return {
            "ready": self._readiness(),
            "warming_up": self._preparing
            or "The server is still loading its model; try again in a few seconds.",
            "restarting": "The model stopped and is starting again; try again in a few seconds.",
            "stopping": "The server is shutting down.",
            "failed": self._failure or "The model cannot be started any more; see the server's log.",
        }[self.status]

    def _readiness(self) -> str:
        if slow := self.slow_sessions:
            return (
                f"The server is ready, but this machine is too slow for {slow} of its {len(self.sessions)} sessions: "
                "pictures come late."
            )
        return "The server is ready."

    @property
    def engine(self) -> ModelEngine:
        if self._engine is None:
            raise UnavailableError(self.message, code=self.status)
        return self._engine

    @property
    def gallery(self) -> Gallery:
        if self._gallery is None:
            raise UnavailableError(self.message, code=self.status)
        return self._gallery

    def check_ready(self) -> None:
        if self.status != "ready":
            raise UnavailableError(self.message, code=self.status)

    def chunking(self, options: SessionConfig | None = None) -> tuple[int, int]:
        """Frames of hop and of look-ahead that a session opened now would get."""
        options = options or SessionConfig()
        right = self.config.media.right_frames if options.right_frames is None else options.right_frames
        return self._pace.hop_frames(options.hop_frames, open_sessions=self._open_sessions), right

    @property
    def carried(self) -> int:
        """How many sessions this machine carries at a time, as measured at the start."""
        return self._pace.sessions

    @property
    def slow_sessions(self) -> int:
        """For how many sessions the machine is too slow just now."""
        return sum(isinstance(session, Session) and session.is_slow for session in self.sessions.values())

    @property
    def _open_sessions(self) -> int:
        return 0 if self._engine is None else self._engine.open_sessions

    def budget(self, options: SessionConfig | None = None) -> LatencyBudget:
        hop, right = self.chunking(options)
        return self._pace.budget(hop_frames=hop, right_frames=right, open_sessions=self._open_sessions)

    # --- start and stop ---

    async def start(self) -> None:
        """Begin to load; returns at once, `status` tells the rest."""
        aiortc_patches.install(loopback=self.config.ice.loopback)
        await asyncio.to_thread(self.recordings.adopt)
        self._starting = asyncio.create_task(self._start(), name="server-start")

    async def _start(self) -> None:
        try:
            engine = self._engine = ModelEngine(
                self.config.model, on_failure=self._fail, on_restart=self.metrics.engine_restarts.inc
            )
            await engine.start()
            if self._gallery is None:
                self._gallery = await self._load_gallery(engine)
            entry = self._gallery.get(None)
            self._pace = await warm_up(
                engine, entry.portrait, self.config.media, windows=self.config.model.warm_up_windows
            )
        except (EngineError, StreamError) as error:
            self._fail(f"The server could not start: {error}")
            return
        except Exception as error:  # nobody waits for this task: it would be ready never, and never say why
            logger.exception("the server could not start")
            self._fail(f"The server could not start ({type(error).__name__}: {error}); please report this.")
            return
        gc.collect()
        gc.freeze()
        self._warm = True
        self.metrics.ready.set_function(lambda: float(self.status == "ready"))
        self.metrics.watch_processes(lambda: self.engine.pid)
        if self._on_ready is not None:
            self._on_ready(self)

    def _fail(self, sentence: str) -> None:
        self._failure = sentence
        if self._on_failure is None:
            logger.critical("%s", sentence)
        else:
            self._on_failure(sentence)

    async def _load_gallery(self, engine: ModelEngine) -> Gallery:
        portraits, limits = self.config.portraits, self.config.limits
        return await Gallery.load(
            gallery_folder(self.config.model.name),
            prepare=self._preparer.prepare,
            prepare_upload=self._preparer.prepare_upload,
            warm_up=self._preparer.warm_up,
            cache=PreparedCache(
                cache_directory() if self.config.model.has_own_drawing else None, engine.face_sha256
            ),
            progress=self._tell_preparing,
            model=engine.face_sha256,
            default=portraits.default,
            store=PortraitStore(uploads_directory(portraits.uploads_directory)),
            max_uploads=limits.uploaded_portraits,
            limits=PictureLimits(
                bytes=limits.portrait_bytes,
                pixels=limits.portrait_pixels,
                whole_pixels=limits.portrait_whole_pixels,
            ),
        )

    def _tell_preparing(self, ready: int, count: int) -> None:
        self._preparing = (
            f"The server prepares its portraits, once: {ready} of {count} are ready. Try again soon."
        )

    def uploads(self) -> dict[str, Any]:
        """Whether uploaded portraits are still there after a restart; problem: why not, a sentence."""
        if self._gallery is None:
            return {"kept": False, "problem": None}
        return {"kept": self._gallery.folder is not None, "problem": self._gallery.problem}

    def stop_soon(self) -> None:
        """The end was asked for: no new sessions, and a model process that goes away is not missed."""
        self._stopping = True
        if self._engine is not None:
            self._engine.stop_restarting()

    def kill(self) -> None:
        """End the model process at once; for when nothing else will be waited for. Fit for a signal handler."""
        self._preparer.kill()
        if self._engine is not None:
            self._engine.kill()

    async def aclose(self) -> None:
        """End every session, then the model process. Idempotent."""
        self.stop_soon()
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        for socket in list(self.sockets):
            socket.cancel()
        await asyncio.gather(
            *(session.aclose() for session in list(self.sessions.values())),
            self.audience.aclose(),
            *self.sockets,
            return_exceptions=True,
        )
        await self._preparer.aclose()
        if self._engine is not None:
            await self._engine.aclose()
        if self._gallery is not None:
            await self._gallery.aclose()

    # --- sessions ---

    async def open_session(
        self,
        offer: str,
        options: SessionConfig,
        *,
        address: str,
        kind: type[Session] = Session,
        stream: str | None = None,
        transport: str = "webrtc",
    ) -> tuple[Session, str]:
        """A new WebRTC session and the answer to its offer; raises StreamError.

        kind: the class of the session. stream: the name under which it can be watched; None for a random one.
        transport: its name in the metrics.
        """
        self.check_ready()
        offer = self.guard.check_offer(offer)
        entry = self.gallery.get(options.portrait)
        stream = stream or new_name()
        left = await self._take_over(stream)
        try:
            self.guard.enter(address, carried=self.carried)
        except BaseException:
            self.broadcasts.close(left)
            raise
        try:
            session = kind(
                new_session_id(),
                config=self.config,
                engine=self.engine,
                entry=entry,
                options=options,
                chunking=self.chunking(options),
                budget=self.budget(options),
                guard=self.guard,
                metrics=self.metrics,
                recordings=self.recordings,
                address=address,
                on_closed=lambda closed: self._closed(closed, address),
            )
        except BaseException:
            self.guard.leave(address)
            self.broadcasts.close(left)
            raise
        self.sessions[session.id] = session
        if left is None:
            left = self.broadcasts.open(stream, released=session.released, entry=entry)
        else:
            left.attach(session.released, entry)
        session.broadcast = left
        self.metrics.sessions.inc()
        try:
            answer = await session.answer(offer)
        except BaseException:
            await session.aclose()
            raise
        self.metrics.opened.labels(transport=transport).inc()
        return session, answer

    async def _take_over(self, stream: str) -> Broadcast | None:
        """The broadcast of this name whose session has gone without a word, and which ends here; None where the name is
        free. Raises ConflictError while it is not."""
        sessions = [session for session in self.sessions.values() if isinstance(session, Session)]
        gone = next((it for it in sessions if it.broadcast is not None and it.broadcast.name == stream), None)
        if gone is None or gone.broadcast is None or not gone.replaceable:
            self.broadcasts.check_free(stream)
            return None
        logger.info("session %s fell silent; another goes on with its stream", gone.id)
        broadcast, gone.broadcast = gone.broadcast, None
        broadcast.detach()
        await gone.aclose()
        return broadcast

    def session(self, session_id: str) -> OpenSession:
        session = self.sessions.get(session_id)
        if session is None:
            raise NotFoundError("There is no such session; it may have ended.", code="session_not_found")
        return session

    def webrtc_session(self, session_id: str, otherwise: str) -> Session:
        """As `session`; `otherwise` is what to tell the client where it has another transport."""
        session = self.session(session_id)
        if not isinstance(session, Session):
            raise ConflictError(otherwise, code="not_webrtc")
        return session

    def watch_links(self, session: Session) -> str | None:
        """The Link to where a session can be watched."""
        if session.broadcast is None:
            return None
        return f'</whep/{session.broadcast.name}>; rel="{WHEP_RELATION}"'

    def _closed(self, session: Session, address: str) -> None:
        if session.broadcast is not None:
            self.broadcasts.close(session.broadcast)
        if self.sessions.pop(session.id, None) is not None:
            self.guard.leave(address)
            self.metrics.sessions.dec()


def gallery_folder(model: str) -> Path:
    """The portraits beside the model's weights; a model without any borrows the bundled ones."""
    own = Path(model) / "portraits"
    return (
        own
        if own.is_dir()
        else Path(str(resources.files("pipeline"))) / "weights" / BUNDLED_MODEL / "portraits"
    )


def create_app(
    config: ServeConfig,
    *,
    gallery: Gallery | None = None,
    on_ready: Callable[[Server], None] | None = None,
    on_failure: Callable[[str], None] | None = None,
) -> FastAPI:
    """The ASGI application; `app.state.server` is the `Server` behind it, which the other arguments are for."""
    from stream.broadcasting.watch import router as watch_router
    from stream.broadcasting.whep import router as whep_router
    from stream.broadcasting.whip import router as whip_router
    from stream.portraits.portrait_routes import router as portrait_router
    from stream.recordings.recording_routes import router as recording_router
    from stream.routes import router
    from stream.websocket import router as websocket_router

    server = Server(config, gallery=gallery, on_ready=on_ready, on_failure=on_failure)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await server.start()
        try:
            yield
        finally:
            await server.aclose()

    app = FastAPI(title="Talkalong", docs_url="/docs", redoc_url=None, lifespan=lifespan)
    app.state.server = server
    if config.network.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(config.network.cors_origins),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "If-Match"],
            expose_headers=["Location", "Link", "Retry-After", "ETag", "Accept-Post"],
        )
    app.include_router(router)
    app.include_router(recording_router)
    app.include_router(portrait_router)
    app.include_router(websocket_router)
    for broadcast_router in (whip_router, whep_router, watch_router):
        app.include_router(broadcast_router)
    app.add_exception_handler(StreamError, _stream_error)
    app.add_exception_handler(EngineError, _engine_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    if WEB_DIRECTORY.is_dir():
        app.mount("/", StaticFiles(directory=WEB_DIRECTORY, html=True), name="page")
    return app


def error_body(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


async def _stream_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StreamError)
    request.app.state.server.metrics.refused.labels(code=error.code).inc()
    headers = {"Retry-After": str(error.retry_after_s)} if error.retry_after_s is not None else {}
    headers |= error.headers
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse(error_body(error.code, error.message), status_code=error.status, headers=headers)


async def _engine_error(request: Request, error: Exception) -> Response:
    return await _stream_error(request, UnavailableError(str(error), code="engine_failed"))


async def _validation_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:])
    text = f"The request is not complete or not well-formed: {where}: {first['msg']}."
    return JSONResponse(error_body("bad_request", text), status_code=400)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = {
        404: "There is nothing at this address; the API is described at /docs.",
        405: "This address does not know that method; the API is described at /docs.",
    }.get(error.status_code, f"{error.detail}.")
    return JSONResponse(
        error_body(f"http_{error.status_code}", text), error.status_code, headers=error.headers
    )
