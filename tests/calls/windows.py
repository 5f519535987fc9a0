"""A Windows 10 client of PPTP, rebuilt from descriptions.

Nobody here has one: what it does is put together from published logs of real Windows 10 clients and from what servers'
sources say of them. Order, option values, identifiers and oddities are theirs; keys and hashes are computed by our own
code, which RFC 2759's and RFC 3079's vectors judge elsewhere.
"""

from __future__ import annotations

from ipaddress import IPv4Address

from pptp.crypto.legacy import challenge_hash, challenge_response, nt_password_hash
from pptp.crypto.mppe import MPPE_PROTOCOL, MppeDecryptor, MppeEncryptor, MppeMode
from pptp.crypto.mppe_keys import Strength, master_key, start_keys
from pptp.ordinary import OrdinaryConfig
from pptp.wire.auth import (
    ChapChallenge,
    ChapResponse,
    ChapResult,
    MsResponse,
    build_chap,
    build_ms_response,
    parse_chap,
)
from pptp.wire.control import (
    CallClearRequest,
    ControlMessage,
    OutgoingCallReply,
    OutgoingCallRequest,
    SetLinkInfo,
    StartControlConnectionReply,
    StartControlConnectionRequest,
    StopControlConnectionReply,
    StopControlConnectionRequest,
)
from pptp.wire.cp import Code, Option, build_packet, parse_options, parse_packet
from pptp.wire.cp import CpPacket as Cp
from pptp.wire.gre import build_v1
from pptp.wire.ppp import PppFrame, Protocol, build
from tests.calls.call_world import PASSWORD
from tests.calls.scripted import Scripted

MAGIC = b"\x35\x5c\x21\x0f"
CALLBACK = Option(13, b"\x06")
MULTILINK = (
    Option(17, b"\x06\x4e"),
    Option(19, b"\x01" + bytes.fromhex("3a5f81c9d4e2460f9b1746d8a0c3e511") + b"\0\0\0\0"),
)
IDENTIFICATIONS = (b"MSRASV5.20", b"MSRAS-0-DESKTOP-7QK2", bytes.fromhex("5c2290f1c20f4b469be7001bff0a7c31"))
SERVERS = (129, 130, 131, 132)
NONE = bytes(4)


