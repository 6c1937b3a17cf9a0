"""A client's address as it announces it: one `a=candidate:` line (RFC 8839, 5.1)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Self

from aiortc import RTCIceCandidate

KINDS = ("host", "srflx", "prflx", "relay")
MAX_PRIORITY = 2**32 - 1
# Foundation, component, transport, priority, address, port, kind; what follows is not needed.
_LINE = re.compile(
    r"(?:a=)?candidate:(\S+) (\d{1,3}) (\w+) (\d{1,10}) (\S+) (\d{1,5}) typ (\w+)(?: .*)?", re.ASCII
)
_LOCAL_NAME = re.compile(r"[\w-]+\.local", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A UDP address of RTP. address: an IP address, or a name that ends in .local (mDNS)."""

    foundation: str
    priority: int
    address: str
    port: int
    kind: str

    @classmethod
    def parse(cls, line: str) -> Self | None:
        """None for what cannot be read and for what is of no use here: TCP, RTCP's own port, names to be looked up, and
        addresses that belong to nobody or to the client's own link only."""
        match = _LINE.fullmatch(line.strip())
        if match is None:
            return None
        foundation, component, transport, priority, address, port, kind = match.groups()
        known = component == "1" and transport.lower() == "udp" and kind.lower() in KINDS
        if not known or not 0 < int(port) < 65_536 or int(priority) > MAX_PRIORITY:
            return None
        if not _LOCAL_NAME.fullmatch(address):
            try:
                ip = ipaddress.ip_address(address)
            except ValueError:
                return None
            if (
                ip.is_unspecified
                or ip.is_multicast
                or (isinstance(ip, ipaddress.IPv6Address) and ip.scope_id)
            ):
                return None
            address = str(ip)
        return cls(
            foundation=foundation, priority=int(priority), address=address, port=int(port), kind=kind.lower()
        )

    @property
    def is_named(self) -> bool:
        """An mDNS name: a private address in disguise, which takes a second to find out."""
        return bool(_LOCAL_NAME.fullmatch(self.address))

    @property
    def is_global(self) -> bool:
        if self.is_named:
            return False
        ip = ipaddress.ip_address(self.address)
        mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
        return (mapped or ip).is_global

    def for_aiortc(self, mid: str) -> RTCIceCandidate:
        """Of the section `mid`. A peer-reflexive one is announced as what it is to the client: reflexive."""
        return RTCIceCandidate(
            component=1,
            foundation=self.foundation,
            ip=self.address,
            port=self.port,
            priority=self.priority,
            protocol="udp",
            type="srflx" if self.kind == "prflx" else self.kind,
            sdpMid=mid,
        )
