"""A connection of ours whose other end is played by the test: it says what it is told to and hears everything."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pptp.ordinary import Admit, Authenticated, GreOut, OrdinaryConfig, OrdinaryEvent, StreamOut
from pptp.wire.control import (
    ControlMessage,
    MessageSplitter,
    OutgoingCallReply,
    OutgoingCallRequest,
    StartControlConnectionReply,
    StartControlConnectionRequest,
    build_message,
    parse_message,
)
from pptp.wire.cp import Code, CpPacket, Option, build_options, build_packet, parse_packet
from pptp.wire.gre import GrePacket, build_v1, parse
from pptp.wire.ppp import PppFrame, Protocol, build
from pptp.wire.ppp import parse as parse_ppp
from tests.calls.call_world import admit_one, end

EventT = TypeVar("EventT", bound=OrdinaryEvent)
THEIRS = 7  # the Call ID that the scripted end gives itself
MAGIC = Option(5, b"\x11\x22\x33\x44")


class Scripted:
    """The other end of one of our connections, played by the test."""

    def __init__(
        self,
        config: OrdinaryConfig,
        *,
        seed: int = 1,
        admit: Admit = admit_one,
        first: int = 0,
        entropy: Callable[[int], bytes] | None = None,
    ) -> None:
        self.config = config
        self.owner = end(config, seed, admit=admit, entropy=entropy)
        self.connection = self.owner.connection
        self.now = 0.0
        self.ours = 0  # the Call ID of the end under test
        self.sequence = first
        self.events: list[OrdinaryEvent] = []
        self.messages: list[ControlMessage] = []  # since they were last taken
        self.packets: list[GrePacket] = []
        self.stream: list[bytes] = []
        self._splitter = MessageSplitter()
        self.connection.open(self.now)
        self.collect()

    # -- what it hears ----------------------------------------------------------------------------------------

    def collect(self) -> None:
        """Take what the connection says."""
        for out in self.connection.transmits():
            if isinstance(out, GreOut):
                self.packets.append(parse(out.packet))
            else:
                assert isinstance(out, StreamOut)
                self.stream.append(out.data)
                self._splitter.feed(out.data)
        while (message := self._splitter.next_message()) is not None:
            self.messages.append(parse_message(message))
        self.events += self.connection.events()

    def take_messages(self) -> list[ControlMessage]:
        """The control messages since the last time."""
        taken, self.messages = self.messages, []
        return taken

    def take_packets(self) -> list[GrePacket]:
        """The GRE packets since the last time."""
        taken, self.packets = self.packets, []
        return taken

    def take_frames(self) -> list[PppFrame]:
        """The PPP frames since the last time; packets that only acknowledge are left out."""
        return [parse_ppp(bytes(packet.payload)) for packet in self.take_packets() if packet.payload]

    def take_cp(self, protocol: int) -> list[CpPacket]:
        """The packets of one control protocol since the last time; others are thrown away."""
        return [parse_packet(frame.information) for frame in self.take_frames() if frame.protocol == protocol]

    def of(self, kind: type[EventT]) -> list[EventT]:
        """The events of one kind, oldest first."""
        return [event for event in self.events if isinstance(event, kind)]

    def one(self, kind: type[EventT]) -> EventT:
        """The only event of a kind."""
        (event,) = self.of(kind)
        return event

    # -- what it says -----------------------------------------------------------------------------------------

    def octets(self, data: bytes) -> list[ControlMessage]:
        """Octets of the stream; the messages that answer."""
        self.connection.receive_stream(data, self.now)
        self.collect()
        return self.take_messages()

    def say(self, *messages: ControlMessage) -> list[ControlMessage]:
        """Control messages in one segment; those that answer."""
        return self.octets(b"".join(map(build_message, messages)))

    def gre(self, frame: bytes, sequence: int | None = None, acknowledgement: int | None = None) -> list[bytes]:
        """A PPP frame, under the next sequence number or another; the IP packets that come out."""
        if sequence is None:
            sequence, self.sequence = self.sequence, self.sequence + 1
        return self.raw(build_v1(self.ours, frame, sequence & 0xFFFFFFFF, acknowledgement))

    def raw(self, packet: bytes) -> list[bytes]:
        """A GRE packet; the IP packets that come out."""
        received = self.connection.receive_gre(memoryview(packet), self.now)
        data = [bytes(information) for _, information in received]
        self.collect()
        return data

    def ppp(self, protocol: int, information: bytes, *, acfc: bool = False, pfc: bool = False) -> list[bytes]:
        """A PPP frame; the IP packets that come out."""
        return self.gre(build(protocol, information, acfc=acfc, pfc=pfc))

    def cp(self, protocol: int, code: int, identifier: int, *options: Option, data: bytes = b"") -> None:
        """A packet of a control protocol, with options or other data."""
        packet = CpPacket(code, identifier, build_options(options) or data)
        self.ppp(protocol, build_packet(packet))

    def ask(self, protocol: int, identifier: int, *options: Option) -> CpPacket:
        """A Configure-Request, and the answer to it."""
        self.take_packets()
        self.cp(protocol, Code.CONFIGURE_REQUEST, identifier, *options)
        (answer,) = [packet for packet in self.take_cp(protocol) if packet.code in (2, 3, 4)]
        assert answer.identifier == identifier
        return answer

    def wait(self, seconds: float) -> None:
        """Let time pass, and what is due be done."""
        until = self.now + seconds
        while (due := self.connection.deadline()) is not None and due <= until:
            self.now = max(self.now, due)
            self.connection.handle_timeout(self.now)
            self.collect()
        self.now = until

    # -- what most scripts begin with -------------------------------------------------------------------------

    def call_up(self, window: int = 64) -> Scripted:
        """Control connection and call."""
        if self.config.dials:
            (start,) = self.take_messages()
            assert isinstance(start, StartControlConnectionRequest)
            (request,) = self.say(StartControlConnectionReply())
            assert isinstance(request, OutgoingCallRequest)
            self.ours = request.call_id
            self.say(OutgoingCallReply(THEIRS, self.ours, receive_window=window))
            return self
        self.say(StartControlConnectionRequest())
        (reply,) = self.say(OutgoingCallRequest(THEIRS, receive_window=window))
        assert isinstance(reply, OutgoingCallReply)
        assert reply.peer_call_id == THEIRS
        self.ours = reply.call_id
        return self

    def acknowledge(self, protocol: int) -> CpPacket:
        """Answer our latest Configure-Request of a protocol with an Ack; other frames are thrown away."""
        requests = [packet for packet in self.take_cp(protocol) if packet.code == Code.CONFIGURE_REQUEST]
        self.cp(protocol, Code.CONFIGURE_ACK, requests[-1].identifier, data=requests[-1].data)
        return requests[-1]

    def lcp_up(self, *options: Option) -> Scripted:
        """Control connection, call and LCP."""
        self.call_up()
        self.wait(0.3)
        self.acknowledge(Protocol.LCP)
        self.take_packets()
        answer = self.ask(Protocol.LCP, 1, *(options or (MAGIC,)))
        assert answer.code == Code.CONFIGURE_ACK
        return self

    def exchange_until_quiet(self, answer: Callable[[PppFrame], None]) -> None:
        """Hand every frame to ``answer``, which may say something, until nothing more comes."""
        while frames := self.take_frames():
            for frame in frames:
                answer(frame)

    @property
    def authenticated(self) -> bool:
        """Whether somebody is known."""
        return bool(self.of(Authenticated))
