"""What is mended in aiortc and aioice for clients that do things their own way."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aioice import Candidate, stun
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcdtlstransport import RTCCertificate

from stream import aiortc_patches
from stream.ice_gathering import HostPaths
from stream.negotiation import audio_codecs, negotiate
from tests.loopback.foreign_offers import audio, head

UFRAG, PASSWORD = "fu12", "abcdefghijklmnopqrstuvwxyz012345"


@pytest.fixture(autouse=True)
def installed() -> None:
    aiortc_patches.install(loopback=True)


@pytest.fixture
async def answered() -> AsyncIterator[tuple[RTCPeerConnection, str]]:
    """A connection that has answered an offer with the credentials above, and its answer."""
    pc = aiortc_patches.peer_connection([])
    pc.addTransceiver("audio", direction="recvonly").setCodecPreferences(audio_codecs())
    offer = head("0") + audio().replace("abcdefghijklmnopqrstuvwxyz", PASSWORD).replace(
        "abcd\n", f"{UFRAG}\n"
    )
    yield pc, await negotiate(pc, offer, "it needs sound.")
    await aiortc_patches.close_peer(pc, timeout_s=3)


def value(answer: str, name: str) -> str:
    return next(line for line in answer.splitlines() if line.startswith(name)).removeprefix(name)


@pytest.mark.parametrize("priority", [True, False])
async def test_checks_without_priority_connect(
    answered: tuple[RTCPeerConnection, str], priority: bool
) -> None:
    pc, answer = answered
    ours = [line.split() for line in answer.splitlines() if line.startswith("a=candidate:")]
    port = next(int(line[5]) for line in ours if line[4] == "127.0.0.1")
    assert aiortc_patches.heard_at(pc) is None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))
        client.setblocking(False)
        request = stun.Message(message_method=stun.Method.BINDING, message_class=stun.Class.REQUEST)
        request.attributes["USERNAME"] = f"{value(answer, 'a=ice-ufrag:')}:{UFRAG}"
        request.attributes["USE-CANDIDATE"] = None
        if priority:
            request.attributes["PRIORITY"] = 2130706431
        request.add_message_integrity(value(answer, "a=ice-pwd:").encode())
        client.sendto(bytes(request), ("127.0.0.1", port))
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5):
            while pc.iceConnectionState != "completed":
                data, address = await loop.sock_recvfrom(client, 2_000)
                if data[0] > 3:
                    continue  # the DTLS handshake begins
                check = stun.parse_message(data)
                if check.message_class == stun.Class.REQUEST:
                    reply = stun.Message(
                        message_method=stun.Method.BINDING,
                        message_class=stun.Class.RESPONSE,
                        transaction_id=check.transaction_id,
                    )
                    reply.attributes["XOR-MAPPED-ADDRESS"] = address
                    reply.add_message_integrity(PASSWORD.encode())
                    client.sendto(bytes(reply), address)
                    await asyncio.sleep(0.05)
    assert aiortc_patches.heard_at(pc) is not None


@pytest.mark.parametrize(
    ("foreign", "good"),
    [
        (["other", "own"], True),  # two certificates, this is the second
        (["own"], True),
        (["other"], False),
        (["weak", "own"], True),  # a hash that is not known beside it
    ],
)
async def test_one_fingerprint_of_several_is_enough(foreign: list[str], good: bool) -> None:
    ours, theirs = (RTCPeerConnection(RTCConfiguration(iceServers=[])) for _ in range(2))
    theirs.createDataChannel("talkalong")
    await theirs.setLocalDescription(await theirs.createOffer())
    other = RTCCertificate.generateCertificate().getFingerprints()[0].value
    own = value(theirs.localDescription.sdp, "a=fingerprint:sha-256 ")
    texts = {"own": f"sha-256 {own}", "other": f"sha-256 {other}", "weak": "sha-1 AB:CD"}
    lines = [line for line in theirs.localDescription.sdp.splitlines() if "a=fingerprint" not in line]
    offer = "\r\n".join([*lines, *(f"a=fingerprint:{texts[name]}" for name in foreign), ""])
    try:
        await ours.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        await ours.setLocalDescription(await ours.createAnswer())
        await theirs.setRemoteDescription(ours.localDescription)
        async with asyncio.timeout(10):
            while ours.connectionState not in ("connected", "failed", "closed"):  # noqa: ASYNC110 - a test polls
                await asyncio.sleep(0.01)
        assert (ours.connectionState == "connected") == good
    finally:
        await asyncio.gather(ours.close(), theirs.close())


async def test_closing_goes_on_where_aiortc_stumbles(answered: tuple[RTCPeerConnection, str]) -> None:
    pc, _ = answered
    transport = pc.getTransceivers()[0].receiver.transport.transport
    pc.addTransceiver(
        "video"
    ).receiver._RTCRtpReceiver__transport = None  # as a bundle without its first section did
    sockets = [protocol.transport for protocol in transport._connection._protocols]
    assert sockets
    assert await aiortc_patches.close_peer(pc, timeout_s=3) is False
    assert all(item.is_closing() for item in sockets)


@pytest.mark.parametrize("ends", [False, True])
async def test_a_slow_relay_joins_the_checks_after_the_answer(
    monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    """Our own address leads nowhere and theirs knows of none of ours: only the relay, which is late, connects them."""
    made = []

    async def slow_relay(*, protocol_factory: Callable[[], Any], **_: Any) -> tuple[Candidate, Any]:
        await asyncio.sleep(0.6)
        loop = asyncio.get_running_loop()
        transport, protocol = await loop.create_datagram_endpoint(
            protocol_factory, local_addr=("127.0.0.1", 0)
        )
        port = transport.get_extra_info("sockname")[1]
        protocol.local_candidate = Candidate("r", 1, "udp", 1, "127.0.0.1", port, "relay")
        made.append(transport)
        return protocol.local_candidate, protocol

    monkeypatch.setattr("stream.ice_gathering.SERVER_TIMEOUT_S", 0.2)
    monkeypatch.setattr("aioice.ice.relayed_candidate", slow_relay)
    turn = RTCIceServer("turn:127.0.0.1:9", "user", "word")
    ours = aiortc_patches.peer_connection([turn], gather=HostPaths().gather)
    theirs = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    theirs.createDataChannel("talkalong")
    try:
        await theirs.setLocalDescription(await theirs.createOffer())
        await ours.setRemoteDescription(
            RTCSessionDescription(theirs.localDescription.sdp.replace("a=end-of-candidates\r\n", ""), "offer")
        )
        monkeypatch.setattr("aioice.ice.get_host_addresses", lambda **_: ["127.0.0.1"])
        begin = asyncio.get_running_loop().time()
        await ours.setLocalDescription(await ours.createAnswer())
        assert asyncio.get_running_loop().time() - begin < 0.5
        assert "typ relay" not in ours.localDescription.sdp
        if ends:
            await ours.close()
            await asyncio.sleep(0.8)
            assert made[0].is_closing()
            return
        own = ours.sctp.transport.transport._connection._protocols[0]
        monkeypatch.setattr(own, "send_stun", lambda *_: None)
        answer = [line for line in ours.localDescription.sdp.splitlines() if "candidate" not in line]
        await theirs.setRemoteDescription(RTCSessionDescription("\r\n".join([*answer, ""]), "answer"))
        async with asyncio.timeout(10):
            while ours.connectionState != "connected":  # noqa: ASYNC110 - a test polls
                await asyncio.sleep(0.01)
        pair = aiortc_patches.selected_pair(ours)
        assert pair is not None
        assert pair[0] == "relay"
    finally:
        await asyncio.gather(ours.close(), theirs.close())


async def test_the_address_on_the_way_to_the_client_stands_first(monkeypatch: pytest.MonkeyPatch) -> None:
    routes = {"198.51.100.4": "127.0.0.3", "192.0.2.1": "127.0.0.2"}
    monkeypatch.setattr("stream.ice_gathering._routed", lambda address: routes.get(address, ""))
    for client, first in (
        ("198.51.100.4", "127.0.0.3"),
        ("127.0.0.1", "127.0.0.2"),  # perhaps a proxy
        ("2001:db8::1", "127.0.0.2"),
        ("testclient", "127.0.0.2"),
    ):
        pc = aiortc_patches.peer_connection([], gather=HostPaths(client=client).gather)
        monkeypatch.setattr(
            "aioice.ice.get_host_addresses", lambda **_: ["::1", "127.0.0.2", "127.0.0.1", "127.0.0.3"]
        )
        pc.createDataChannel("talkalong")
        await pc.setLocalDescription(await pc.createOffer())
        lines = [
            line.split()[4]
            for line in pc.localDescription.sdp.splitlines()
            if line.startswith("a=candidate:")
        ]
        assert lines[0] == first
        assert lines[-1] == "::1"
        await pc.close()
