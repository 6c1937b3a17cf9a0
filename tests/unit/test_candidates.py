"""A client's candidates: which are taken, how many, and that a line that cannot be read harms nobody."""

from __future__ import annotations

from typing import Any, cast

import pytest
from aiortc import RTCIceCandidate, RTCPeerConnection

from stream.candidate import Candidate
from stream.config import IceConfig, LimitsConfig, ServeConfig
from stream.errors import BadRequestError, UnprocessableError
from stream.security import Guard
from stream.trickle import Trickle, check_fragment

HOSTS = [f"a=candidate:{i} 1 UDP 2122252543 172.{16 + i}.0.1 33514 typ host" for i in range(30)]
TCP = [f"a=candidate:{i} 1 TCP 2105459711 172.{16 + i}.0.1 9 typ host tcptype active" for i in range(30)]
REFLEXIVE = "a=candidate:60 1 UDP 1685987071 198.51.100.7 4000 typ srflx raddr 172.16.0.1 rport 33514"
RELAY = "a=candidate:61 1 UDP 92217343 203.0.113.9 5000 typ relay raddr 198.51.100.7 rport 4000"


class Connection:
    """What a connection is to `Trickle`."""

    def __init__(self) -> None:
        self.taken: list[RTCIceCandidate] = []

    async def addIceCandidate(self, candidate: RTCIceCandidate) -> None:
        self.taken.append(candidate)


def trickle(**ice: Any) -> tuple[Trickle, list[RTCIceCandidate]]:
    connection, config = Connection(), ServeConfig(ice=IceConfig(**ice))
    return Trickle(
        cast(RTCPeerConnection, connection), guard=Guard(config), limit=config.limits.candidates
    ), connection.taken


def fragment(*lines: str, mid: str = "0") -> str:
    return "\r\n".join([f"a=mid:{mid}", *lines, ""])


async def test_hosts_beyond_the_limit_are_left_out_and_reflexive_and_relay_stay() -> None:
    many, taken = trickle()
    await many.add(fragment(*TCP, *HOSTS))
    await many.add(fragment(*HOSTS))  # once more
    await many.add(fragment(REFLEXIVE, RELAY))
    limit = LimitsConfig().candidates
    assert [item.ip for item in taken] == [
        *(f"172.{16 + i}.0.1" for i in range(limit)),
        "198.51.100.7",
        "203.0.113.9",
    ]
    assert [item.type for item in taken[limit:]] == ["srflx", "relay"]


async def test_relays_have_a_limit_too() -> None:
    many, taken = trickle()
    await many.add(fragment(*[RELAY.replace(" 5000 ", f" {port} ") for port in range(5_000, 5_500)]))
    await many.add(fragment(HOSTS[0]))
    assert len(taken) == LimitsConfig().candidates + 1


async def test_a_whole_offer_is_a_fragment_too() -> None:
    """Three sections with the same candidates: each section's transport gets them, and they count once."""
    many, taken = trickle()
    parts = [
        "m=audio 9 UDP/TLS/RTP/SAVPF 111\n" + "\n".join([*HOSTS[:11], *TCP[:11]]) + f"\na=mid:{i}\n"
        for i in range(3)
    ]
    await many.add("v=0\n" + "".join(parts) + RELAY)
    assert [item.sdpMid for item in taken] == ["0"] * 11 + ["1"] * 11 + ["2"] * 12
    assert len({item.ip for item in taken}) == 12


@pytest.mark.parametrize(
    "line",
    [
        "a=candidate:",
        "a=candidate:rubbish",
        "a=candidate:1 1 udp 1 192.0.2.1 99999999 typ host",
        "a=candidate:1 1 udp 1 192.0.2.1 65536 typ host",
        "a=candidate:1 1 udp 1 192.0.2.1 0 typ host",
        "a=candidate:1 1 udp 1 192.0.2.1 -5 typ host",
        "a=candidate:1 1 udp 99999999999999999999 192.0.2.1 5 typ host",
        "a=candidate:1 1 udp 4294967296 192.0.2.1 5 typ host",
        "a=candidate:1 x udp 1 192.0.2.1 5 typ host",
        "a=candidate:1 2 udp 1 192.0.2.1 5 typ host",
        "a=candidate:1 1 tcp 1 192.0.2.1 5 typ host",
        "a=candidate:1 1 udp 1 192.0.2.1 5 typ nonsense",
        "a=candidate:1 1 udp 1 192.0.2.1 5 host",
        "a=candidate:1 1 udp 1 host.example.net 5 typ host",
        "a=candidate:1 1 udp 1 300.0.2.1 5 typ host",
        "a=candidate:1 1 udp 1 fe80::1%eth0 5 typ host",
        "a=candidate:1 1 udp 1 0.0.0.0 5 typ host",
        "a=candidate:1 1 udp 1 224.0.0.1 5 typ host",
        "a=candidate:1 1 udp 1 ff02::1 5 typ host",
        "a=candidate:1 1 udp 1 192.0.2.1",
    ],
)
async def test_what_cannot_be_used_is_passed_over(line: str) -> None:
    one, taken = trickle()
    await one.add(fragment(line, HOSTS[0]))
    assert [item.ip for item in taken] == ["172.16.0.1"]


def test_what_stands_behind_a_candidate_does_not_matter() -> None:
    plain = Candidate.parse("a=candidate:1 1 udp 7 2001:DB8::1 5 typ host")
    assert plain is not None
    assert plain.address == "2001:db8::1"
    for more in ("generation 0 ufrag abcd network-cost 999", "raddr 0.0.0.0 rport x", "tcptype", "a b c d e"):
        assert Candidate.parse(f"candidate:1 1 UDP 7 2001:db8::1 5 typ HOST {more}") == plain


async def test_private_addresses_are_refused_where_so_configured() -> None:
    public, taken = trickle(private_candidates=False)
    hidden = [
        "a=candidate:1 1 udp 1 10.0.0.1 5 typ host",
        "a=candidate:1 1 udp 1 ::ffff:10.0.0.1 5 typ host",
        "a=candidate:1 1 udp 1 127.0.0.1 5 typ host",
        "a=candidate:1 1 udp 1 0fa2-b4.local 5 typ host",
        "a=candidate:1 1 udp 1 fd00::1 5 typ host",
    ]
    await public.add(fragment(*hidden, "a=candidate:1 1 udp 1 8.8.8.8 5 typ host"))
    assert [item.ip for item in taken] == ["8.8.8.8"]


def test_fragments_and_restarts() -> None:
    offer = "v=0\r\na=ice-ufrag:abcd\r\na=ice-pwd:efgh\r\n"
    for good in (
        fragment(HOSTS[0]),
        "a=ice-ufrag:abcd\ra=ice-pwd:efgh\ra=mid:0\r",
        "\ufeff\n\nm=audio 9 x 0\na=mid:0",
        "a=candidate:rubbish",
    ):
        check_fragment(good, offer)
    for bad in ("", "\r\n", "hello", "a=mid:0\nhello"):
        with pytest.raises(BadRequestError, match="a=mid:0"):
            check_fragment(bad, offer)
    with pytest.raises(UnprocessableError, match="DELETE"):
        check_fragment("a=ice-ufrag:other\na=ice-pwd:efgh", offer)
