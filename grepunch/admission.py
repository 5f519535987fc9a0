"""What arrives in the hole unsealed: whose it is, and whether it is worth a computation.

Probes go to the peer whose key they carry, fragments of handshakes are put together, and an initiation is opened
only when it comes from an address that a probe has proven, and within the limits against floods. To everything else
the answer is silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Address

from grepunch.datapump import PeerTraffic
from grepunch.ports import GreFrame
from grepunch.secure.admission import Admission, TokenBucket
from grepunch.secure.fragments import Reassembler, build_fragments
from grepunch.secure.handshake import MessageType, open_initiation, parse_header
from grepunch.secure.identity import Identity
from pptp.errors import Drop, DropError, WireError
from pptp.wire.vendor import ClearKind, ClearPacket, build_clear, parse_clear

# ours: a probe names no peer, so one from an address that nobody is expected at is tried under the key of each. This
# many trials a second of 8 us are a tenth of one core.
PROBES_PER_SECOND = 12_000


class HandshakeDesk:
    """Takes clear frames for all peers; the endpoint makes one."""

    def __init__(
        self,
        identity: Identity,
        peers: Mapping[bytes, PeerTraffic],
        *,
        by_index: Callable[[int], PeerTraffic | None],
        peers_at: Callable[[IPv4Address], Sequence[PeerTraffic]],
        settled: Callable[[PeerTraffic], None],
        answer: Callable[[GreFrame, bytes], None],
        entropy: Callable[[int], bytes],
        now: Callable[[], float],
    ) -> None:
        """``peers`` by public key; ``by_index`` finds the peer that a local index was given to, and ``peers_at`` those
        whose packets go to an address; ``settled`` is told whose machine may have something to send; ``answer`` sends
        a PPP frame back where a frame came from."""
        self._identity = identity
        self._peers = peers
        self._by_index = by_index
        self._peers_at = peers_at
        self._settled = settled
        self._answer = answer
        self._now = now
        self._admission = Admission(identity.public_key, entropy, now())
        probes = max(1.0, PROBES_PER_SECOND / max(1, len(peers)))
        self._strangers = TokenBucket(probes, probes, now())
        self._reassembler = Reassembler(identity.public_key)
        self.drops: Counter[Drop] = Counter()

    def receive(self, frame: GreFrame) -> None:
        """A clear frame from the hole."""
        try:
            packet = parse_clear(frame.ppp)
            match packet.kind:
                case ClearKind.PROBE:
                    self._probe(frame, packet.body)
                case ClearKind.HANDSHAKE_FRAGMENT:
                    datagram = self._reassembler.receive(frame.source, packet.body, self._now())
                    if datagram is not None:
                        self._handshake(frame, datagram)
                case ClearKind.ECHO:
                    raise DropError(Drop.WRONG_PHASE)  # of a probe, which is another program's
        except WireError:
            self.drops[Drop.MALFORMED] += 1
        except DropError as error:
            self.drops[error.cause] += 1

    def _probe(self, frame: GreFrame, body: bytes) -> None:
        now = self._now()
        peers = self._peers_at(frame.source)
        if not peers and not self._strangers.take(now):
            raise DropError(Drop.RATE_LIMITED)
        for traffic in peers or self._peers.values():
            if traffic.machine.receive_probe(frame, body, now):
                self._settled(traffic)
                return
        self.drops[Drop.BAD_TAG] += 1

    def _handshake(self, frame: GreFrame, datagram: bytes) -> None:
        header = parse_header(datagram)
        source = (frame.source, frame.form)
        if header.type is not MessageType.INITIATION:
            traffic = self._by_index(header.receiver_index)
            if traffic is None:
                raise DropError(Drop.UNKNOWN_SESSION)
            traffic.machine.receive_answer(datagram, self._now())
            self._settled(traffic)
            return
        if not any(traffic.machine.trusts(frame.source) for traffic in self._peers.values()):
            raise DropError(Drop.UNPROVEN_SOURCE)
        cookie_reply = self._admission.admit(datagram, frame.source.packed, self._now())
        if cookie_reply is not None:
            self._ask_for_cookie(frame, cookie_reply)
            return
        opened = open_initiation(self._identity, datagram)
        traffic = self._peers.get(opened.peer_public_key)
        if traffic is None or not traffic.machine.trusts(frame.source):
            raise DropError(Drop.UNPROVEN_SOURCE)
        traffic.machine.receive_initiation(opened, source, self._now())
        self._settled(traffic)

    def _ask_for_cookie(self, frame: GreFrame, reply: bytes) -> None:
        """The sender is not known yet: a part's MAC is made for each peer that has proven this address."""
        for traffic in self._peers.values():
            if traffic.machine.trusts(frame.source):
                for part in build_fragments(reply, traffic.machine.config.public_key):
                    self._answer(frame, build_clear(ClearPacket(ClearKind.HANDSHAKE_FRAGMENT, part)))