class Windows:
    """The client. ``script`` is our server with the wire to it; each step is a method, in the order of a real log."""

    def __init__(
        self,
        config: OrdinaryConfig,
        *,
        name: bytes = b"alice",
        password: str = PASSWORD,
        multilink: bool = False,
        swaps: bool = True,
        encrypts: bool = True,
    ) -> None:
        self.script = Scripted(config)
        self.name = name
        self.password = password
        self.encrypts = encrypts
        self.lcp = [Option(1, b"\x05\x78"), Option(5, MAGIC), Option(7), Option(8), CALLBACK]
        self.lcp += MULTILINK if multilink else ()
        self.lcp_identifier = 0  # its first Configure-Request has identifier 0
        self.identifier = 4  # those after LCP go on from here
        self.ccp = Option(18, b"\x01\0\0\0")  # its first offer names no strength
        self.ipcp = {3: NONE} | dict.fromkeys(SERVERS, NONE)
        self.rejected_of_ipcp: list[int] = []
        self.ipcp_answers: list[int] = []
        self.opened: set[int] = set()
        self.verdicts: list[ChapResult] = []
        self.rejected_protocols: list[int] = []
        self.encryptor: MppeEncryptor | None = None
        self.decryptor: MppeDecryptor | None = None
        self.keys = (b"", b"")
        self.received: list[bytes] = []
        self.holds_ccp = False  # whether CCP is kept back until IPCP is open
        self._swaps = swaps
        self._held: bytes | None = None

    # -- control connection -----------------------------------------------------------------------------------

    def dial(self) -> list[ControlMessage]:
        """Start-Request, Outgoing-Call-Request, Set-Link-Info, with Windows' values."""
        (start,) = self.script.say(
            StartControlConnectionRequest(
                framing_capabilities=1, bearer_capabilities=1, maximum_channels=0, vendor_name=b"Microsoft"
            )
        )
        assert isinstance(start, StartControlConnectionReply)
        (reply,) = self.script.say(
            OutgoingCallRequest(0x1C2B, 2, 300, 100_000_000, 3, 3, receive_window=64, processing_delay=0)
        )
        assert isinstance(reply, OutgoingCallReply)
        self.script.ours = reply.call_id
        return self.script.say(SetLinkInfo(reply.call_id, 0xFFFFFFFF, 0xFFFFFFFF))

    def hang_up(self) -> list[ControlMessage]:
        """Call-Clear-Request, then Stop-Request."""
        said = self.script.say(CallClearRequest(0x1C2B))
        said += self.script.say(StopControlConnectionRequest(1))
        assert isinstance(said[-1], StopControlConnectionReply)
        return said

    # -- PPP ----------------------------------------------------------------------------------------------------

    def send(self, protocol: int, information: bytes) -> None:
        """A frame; every third swaps places with the one that follows, as Windows does while it negotiates."""
        sequence, self.script.sequence = self.script.sequence, self.script.sequence + 1
        compressed = protocol != Protocol.LCP
        frame = build(protocol, information, acfc=compressed, pfc=compressed)
        packet = build_v1(self.script.ours, frame, sequence)
        if self._swaps and self._held is None and sequence % 3 == 2:
            self._held = packet
            return
        self.received += self.script.raw(packet)
        if self._held is not None:
            held, self._held = self._held, None
            self.received += self.script.raw(held)

    def request(self, protocol: int) -> None:
        """A Configure-Request with what is wanted now."""
        if protocol == Protocol.LCP:
            options, identifier = self.lcp, self.lcp_identifier
            self.lcp_identifier += 1
        else:
            identifier, self.identifier = self.identifier, self.identifier + 1
            options = {
                int(Protocol.CCP): [self.ccp],
                int(Protocol.IPCP): [Option(kind, value) for kind, value in self.ipcp.items()],
                int(Protocol.IPV6CP): [Option(1, bytes.fromhex("d1a3c40e55b20719"))],
            }[protocol]
        data = b"".join(bytes((option.type, 2 + len(option.value))) + option.value for option in options)
        self.send(protocol, build_packet(Cp(Code.CONFIGURE_REQUEST, identifier, data)))

    def begin(self) -> None:
        """Send the first Configure-Request, and answer what comes until it is quiet."""
        self.request(Protocol.LCP)
        self.settle()

    def settle(self) -> None:
        """Answer what comes until nothing more does; what is held back by then goes out alone."""
        while True:
            self.script.exchange_until_quiet(self.hear)
            if self._held is None:
                return
            held, self._held = self._held, None
            self.received += self.script.raw(held)

    def hear(self, frame: PppFrame) -> None:
        """One frame of the server."""
        information = bytes(frame.information)
        match frame.protocol:
            case Protocol.CHAP:
                self.hear_chap(information)
            case Protocol.LCP:
                self.hear_lcp(parse_packet(information))
            case Protocol.CCP | Protocol.IPCP | Protocol.IPV6CP:
                self.hear_network(frame.protocol, parse_packet(information))
            case Protocol.MPPE:
                assert self.decryptor is not None
                self.received.append(self.decryptor.decrypt(information)[1])
            case _:
                self.received.append(information)

    def hear_lcp(self, packet: Cp) -> None:
        match packet.code:
            case Code.CONFIGURE_REQUEST:
                wanted = {option.type: option.value for option in parse_options(packet.data)}
                if wanted.get(3) not in (None, b"\xc2\x23\x81"):
                    nak = Cp(Code.CONFIGURE_NAK, packet.identifier, b"\x03\x05\xc2\x23\x81")
                    self.send(Protocol.LCP, build_packet(nak))
                    return
                self.send(Protocol.LCP, build_packet(Cp(Code.CONFIGURE_ACK, packet.identifier, packet.data)))
                self.identify()
            case Code.CONFIGURE_REJECT:
                rejected = [option.type for option in parse_options(packet.data)]
                self.lcp = [option for option in self.lcp if option.type not in rejected]
                self.request(Protocol.LCP)
            case Code.PROTOCOL_REJECT:
                self.rejected_protocols.append(int.from_bytes(packet.data[:2], "big"))
            case Code.CONFIGURE_ACK:
                self.opened.add(int(Protocol.LCP))

    def identify(self) -> None:
        """Three Identifications: version, host, and 16 octets of a GUID."""
        for number, text in enumerate(IDENTIFICATIONS, 1):
            self.send(Protocol.LCP, build_packet(Cp(Code.IDENTIFICATION, number, MAGIC + text)))

    def hear_chap(self, information: bytes) -> None:
        packet = parse_chap(information)
        match packet:
            case ChapChallenge():
                peer_challenge = bytes(range(16))
                asked = challenge_hash(peer_challenge, packet.value, self.name.rpartition(b"\\")[2])
                hashed = nt_password_hash(self.password)
                response = challenge_response(asked, hashed)
                self.keys = start_keys(master_key(hashed, response), authenticator=False)
                value = build_ms_response(MsResponse(peer_challenge, response))
                self.send(Protocol.CHAP, build_chap(ChapResponse(packet.identifier, value, self.name)))
            case ChapResult(success=success):
                self.verdicts.append(packet)
                if success:
                    self.start_networks()

    def start_networks(self) -> None:
        """CCP and IPCP begin together, and IPV6CP too."""
        if not self.holds_ccp and self.encrypts:
            self.request(Protocol.CCP)
        self.request(Protocol.IPCP)
        self.request(Protocol.IPV6CP)

    def hear_network(self, protocol: int, packet: Cp) -> None:
        if protocol == Protocol.CCP and not self.encrypts:
            reject = Protocol.CCP.to_bytes(2, "big") + build_packet(packet)
            self.send(Protocol.LCP, build_packet(Cp(Code.PROTOCOL_REJECT, 90, reject)))
            return
        match packet.code:
            case Code.CONFIGURE_REQUEST if protocol == Protocol.CCP and self.holds_ccp:
                return
            case Code.CONFIGURE_REQUEST:
                self.send(protocol, build_packet(Cp(Code.CONFIGURE_ACK, packet.identifier, packet.data)))
                if protocol == Protocol.CCP:
                    self.decryptor = MppeDecryptor(self.keys[1], MppeMode(Strength.BITS_128, stateless=True))
            case Code.CONFIGURE_ACK:
                self.opened.add(protocol)
                if protocol == Protocol.CCP:
                    self.encryptor = MppeEncryptor(self.keys[0], MppeMode(Strength.BITS_128, stateless=True))
            case Code.CONFIGURE_NAK | Code.CONFIGURE_REJECT:
                self.corrected(protocol, packet)

    def corrected(self, protocol: int, packet: Cp) -> None:
        options = parse_options(packet.data)
        if protocol == Protocol.IPCP:
            self.ipcp_answers.append(packet.code)
        for option in options:
            if protocol == Protocol.CCP:
                self.ccp = option
            elif packet.code == Code.CONFIGURE_NAK:
                self.ipcp[option.type] = option.value
            else:
                del self.ipcp[option.type]
                self.rejected_of_ipcp.append(option.type)
        self.request(protocol)

    # -- data ---------------------------------------------------------------------------------------------------

    def send_ip(self, packet: bytes) -> None:
        """An IP packet, encrypted where it can be."""
        if self.encryptor is None:
            self.send(Protocol.IPV4, packet)
        else:
            self.send(MPPE_PROTOCOL, self.encryptor.encrypt(Protocol.IPV4, packet))

    @property
    def address(self) -> IPv4Address:
        """What it was given."""
        return IPv4Address(self.ipcp[3])
