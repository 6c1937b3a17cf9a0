"""The server's own sockets: ports out of a range, the public address of 1:1 NAT, and who is told of relays."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import socket

import httpx
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection

from stream import aiortc_patches
from stream.config import IceConfig, IceServerConfig, SecurityConfig, ServeConfig
from stream.ice_gathering import HostPaths
from tests.loopback.conftest import quiet_config, start
from tests.loopback.peer import Peer

SDP = {"Content-Type": "application/sdp"}
TURN = "turn:127.0.0.1:9"


def with_ice(ice: IceConfig, **rest: object) -> ServeConfig:
    return dataclasses.replace(quiet_config(), ice=ice, **rest)  # type: ignore[arg-type]


def free_ports(count: int) -> int:
    """The first of so many UDP ports in a row that are free on every address."""
    for first in range(31_000, 60_000, 97):
        with contextlib.ExitStack() as stack:
            try:
                for port in range(first, first + count):
                    sock = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    sock.bind(("0.0.0.0", port))
            except OSError:
                continue
            return first
    raise AssertionError("no ports are free")


async def offer() -> tuple[RTCPeerConnection, str]:
    pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    pc.addTransceiver("audio", direction="sendrecv")
    pc.addTransceiver("video", direction="recvonly")
    await pc.setLocalDescription(await pc.createOffer())
    return pc, pc.localDescription.sdp


async def ask(http: httpx.AsyncClient) -> httpx.Response:
    pc, sdp = await offer()
    try:
        return await http.post("/v1/sessions", content=sdp, headers=SDP)
    finally:
        await pc.close()


def candidates(sdp: str) -> set[tuple[str, int, str]]:
    """Address, port and kind."""
    found = re.findall(r"a=candidate:\S+ \d \w+ \d+ (\S+) (\d+) typ (\w+)", sdp)
    return {(host, int(port), kind) for host, port, kind in found}


async def test_a_conversation_keeps_to_the_port_range() -> None:
    first = free_ports(3)
    config = with_ice(IceConfig(port_range=(first, first + 2)))
    async with start(config) as running, Peer(running.http) as peer:
        await peer.until(lambda: len(peer.pictures) > 20 and len(peer.sounds) > 20)
        ports = {port for _, port, _ in candidates(peer._pc.remoteDescription.sdp)}
        assert ports <= set(range(first, first + 3))
        assert ports


async def test_one_port_serves_one_session_and_the_next_hears_why_not() -> None:
    first = free_ports(1)
    async with start(with_ice(IceConfig(port_range=(first, first)))) as running:
        answer = await ask(running.http)
        assert answer.status_code == 201, answer.text
        assert {port for _, port, _ in candidates(answer.text)} == {first}
        full = await ask(running.http)
        assert full.status_code == 503
        assert full.json()["error"]["code"] == "no_udp_port"
        assert str(first) in full.json()["error"]["message"]
        assert len(running.server.sessions) == 1
        await running.http.delete(answer.headers["Location"])
        again = await ask(running.http)  # the port came back
        assert again.status_code == 201, again.text


def test_every_port_of_the_range_is_tried_from_a_random_one_on() -> None:
    paths = HostPaths(port_range=(50_000, 50_009))
    orders = [paths.ports() for _ in range(40)]
    assert all(sorted(order) == list(range(50_000, 50_010)) for order in orders)
    assert len({order[0] for order in orders}) > 3
    assert HostPaths().ports() == [0]


async def test_the_public_address_is_announced_instead_of_the_private_one() -> None:
    config = with_ice(IceConfig(public_address="203.0.113.7/127.0.0.1"))
    async with start(config) as running:
        announced = candidates((await ask(running.http)).text)
        hosts = {host for host, _, _ in announced}
        assert "203.0.113.7" in hosts
        assert "127.0.0.1" not in hosts
        assert {kind for *_, kind in announced} == {"host"}


async def test_peers_get_through_by_the_address_behind_the_public_one() -> None:
    """The server's socket is bound to 127.0.0.1 and announced as 127.0.0.2, which also leads there: as NAT does."""
    ours = aiortc_patches.peer_connection([], gather=HostPaths(public_address="127.0.0.2/127.0.0.1").gather)
    theirs = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    aiortc_patches.install(loopback=True)
    connected = asyncio.Event()
    theirs.on("connectionstatechange", lambda: theirs.connectionState == "connected" and connected.set())
    theirs.createDataChannel("talkalong")
    try:
        await theirs.setLocalDescription(await theirs.createOffer())
        await ours.setRemoteDescription(theirs.localDescription)
        await ours.setLocalDescription(await ours.createAnswer())
        assert "127.0.0.2" in ours.localDescription.sdp
        await theirs.setRemoteDescription(ours.localDescription)
        async with asyncio.timeout(20):
            await connected.wait()
    finally:
        await ours.close()
        await theirs.close()


async def test_relays_are_told_to_callers_with_the_token_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TALKALONG_TOKEN", raising=False)
    servers = (IceServerConfig(urls="stun:127.0.0.1:9"), IceServerConfig(urls=TURN, secret="hush"))
    config = with_ice(IceConfig(servers=servers), security=SecurityConfig(token="word"))
    bearer = {"Authorization": "Bearer word"}
    async with start(config) as running:
        http = running.http
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            told = (await http.get("/v1/server", headers=headers)).json()
            assert told["ice_servers"] == [{"urls": "stun:127.0.0.1:9"}]
            refused = await http.options("/v1/sessions", headers=headers)
            assert refused.status_code == 401
            assert "Link" not in refused.headers
        told = (await http.get("/v1/server", headers=bearer)).json()
        assert told["ice_servers"][1]["credential"]
        assert told["ice_transport_policy"] == "all"
        links = await http.options("/v1/sessions", headers=bearer)
        assert links.status_code == 204
        assert f'<{TURN}>; rel="ice-server"; username="' in links.headers["Link"]
        pc, sdp = await offer()
        opened = await http.post("/v1/sessions", content=sdp, headers=SDP | bearer)
        await pc.close()
        assert opened.status_code == 201
        assert 'credential-type="password"' in opened.headers["Link"]
        assert "hush" not in f"{told} {links.headers} {opened.headers}"


async def test_a_server_that_needs_its_relay_says_when_it_has_none(caplog: pytest.LogCaptureFixture) -> None:
    ice = IceConfig(servers=(IceServerConfig(urls=TURN, secret="hush"),), policy="relay")
    async with start(with_ice(ice)) as running:
        answer = await ask(running.http)
    assert answer.status_code == 503
    error = answer.json()["error"]
    assert error["code"] == "relay_unavailable"
    assert "127.0.0.1:9" in error["message"]
    assert "talkalong doctor" in error["message"]
    assert "hush" not in caplog.text + answer.text
