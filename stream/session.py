"""One peer: ingest -> engine -> playout -> two tracks, in one task group that ends all together."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Coroutine
from dataclasses import asdict, replace
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from aiortc import (
    MediaStreamTrack,
    RTCDataChannel,
    RTCRtpTransceiver,
)
from aiortc.mediastreams import MediaStreamError

from pipeline.downmix import Downmix
from pipeline.samples import to_int16
from pipeline.sound_file import channels_of
from stream import aiortc_patches
from stream.broadcasting.broadcast import Broadcast
from stream.clock import SLOT_SAMPLES, PresentationClock
from stream.config import ServeConfig
from stream.engine import ModelEngine
from stream.engine_session import EngineFrames
from stream.figures import Figures, Moment
from stream.ice import Ice
from stream.ingest import Ingest
from stream.lateness import Lateness
from stream.metrics import Metrics
from stream.negotiation import audio_codecs, negotiate, video_codec, video_codecs
from stream.playout import AudioPlayout, VideoPlayout
from stream.portraits.entry import Entry
from stream.protocol import (
    AUDIO_LEAD_S,
    FPS,
    SAMPLE_RATE,
    ChunkTrace,
    LatencyBudget,
    Ping,
    ProtocolError,
    SessionConfig,
    SessionStats,
    SetControls,
    SetRecording,
    controls_message,
    notice_message,
    parse_client_message,
    pong_message,
    stats_message,
)
from stream.recordings.recording_folder import RecordingFolder
from stream.recordings.session_recorder import SessionRecorder
from stream.released import Released
from stream.security import Guard
from stream.slowness import Slowness
from stream.slowness import sentence as slow_sentence
from stream.trace import Traces
from stream.tracks import AudioOut, VideoOut
from stream.trickle import Trickle, check_fragment
from stream.windows import AudioWindower

logger = logging.getLogger(__name__)

TICK_S = 0.02
SILENT_START_S = 1.0
STATS_S = 1.0


class _Over(Exception):
    """The session has ended as it should; takes the task group down."""


class Session:
    """A duplex WebRTC session. `answer` starts it, `aclose` ends it; `on_closed` is told once. address: its client."""

    silent_end_s = math.inf
    """A connected peer from whom nothing has come for so long is taken for gone."""

    def __init__(
        self,
        session_id: str,
        *,
        config: ServeConfig,
        engine: ModelEngine,
        entry: Entry,
        options: SessionConfig,
        chunking: tuple[int, int],
        budget: LatencyBudget,
        guard: Guard,
        metrics: Metrics,
        recordings: RecordingFolder,
        address: str,
        on_closed: Callable[[Session], None],
    ) -> None:
        self.id = session_id
        self.state = "connecting"
        self.released = Released()
        self.broadcast: Broadcast | None = None  # those who watch
        self.recorder = SessionRecorder(
            recordings, self.released, portrait=entry.portrait.name, send=self._send, metrics=metrics
        )
        self._config = config
        self._engine = engine
        self._entry = entry
        self._budget = budget
        self._guard = guard
        self._metrics = metrics
        self._on_closed = on_closed
        self._controls = options.controls
        self._figures = Figures()
        self._slowness = Slowness()
        self._traces = Traces()
        self._skipped_frames = 0
        self._codec = ""
        self._link: dict[str, float] = {"packets_received": 0, "packets_lost": 0, "rtt_ms": 0.0}
        self._messages = 0  # of the current second

        media = config.media
        hop_frames, right_frames = chunking
        spec = engine.window_spec(hop_frames=hop_frames, right_frames=right_frames)
        self._windower = AudioWindower(spec)
        self._lateness = Lateness(hop_frames / FPS)
        self._audio = AudioPlayout()
        self._video = VideoPlayout()
        self._clock = PresentationClock(playout_delay_ms=budget.playout_delay_ms)
        self._ingest = Ingest(
            clock=self._clock,
            playout=self._audio,
            on_model_pcm=self._on_model_pcm,
            conceal_after_ms=media.conceal_after_ms,
            margin_ms=media.margin_ms,
        )
        self._line = engine.open(
            entry.portrait, spec=spec, seed=options.seed, controls=options.controls, listener=self
        )
        self._audio_out = AudioOut(
            clock=self._clock, playout=self._audio, on_error=self._fail, released=self.released
        )
        self._video_out = VideoOut(
            clock=self._clock,
            playout=self._video,
            picture=entry.portrait.canvas,
            on_error=self._fail,
            on_shown=self._on_shown,
            released=self.released,
        )
        self._pc = Ice(config).peer_connection(client=address)
        self._offer = ""
        self._trickle = Trickle(self._pc, guard=guard, limit=config.limits.candidates)
        self._uplink: aiortc_patches.LowDelayBuffer | None = None
        self._channel: RTCDataChannel | None = None
        self._remote: asyncio.Future[MediaStreamTrack] = asyncio.get_running_loop().create_future()
        self._connected = asyncio.Event()
        self._over = asyncio.Event()
        self._failure: str | None = None
        self._started_at = self._clock.now()
        self._opened_at = time.monotonic()
        self._task: asyncio.Task[None] | None = None

    @property
    def replaceable(self) -> bool:
        """Whether another session may take over its stream's name."""
        return False

    # --- signalling ---

    async def answer(self, offer: str) -> str:
        """The answer to this offer, with all of our candidates; the session runs from here on."""
        audio, video = self._transceivers()
        answer = await self._negotiate(
            offer,
            "it needs audio to and from the server (Opus) and video from it (H.264 or VP8), on one connection.",
        )
        self._codec = video_codec(answer)
        self._tune(audio, video)
        self._begin()
        return answer

    async def _negotiate(self, offer: str, needs: str) -> str:
        """The answer to `offer`, once our transceivers are there; `needs` says to a person what the offer lacks."""
        self._offer = offer
        self._pc.on("track", self._on_track)
        self._pc.on("datachannel", self._on_channel)
        self._pc.on("connectionstatechange", self._on_connection_state)
        answer = await negotiate(self._pc, offer, needs)
        await self._trickle.add(offer)
        return answer

    def _begin(self, *more: Coroutine[Any, Any, None]) -> None:
        """Live from here on; `more` runs beside what every session does."""
        self._task = asyncio.create_task(self._run(*more), name=f"session-{self.id[:8]}")

    def _transceivers(self) -> tuple[RTCRtpTransceiver, RTCRtpTransceiver]:
        """Ours come first with their preferences: aiortc ignores a choice made after the offer is in."""
        audio = self._pc.addTransceiver(self._audio_out, direction="sendrecv")
        video = self._pc.addTransceiver(self._video_out, direction="sendonly")
        audio.setCodecPreferences(audio_codecs())
        video.setCodecPreferences(video_codecs(self._config.media))
        return audio, video

    def _tune(self, audio: RTCRtpTransceiver, video: RTCRtpTransceiver) -> None:
        self._uplink = aiortc_patches.use_low_delay_buffer(audio.receiver)
        aiortc_patches.use_encoder(audio.sender, aiortc_patches.TunedOpusEncoder())
        aiortc_patches.report_lead(audio.sender, lead_samples=round(AUDIO_LEAD_S * SAMPLE_RATE))
        aiortc_patches.show_at_once(video.sender)
        aiortc_patches.watch_sent(video.sender, self._traces.sent)
        if self._codec == "H264":
            media = self._config.media
            encoder = aiortc_patches.TunedH264Encoder(
                bit_rate=1000 * media.video_bitrate_kbps, max_bit_rate=1000 * media.max_video_bitrate_kbps
            )
            aiortc_patches.use_encoder(video.sender, encoder)

    async def add_candidates(self, fragment: str) -> None:
        """Trickled candidates (RFC 8840 fragment)."""
        check_fragment(fragment, self._offer)
        await self._trickle.add(fragment)

    # --- life ---

    async def _run(self, *more: Coroutine[Any, Any, None]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for part in more:
                    group.create_task(part)
                group.create_task(self._receive())
                group.create_task(self._tick())
                group.create_task(self._push_stats())
                group.create_task(self._limit())
                if self.silent_end_s < math.inf:
                    group.create_task(self._end_when_silent())
                group.create_task(self._end())
        except* _Over:
            logger.debug("session %s is over", self.id)
        except* Exception as errors:
            for error in errors.exceptions:
                logger.error("session %s failed", self.id, exc_info=error)
            self._failure = self._failure or "The session failed on the server; please start it again."
        finally:
            await asyncio.shield(self._clean_up())

    async def aclose(self) -> None:
        """End everything and wait until it has ended. Idempotent."""
        self._over.set()
        if self._task is None:
            await self._clean_up()
        elif self._task is not asyncio.current_task():
            await asyncio.wait([self._task])

    async def _clean_up(self) -> None:
        if self.state == "closed":
            return
        self.state = "closed"
        if self._failure:
            self._send(notice_message("session_failed", self._failure, level="error"))
        try:
            self._line.close()
            self._audio_out.stop()
            self._video_out.stop()
            self.released.end()
            await aiortc_patches.close_peer(self._pc, timeout_s=self._config.limits.close_timeout_s)
            self._report_metrics()  # until here pictures went out
            await self.recorder.aclose()
            if not self._remote.done():
                self._remote.cancel()
        finally:
            self._on_closed(self)  # whatever happened: the place of this session is free again

    async def _end(self) -> None:
        await self._over.wait()
        raise _Over

    async def _limit(self) -> None:
        limits = self._config.limits
        try:
            async with asyncio.timeout(limits.connect_timeout_s):
                await self._connected.wait()
        except TimeoutError:
            logger.warning(
                "session %s: the peer did not connect within %.0f s", self.id, limits.connect_timeout_s
            )
            raise _Over from None
        await asyncio.sleep(60 * limits.session_minutes)
        text = f"Sessions end after {limits.session_minutes:.0f} minutes here; start a new one to go on."
        self._send(notice_message("time_limit", text, level="warning"))
        raise _Over

    @property
    def silent_s(self) -> float:
        """How long nothing has come from the other side, not even checks of the connection."""
        last = aiortc_patches.heard_at(self._pc)
        return time.monotonic() - (self._opened_at if last is None else last)

    async def _end_when_silent(self) -> None:
        """Who is killed says no goodbye, and ICE notices after half a minute."""
        await self._connected.wait()
        rest_s = self.silent_end_s
        while rest_s > 0:
            await asyncio.sleep(rest_s)
            rest_s = self.silent_end_s - self.silent_s
        logger.info("session %s: nothing has come for %.0f s", self.id, self.silent_end_s)
        raise _Over

    def _fail(self, error: Exception) -> None:
        """An exception where aiortc would swallow it: the session ends loudly."""
        if not isinstance(error, MediaStreamError) and not self._over.is_set():
            logger.error("session %s: a track failed", self.id, exc_info=error)
            self._failure = "The server's media failed; please start the session again."
            self._over.set()

    # --- audio in ---

    async def _receive(self) -> None:
        track = await self._remote
        downmix = Downmix()
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                logger.info("session %s: the speaker's track has ended", self.id)
                return
            if not isinstance(frame, av.AudioFrame) or frame.pts is None:
                continue
            pcm = to_int16(downmix.push(channels_of(frame), frame.sample_rate))
            self._traces.packet(self._uplink.arrival(frame.pts) if self._uplink is not None else None)
            self._ingest.push(frame.pts, pcm, self._clock.now())

    async def _tick(self) -> None:
        await self._connected.wait()
        last = self._clock.now()
        silent_at = last + SILENT_START_S
        while True:
            # After a stall of our own the packets are here but not read yet: do not take them for lost.
            now = last = min(self._clock.now(), last + 2 * TICK_S)
            if not self._clock.anchored and now >= silent_at:
                self._ingest.start_silent(now)
            self._traces.packet(None)
            self._ingest.tick(now)
            await asyncio.sleep(TICK_S)

    def _on_model_pcm(self, pcm: npt.NDArray[np.float32]) -> None:
        for window in self._windower.push(pcm):
            first = self._windower.spec.frames(window.index).start
            deadline = self._clock.released(first * SLOT_SAMPLES)
            self._traces.window(window.index, first, self._ingest.end, self._clock.now())
            self._line.submit(window, deadline)

    # --- what the engine says ---

    def on_frames(self, made: EngineFrames) -> None:
        self._video.push(made.first_frame, made.frames)
        if made.cost is not None:
            self._traces.made(made, self._clock.now())
            self._figures.step(made.cost)
            self._metrics.step_ms.observe(made.cost.step_ms)
            self._judge_delay(made.first_frame)

    def _judge_delay(self, frame: int) -> None:
        """A chunk's first frame is here."""
        now = self._clock.now()
        due = self._clock.released(frame * SLOT_SAMPLES)
        self._change_delay(self._lateness.made(now - due, now))

    def _change_delay(self, frames: int) -> None:
        """Both tracks shift once, where frames come late again and again, and back where they do not any more."""
        if frames > 0:
            self._clock.lengthen(frames)
        elif frames < 0 and self._audio.is_quiet(self._audio_out.played, 2 * SLOT_SAMPLES):
            self._clock.shorten(-frames)  # in a pause nobody hears or sees that a frame is left out
        else:
            return
        self._lateness.changed(frames)
        changed_ms = 1000 * frames / FPS
        self._budget = replace(self._budget, step_allowance_ms=self._budget.step_allowance_ms + changed_ms)
        logger.warning(
            "session %s: the model is %s; the delay %s by %.0f ms",
            self.id,
            *(("late", "grows") if frames > 0 else ("in time again", "shrinks")),
            abs(changed_ms),
        )

    def _on_shown(self, frame: int, timestamp: int) -> None:
        self._traces.shown(frame, timestamp, self._clock.now())

    def on_skip(self, index: int) -> None:
        self._skipped_frames += len(self._windower.spec.frames(index))
        if self._engine.live and self._clock.anchored:
            self._change_delay(self._lateness.left_out(self._clock.now()))

    def on_engine(self, live: bool) -> None:
        if live and self.state == "restarting":
            self.state = "live"
            self._send(notice_message("engine_back", "The model is back; the portrait talks again."))
        elif not live and self.state != "closed":
            self.state = "restarting"
            text = "The model stopped and is starting again; the portrait rests for a few seconds."
            self._send(notice_message("engine_restarting", text, level="warning"))

    def on_failure(self, message: str) -> None:
        self._failure = message
        self._over.set()

    # --- what the peer does ---

    def _on_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio" and not self._remote.done():
            self._remote.set_result(track)

    def _on_connection_state(self) -> None:
        state = self._pc.connectionState
        if state == "connected":
            if self.state == "connecting":
                self.state = "live" if self._engine.live else "restarting"
            if self._config.recording.every_session and not self._connected.is_set():
                self.recorder.begin()
            self._connected.set()
        elif state in ("failed", "closed"):
            self._over.set()

    def _on_channel(self, channel: RTCDataChannel) -> None:
        self._channel = channel
        self.recorder.announce()
        channel.on("message", self._on_message)

    def _on_message(self, text: str | bytes) -> None:
        self._messages += 1
        if self._messages > self._config.limits.messages_per_second:
            return
        try:
            message = parse_client_message(text)
        except ProtocolError as error:
            self._send(notice_message("bad_message", str(error), level="warning"))
            return
        if isinstance(message, SetControls):
            self._controls = message.values
            self._line.set_controls(message.values)
            self._send(controls_message(message.values))
        elif isinstance(message, Ping):
            self._send(pong_message(message.id))
        elif isinstance(message, SetRecording):
            self.recorder.ask(message)

    def _send(self, text: str) -> None:
        if self._channel is not None and self._channel.readyState == "open":
            self._channel.send(text)

    # --- figures ---

    @property
    def is_slow(self) -> bool:
        """Whether the machine is too slow for this session."""
        return self._slowness.slow

    def _judge_speed(self) -> None:
        share = self._figures.miss_ratio()
        if not self._slowness.judge(share):
            return
        if self._slowness.slow:
            text = slow_sentence(share)
            logger.warning("session %s: %s", self.id, text)
            self._send(notice_message("machine_slow", text, level="warning"))
        else:
            text = "This machine is fast enough for this portrait again."
            logger.info("session %s: %s", self.id, text)
            self._send(notice_message("machine_fine", text))

    async def _push_stats(self) -> None:
        await self._connected.wait()
        while True:
            await self._read_link()
            self._figures.moment(
                Moment(
                    at=self._clock.now(),
                    frames_sent=self._video_out.sent_frames,
                    due_frames=self._video_out.due_frames,
                    missed_frames=self._video_out.missed_frames,
                    packets_received=int(self._link["packets_received"]),
                    packets_lost=int(self._link["packets_lost"]),
                )
            )
            self._messages = 0
            self._judge_speed()
            self._send(stats_message(self.stats()))
            self._report_metrics()
            await asyncio.sleep(STATS_S)

    async def _read_link(self) -> None:
        """Loss and round-trip time from the connection's own reports."""
        for receiver in self._pc.getReceivers():
            for report in (await receiver.getStats()).values():
                if report.type == "inbound-rtp" and report.kind == "audio":
                    self._link["packets_received"] = report.packetsReceived
                    self._link["packets_lost"] = report.packetsLost
        for sender in self._pc.getSenders():
            for report in (await sender.getStats()).values():
                if report.type == "remote-inbound-rtp" and report.roundTripTime is not None:
                    self._link["rtt_ms"] = 1000 * report.roundTripTime

    def chunks(self, after: int) -> list[ChunkTrace]:
        """The ways of the chunks after this one, as far as they have been shown and are still kept."""
        return self._traces.after(after)

    def stats(self) -> SessionStats:
        video, budget = self._video_out, self._budget
        return SessionStats(
            session_id=self.id,
            state=self.state,
            portrait=self._entry.id,
            codec=self._codec,
            uptime_s=round(self._clock.now() - self._started_at, 1),
            media_time_s=round(self._ingest.end / SAMPLE_RATE, 2),
            fps_sent=round(self._figures.fps_sent(), 1),
            frames_sent=video.sent_frames,
            frames_due=video.due_frames,
            frames_missed=video.missed_frames,
            frames_late=self._video.late_frames,
            frames_skipped=self._skipped_frames,
            miss_ratio=round(self._figures.miss_ratio(), 4),
            slow=self.is_slow,
            reanchors=self._clock.reanchors,
            delay_raised_ms=round(1000 * self._lateness.raised_frames / FPS),
            audio_buffer_ms=round(self._audio.buffered_ms, 1),
            video_buffer_ms=round(self._video.buffered_ms, 1),
            windows_queued=self._line.queued,
            audio_underrun_ms=round(self._audio.underrun_samples * 1000 / SAMPLE_RATE, 1),
            audio_concealed_ms=round(self._ingest.concealed_samples * 1000 / SAMPLE_RATE, 1),
            packets_lost=int(self._link["packets_lost"]),
            loss_ratio=round(self._figures.loss_ratio(), 4),
            uplink_jitter_ms=round(self._ingest.jitter_ms, 1),
            rtt_ms=round(self._link["rtt_ms"], 1),
            step_ms=self._figures.step_ms(),
            stages_ms=self._figures.stages_ms(),
            denoising_steps=self._figures.denoising_steps,
            engine_restarts=self._engine.restarts,
            mouth_to_photon_ms=round(budget.mouth_to_photon_ms + self._link["rtt_ms"], 1),
            budget=budget.to_dict(),
            controls=asdict(self._controls),
            viewers=self.broadcast.viewers if self.broadcast is not None else 0,
            recording=self.recorder.stats(),
        )

    def _report_metrics(self) -> None:
        totals: dict[str, float] = {
            "frames": self._video_out.sent_frames,
            "missed": self._video_out.missed_frames,
            "late": self._video.late_frames,
            "skipped": self._skipped_frames,
            "concealed_ms": self._ingest.concealed_samples * 1000 / SAMPLE_RATE,
            "reanchors": self._clock.reanchors,
        }
        for name, grown in self._figures.fresh(totals).items():
            getattr(self._metrics, name).inc(grown)
