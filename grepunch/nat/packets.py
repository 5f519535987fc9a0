"""The GRE packets of a probe: what the client asks of the echo server, and what that answers.

To a NAT they look like a peer's own: PPP in GRE, LCP Vendor-Specific. The body is::

    cookie 24 | test 1 | sequence 1 | answer 1 | delay 1 | Call ID for the answer 2 | padding

The server's answer has the same body but for ``answer``, and the same length. A cookie is an identifier (4 octets),
when it ends (4, seconds on the server's clock) and a MAC over both and the address it was handed to.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import replace
from hashlib import sha256
from ipaddress import IPv4Address

from pptp.errors import WireCause, WireError
from pptp.mtu import GRE_V0_HEADER, GRE_V1_HEADER, IPV4_HEADER
from pptp.value import value
from pptp.wire import gre
from pptp.wire.vendor import CLEAR_OVERHEAD, ClearKind, ClearPacket, build_clear, parse_clear

COOKIE_SIZE = 24
COOKIE_LIFE = 60  # ours: seconds; a client whose tests take longer asks for another
MAC_SIZE = 16
_COOKIE = struct.Struct("!II")
_BODY = struct.Struct(f"!{COOKIE_SIZE}sBBBBH")

OVERHEAD = {
    0: IPV4_HEADER + GRE_V0_HEADER + CLEAR_OVERHEAD + _BODY.size,
    1: IPV4_HEADER + GRE_V1_HEADER + CLEAR_OVERHEAD + _BODY.size,
}
"""Octets of the smallest outer packet, by GRE version."""


@value
class EchoPacket:
    """One packet. ``call_id`` is that in the GRE header (0 in version 0), ``answer_call_id`` the one wanted back;
    ``delay`` is how many seconds the server is to wait; ``padding`` in octets."""

    version: int
    call_id: int
    cookie: bytes
    test: int
    sequence: int
    answer: bool = False
    delay: int = 0
    answer_call_id: int = 0
    padding: int = 0

    def answered(self) -> EchoPacket:
        """What the server sends back: as long as this, under the Call ID that was asked for."""
        return replace(self, answer=True, call_id=self.answer_call_id if self.version else 0)


def build(packet: EchoPacket) -> bytes:
    """The GRE packet, without an IP header."""
    body = _BODY.pack(
        packet.cookie, packet.test, packet.sequence, packet.answer, packet.delay, packet.answer_call_id
    ) + bytes(packet.padding)
    frame = build_clear(ClearPacket(ClearKind.ECHO, body))
    return gre.build_v1(packet.call_id, frame, packet.sequence) if packet.version else gre.build_v0(frame)


def parse(data: bytes) -> EchoPacket:
    """A GRE packet of a probe, without its IP header; raises :class:`WireError`."""
    packet = gre.parse(data)
    clear = parse_clear(packet.payload)
    if clear.kind is not ClearKind.ECHO:
        raise WireError("GRE echo", WireCause.BAD_TYPE, f"kind {clear.kind}")
    if len(clear.body) < _BODY.size:
        raise WireError("GRE echo", WireCause.TRUNCATED, f"{len(clear.body)} octets")
    cookie, test, sequence, answer, delay, answer_call_id = _BODY.unpack_from(clear.body)
    if answer > 1:
        raise WireError("GRE echo", WireCause.BAD_VALUE, f"answer {answer}")
    padding = len(clear.body) - _BODY.size
    return EchoPacket(
        packet.version, packet.call_id, cookie, test, sequence, bool(answer), delay, answer_call_id, padding
    )


def make_cookie(key: bytes, identifier: int, until: int, address: IPv4Address) -> bytes:
    """A cookie for one client at one address; ``until`` on the server's clock, in seconds."""
    head = _COOKIE.pack(identifier, until)
    return head + _mac(key, head, address)


def cookie_identifier(cookie: bytes) -> int:
    """Whose cookie it says to be."""
    identifier: int = _COOKIE.unpack_from(cookie)[0]
    return identifier


def cookie_holds(key: bytes, cookie: bytes, address: IPv4Address, now: float) -> bool:
    """Whether this server has handed this cookie to this address, and it has not ended."""
    head = cookie[: _COOKIE.size]
    _, until = _COOKIE.unpack(head)
    return hmac.compare_digest(cookie[_COOKIE.size :], _mac(key, head, address)) and now <= until


def _mac(key: bytes, head: bytes, address: IPv4Address) -> bytes:
    return hmac.digest(key, head + address.packed, sha256)[:MAC_SIZE]
