"""Servers of other kinds, called as their protocols say; what is wrong with one is said in a sentence."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCSessionDescription,
    VideoStreamTrack,
)
from aiortc.contrib.media import MediaRelay
from fastapi import FastAPI, Request, Response

from client.errors import ClientError
from client.latency.adapters import JsonOfferAdapter, WhipWhepAdapter
from client.latency.probe import make_probe
from client.latency.receiver import Receiver
from client.latency.sounds import find_sounds


class Stage:
    """A WHIP endpoint, and a WHEP one that plays what it was sent beside a still picture."""

    def __init__(self) -> None:
        self.peers: list[RTCPeerConnection] = []
        self.deleted: list[str] = []
        self.tokens: set[str] = set()
        self.voice: MediaStreamTrack | None = None
        self.app = FastAPI()
        self.app.post("/whip")(self.whip)
        self.app.post("/whep/1")(self.whep)
        self.app.delete("/{kind}/resource")(self.delete)

    async def whip(self, request: Request) -> Response:
        link = '<https://stun.invalid>; rel="ice-server", </whep/1>; rel="urn:ietf:params:whep"'
        return await self.answer(request, "up", {"Location": "/whip/resource", "Link": link})

    async def whep(self, request: Request) -> Response:
        return await self.answer(request, "down", {"Location": "/whep/resource"})

    async def delete(self, kind: str) -> Response:
        self.deleted.append(kind)
        return Response(status_code=200)

    async def answer(self, request: Request, leg: str, headers: dict[str, str]) -> Response:
        assert request.headers["Content-Type"] == "application/sdp"
        self.tokens.add(request.headers.get("Authorization", ""))
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.peers.append(peer)

        @peer.on("track")
        def on_track(track: MediaStreamTrack) -> None:
            self.voice = MediaRelay().subscribe(track)

        await peer.setRemoteDescription(RTCSessionDescription((await request.body()).decode(), "offer"))
        if leg == "down":
            assert self.voice is not None
            peer.addTrack(self.voice)
            peer.addTrack(VideoStreamTrack())
        await peer.setLocalDescription(await peer.createAnswer())
        sdp = peer.localDescription.sdp
        return Response(sdp, status_code=201, headers=headers, media_type="application/sdp")


@contextlib.asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    )
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
        await asyncio.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def test_voice_goes_up_by_whip_and_comes_down_by_the_whep_it_links_to() -> None:
    stage, probe = Stage(), make_probe(seconds=8, kind="clicks", seed=1)
    async with serving(stage.app) as url:
        recording = await Receiver(WhipWhepAdapter(f"{url}/whip", token="secret"), probe).record()
        await asyncio.gather(*(peer.close() for peer in stage.peers))
    found = find_sounds(probe, recording)
    assert found.responds
    assert found.missed <= 2
    assert sorted(stage.deleted) == ["whep", "whip"]
    assert stage.tokens == {"Bearer secret"}


async def test_what_is_wrong_with_a_server_is_said_in_a_sentence() -> None:
    app = FastAPI()

    @app.post("/offer")
    async def offer() -> dict[str, str]:
        return {"message": "hello"}

    @app.post("/whip")
    async def whip() -> Response:
        return Response("v=0", status_code=201)

    async with serving(app) as url:
        wrong: list[tuple[Any, str, str]] = [
            (JsonOfferAdapter(f"{url}/offer"), "both", 'JSON object that has "sdp"'),
            (JsonOfferAdapter(f"{url}/nothing"), "both", "answered 404"),
            (WhipWhepAdapter(f"{url}/nothing"), "up", "answered 404"),
        ]
        for adapter, leg, says in wrong:
            with pytest.raises(ClientError, match=says):
                await adapter.exchange("v=0", leg)
            await adapter.aclose()
        without_link = WhipWhepAdapter(f"{url}/whip")
        await without_link.exchange("v=0", "up")
        with pytest.raises(ClientError, match="give it with --whep"):
            await without_link.exchange("v=0", "down")
        await without_link.aclose()
