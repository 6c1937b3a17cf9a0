"""The latency harness over real connections: known delays and a mute portrait are found, bad networks are bad."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
import uvicorn
from aiortc import MediaStreamTrack, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaRelay
from fastapi import FastAPI, Request, Response

from client.errors import ClientError
from client.latency.detection import detect
from client.latency.endpoints import OfferEndpoint, WhipWhepEndpoint
from client.latency.figures import verdict
from client.latency.probe import make_probe
from client.latency.receiver import record
from client.latency.reference_server import Picture, Voice, _listen
from client.latency.relay import NetworkProfile, Relay
from client.latency.self_test import ReferenceEndpoint, reference_server, self_test
from tests.loopback.real_time import require_real_time


@pytest.mark.timeout(120)
async def test_known_delays_are_found_and_a_mute_portrait_too() -> None:
    begun = asyncio.get_running_loop().time()
    result = await self_test()
    require_real_time(media_s=2 * 14.0, wall_s=asyncio.get_running_loop().time() - begun - 6.0)
    assert result.failures == []


@pytest.mark.timeout(60)
async def test_a_bad_network_is_in_the_path_of_both_directions() -> None:
    probe = make_probe(9)
    up, down = NetworkProfile(delay_ms=40), NetworkProfile(delay_ms=60)
    async with reference_server() as url:
        plain = ReferenceEndpoint(url, session="plain")
        async with Relay(up=up, down=down, seed=3) as relay:
            slow = ReferenceEndpoint(url, session="slow", relay=relay)
            recordings = await asyncio.gather(record(plain, probe), record(slow, probe))
            await asyncio.gather(plain.aclose(), slow.aclose())
    near, far = (detect(recording, probe) for recording in recordings)
    added_ms = np.nanmean(far.mouth_to_photon_ms) - np.nanmean(near.mouth_to_photon_ms)
    assert added_ms == pytest.approx(60, abs=20)  # the way up is inside the reference server's fixed delay
    assert relay.up.packets > 400
    assert relay.down.packets > 600
    assert np.isfinite(far.seen_s).sum() >= 0.7 * len(probe.onsets_s)


class Stage:
    """A WHIP endpoint and a WHEP one behind it, as small as they can be."""

    def __init__(self) -> None:
        self.peers: list[RTCPeerConnection] = []
        self.deleted: list[str] = []
        self.tokens: set[str] = set()
        self.voice = Voice(delay_s=0.05, jitter_s=0.0, seed=0)
        self.relay = MediaRelay()
        self.sound: Any = None
        self.tasks: set[asyncio.Task[None]] = set()
        self.app = FastAPI()
        self.app.post("/whip")(self.whip)
        self.app.post("/whep/1")(self.whep)
        self.app.delete("/{kind}/resource")(self.delete)

    async def whip(self, request: Request) -> Response:
        def on_track(track: MediaStreamTrack) -> None:
            self.sound = self.relay.subscribe(track)
            self.tasks.add(asyncio.create_task(_listen(self.relay.subscribe(track), self.voice)))

        link = '</whep/1>; rel="urn:ietf:params:whep"'
        return await self.answer(request, "/whip/resource", on_track, {"Link": link})

    async def whep(self, request: Request) -> Response:
        return await self.answer(request, "/whep/resource", None, {})

    async def delete(self, kind: str) -> Response:
        self.deleted.append(kind)
        return Response(status_code=200)

    async def answer(self, request: Request, place: str, on_track: Any, headers: dict[str, str]) -> Response:
        assert request.headers["Content-Type"] == "application/sdp"
        self.tokens.add(request.headers.get("Authorization", ""))
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.peers.append(peer)
        if on_track is not None:
            peer.on("track", on_track)
        offer = RTCSessionDescription((await request.body()).decode(), "offer")
        await peer.setRemoteDescription(offer)
        if on_track is None:
            peer.addTrack(self.sound)
            peer.addTrack(Picture(self.voice, muted=False))
        await peer.setLocalDescription(await peer.createAnswer())
        headers = headers | {"Location": place}
        sdp = peer.localDescription.sdp
        return Response(sdp, status_code=201, headers=headers, media_type="application/sdp")


class Told(WhipWhepEndpoint):
    """Tells the stage when the first sound is spoken, as its mouth has to know."""

    def __init__(self, url: str, *, token: str, stage: Stage) -> None:
        super().__init__(url, token=token)
        self._stage = stage

    async def began(self, first_sound_s: float) -> None:
        self._stage.voice.first_s = first_sound_s


@contextlib.asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@pytest.mark.timeout(60)
async def test_a_whip_and_whep_pair_is_measured() -> None:
    stage, probe = Stage(), make_probe(12)
    async with serving(stage.app) as url:
        endpoint = Told(f"{url}/whip", token="secret", stage=stage)
        try:
            recording = await record(endpoint, probe)
        finally:
            await endpoint.aclose()
        await asyncio.gather(*(peer.close() for peer in stage.peers))
        for task in stage.tasks:
            task.cancel()
        await asyncio.gather(*stage.tasks, return_exceptions=True)
    found = detect(recording, probe)
    assert verdict(found).valid
    assert np.isfinite(found.heard_s).sum() >= 0.8 * len(probe.onsets_s)
    assert stage.deleted == ["whep", "whip"]
    assert stage.tokens == {"Bearer secret"}


async def test_what_cannot_be_measured_is_said_in_a_sentence() -> None:
    app = FastAPI()

    @app.post("/offer")
    async def offer() -> dict[str, str]:
        return {"message": "hello"}

    async with serving(app) as url:
        for endpoint, says in (
            (OfferEndpoint(f"{url}/offer"), 'must answer JSON with "sdp"'),
            (OfferEndpoint(f"{url}/nothing"), "answered 404"),
            (WhipWhepEndpoint(f"{url}/whip"), "answered 404"),
        ):
            with pytest.raises(ClientError, match=says):
                await record(endpoint, make_probe(4))
            await endpoint.aclose()
