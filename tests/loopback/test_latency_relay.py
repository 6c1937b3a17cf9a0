"""The relay passes packets both ways unharmed, then loses and delays them as asked, the same ones in every run."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from client.errors import ClientError
from client.latency.network import Profile
from client.latency.relay import Relay

SDP = "\r\n".join([
    "v=0", "s=-",
    "m=audio 9 UDP/TLS/RTP/SAVPF 111", "c=IN IP4 0.0.0.0", "a=candidate:7 1 udp 1 10.9.8.7 4444 typ host",
    "a=candidate:8 1 tcp 1 10.9.8.7 9 typ host tcptype active", "a=mid:0",
    "m=video 9 UDP/TLS/RTP/SAVPF 96", "c=IN IP4 0.0.0.0", "a=mid:1", "",
])  # fmt: skip


def end() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("127.0.0.1", 0))
    made.setblocking(False)
    return made


def candidate(sdp: str) -> tuple[str, int]:
    line = next(line for line in sdp.splitlines() if line.startswith("a=candidate"))
    return line.split()[4], int(line.split()[5])


async def receive(where: socket.socket) -> bytes:
    async with asyncio.timeout(20):
        return await asyncio.get_running_loop().sock_recv(where, 2_048)


class Call:
    """A browser and a server that know each other by the relay's candidates only."""

    def __init__(self, conditions: Profile) -> None:
        self.browser, self.server = end(), end()
        self.relay = Relay.open("http://localhost:8080", conditions)
        self.to_browser = candidate(self.relay.offer(SDP))
        mine = SDP.replace("10.9.8.7 4444", "{} {}".format(*self.server.getsockname()))
        self.to_server = candidate(self.relay.answer(mine))

    def hang_up(self) -> None:
        self.relay.aclose()
        self.browser.close()
        self.server.close()


def test_every_media_section_names_the_relay_and_nobody_else() -> None:
    async def run() -> str:
        relay = Relay.open("http://127.0.0.1:1", Profile())
        offer = relay.offer(SDP)
        relay.aclose()
        relay.aclose()
        return offer

    offer = asyncio.run(run())
    assert "10.9.8.7" not in offer
    assert offer.count("a=candidate:") == offer.count("m=") == 2
    assert offer.index("a=mid:0") < offer.index("a=candidate:") < offer.index("m=video")


async def test_packets_pass_both_ways_until_they_are_to_suffer() -> None:
    call = Call(Profile(loss=0.5))
    call.server.sendto(b"too early: nobody is known yet", call.to_browser)
    for number in range(50):
        call.browser.sendto(b"up %d" % number, call.to_server)
        assert await receive(call.server) == b"up %d" % number
        call.server.sendto(b"down %d" % number, call.to_browser)
        assert await receive(call.browser) == b"down %d" % number
    call.hang_up()


async def lost(seed: int) -> list[int]:
    call = Call(Profile(loss=0.2, seed=seed))
    call.relay.impair()
    for number in range(200):
        call.browser.sendto(b"%d" % number, call.to_server)
        await asyncio.sleep(0.001)
    got = set()
    async with asyncio.timeout(20):
        reading = asyncio.create_task(_read_until_last(call.server, got))
        while not reading.done():  # the last one may be lost as well
            call.browser.sendto(b"last", call.to_server)
            await asyncio.sleep(0.005)
    call.hang_up()
    return sorted(set(range(200)) - got)


async def _read_until_last(where: socket.socket, got: set[int]) -> None:
    while (data := await asyncio.get_running_loop().sock_recv(where, 64)) != b"last":
        got.add(int(data))


async def test_the_same_packets_are_lost_in_every_run() -> None:
    first = await lost(1)
    assert 20 < len(first) < 65
    assert await lost(1) == first
    assert await lost(2) != first


async def test_a_delay_is_there_in_each_direction() -> None:
    call = Call(Profile(delay_ms=40))
    call.browser.sendto(b"known", call.to_server)
    await receive(call.server)
    call.relay.impair()
    took = []
    while not took or min(took) > 0.1:  # a busy machine may add to each, but not to all
        started = time.monotonic()
        call.browser.sendto(b"question", call.to_server)
        assert await receive(call.server) == b"question"
        call.server.sendto(b"answer", call.to_browser)
        assert await receive(call.browser) == b"answer"
        took.append(time.monotonic() - started)
        assert len(took) < 100, f"the quickest of 100 took {min(took):.3f} s"
    assert min(took) > 0.078
    call.hang_up()


async def test_an_answer_without_a_place_is_a_sentence() -> None:
    call = Call(Profile())
    with pytest.raises(ClientError, match="names no UDP address"):
        call.relay.answer("v=0\r\nm=audio 9 x 0\r\na=candidate:1 1 udp 1 fe80::1 99 typ host\r\n")
    call.hang_up()
