"""A server behind 1:1 NAT and a firewall that opens a few UDP ports, as on a cloud's machine or in a container."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.network import namespaces
from tests.network.conversation import PORT, check_pictures_and_sound, converse, start_server
from tests.network.namespaces import Network

PUBLIC, PRIVATE = "203.0.113.7", "10.202.1.2"
FIRST, LAST = 50_000, 50_003
SECONDS = 4.0
# The gateway knows the server as PUBLIC outside, and lets in: HTTP, and the UDP ports of the range.
RULES = f"""
table ip gateway {{
  chain inward {{ type nat hook prerouting priority dstnat; ip daddr {PUBLIC} dnat to {PRIVATE}; }}
  chain outward {{ type nat hook postrouting priority srcnat; ip saddr {PRIVATE} snat to {PUBLIC}; }}
  chain through {{
    type filter hook forward priority filter; policy drop;
    ip daddr {PRIVATE} tcp dport {PORT} accept
    ip daddr {PRIVATE} udp dport {FIRST}-{LAST} accept
    ip daddr {PRIVATE} ct state established accept
    ip saddr {PRIVATE} udp sport {FIRST}-{LAST} accept
    ip saddr {PRIVATE} tcp sport {PORT} accept
  }}
}}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("nft") is None, reason="nftables is not installed (nft)"),
]


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    if reason := namespaces.unavailable():
        pytest.skip(reason)
    rules = tmp_path / "rules.nft"
    rules.write_text(RULES)
    with Network("client", "gateway", "server") as network:
        network.link(("client", "203.0.113.20/24"), ("gateway", f"{PUBLIC}/24"))
        network.link(("server", f"{PRIVATE}/24"), ("gateway", "10.202.1.1/24"))
        network.ip("server", "route", "add", "default", "via", "10.202.1.1")
        done = network.run("gateway", "sh", "-c", f"echo 1 > /proc/sys/net/ipv4/ip_forward && nft -f {rules}")
        if done.returncode:
            pytest.skip(f"this kernel does no NAT: {done.stderr.strip()}")
        yield network


@pytest.mark.parametrize("address", [PUBLIC, None])
def test_the_server_is_found_by_its_public_address_and_the_open_ports(
    network: Network, tmp_path: Path, address: str | None
) -> None:
    """And is not where it announces its private address only and may not send first: the setting is what helps."""
    ports = [FIRST, LAST] if address else []
    start_server(network, tmp_path, host=PRIVATE, ice={"public_address": address, "port_range": ports})
    outcome = converse(network, f"http://{PUBLIC}:{PORT}", "--seconds", str(SECONDS), "--patience", "6")
    if address is None:
        assert "sound and picture do not get through" in outcome["error"]
        return
    check_pictures_and_sound(outcome, seconds=SECONDS)
    assert outcome["pair"] == ["host", "host"]
    places = [line.split()[4:6] for line in outcome["announced"]]
    assert places
    assert all(host == PUBLIC and FIRST <= int(port) <= LAST for host, port in places)
