"""The methods in their links: negotiated by LCP, run over a line that loses frames, and attacked."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from pptp.errors import Drop, Terminated, TerminationCause
from pptp.ppp.auth import Authenticatee, Authenticator, AuthSucceeded
from pptp.ppp.chap import OPTION_CHAP_MD5, ChapMd5Authenticatee, ChapMd5Authenticator
from pptp.ppp.credentials import Credential
from pptp.ppp.link import Link, LinkOpened, Phase
from pptp.ppp.mschapv2 import OPTION_MSCHAPV2, MsChapV2Authenticatee, MsChapV2Authenticator
from pptp.ppp.pap import OPTION_PAP, PapAuthenticatee, PapAuthenticator
from pptp.ppp.policy import LinkConfig
from pptp.wire.auth import ChapChallenge, ChapResponse, PapRequest, build_chap, build_pap, parse_chap
from pptp.wire.cp import Code, CpPacket, Option, build_options, build_packet, parse_options, parse_packet
from pptp.wire.ppp import PppFrame, Protocol
from tests.ppp.legacy_world import CLIENT_IP, PASSWORD, SERVER_IP, World, users

SERVERS: dict[str, Authenticator] = {
    "pap": PapAuthenticator(users()),
    "md5": ChapMd5Authenticator(users()),
    "ms": MsChapV2Authenticator(users()),
}
CLIENTS: dict[str, Authenticatee] = {
    "pap": PapAuthenticatee("alice", PASSWORD),
    "md5": ChapMd5Authenticatee("alice", PASSWORD),
    "ms": MsChapV2Authenticatee("alice", Credential.of_password(PASSWORD)),
}
OPTIONS = {"pap": OPTION_PAP, "md5": OPTION_CHAP_MD5, "ms": OPTION_MSCHAPV2}


def server_config(*methods: str) -> LinkConfig:
    return LinkConfig(authenticators=tuple(SERVERS[each] for each in methods), control_protocols=(SERVER_IP,))


def client_config(*methods: str) -> LinkConfig:
    return LinkConfig(authenticatees=tuple(CLIENTS[each] for each in methods), control_protocols=(CLIENT_IP,))


@pytest.mark.parametrize("method", SERVERS)
def test_each_method_opens_a_link(method: str) -> None:
    world = World(server_config(method), client_config(method))
    world.run(2)
    assert world.up
    for log in world.log:
        (success,) = [event for event in log if isinstance(event, AuthSucceeded)]
        assert success.identity == "alice"
    (opened,) = [event for event in world.log[0] if isinstance(event, LinkOpened)]
    assert opened.local.authentication == OPTIONS[method]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("method", SERVERS)
def test_interop_34_losses_only_delay(method: str, seed: int) -> None:
    print(f"seed {seed}")
    world = World(server_config(method), client_config(method), seed=seed, loss=0.25, reordering=0.2)
    world.run(120)
    assert world.up, world.log
    for log in world.log:
        assert sum(isinstance(event, AuthSucceeded) for event in log) >= 1
        assert not any(isinstance(event, Terminated) for event in log)


@pytest.mark.parametrize("method", SERVERS)
def test_interop_34_a_lost_verdict_is_said_again(method: str) -> None:
    world = World(server_config(method), client_config(method))
    verdicts = {"pap": (2,), "md5": (3,), "ms": (3,)}[method]
    lost: Counter[int] = Counter()

    def first_two_verdicts(side: int, frame: PppFrame) -> bool:
        if side == 0 and frame.protocol in (Protocol.PAP, Protocol.CHAP) and frame.information[0] in verdicts:
            lost[frame.protocol] += 1
            return lost[frame.protocol] <= 2
        return False

    world.lose = first_two_verdicts
    world.run(20)
    assert world.up
    assert sum(lost.values()) == 3
    assert len({bytes(frame.information) for side, frame in world.seen if frame.protocol in lost and side == 0}) <= 2


@pytest.mark.parametrize("method", SERVERS)
def test_a_wrong_password_ends_both_sides(method: str) -> None:
    liars: dict[str, Authenticatee] = {
        "pap": PapAuthenticatee("alice", "guess"),
        "md5": ChapMd5Authenticatee("alice", "guess"),
        "ms": MsChapV2Authenticatee("alice", Credential.of_password("guess")),
    }
    client = LinkConfig(authenticatees=(liars[method],), control_protocols=(CLIENT_IP,))
    world = World(server_config(method), client)
    world.run(200)
    ends = [log[-1] for log in world.log]
    for end in ends:
        assert isinstance(end, Terminated)
    assert any(isinstance(end, Terminated) and end.cause is TerminationCause.AUTHENTICATION for end in ends)
    assert not any(isinstance(event, AuthSucceeded) for log in world.log for event in log)
    said = b" ".join(bytes(frame.information) for side, frame in world.seen if side == 0)
    assert b"wrong password" not in said


@pytest.mark.parametrize("has", SERVERS)
def test_interop_25_the_best_is_asked_for_first_and_naks_lead_down_the_list(has: str) -> None:
    """Windows Naks each method it does not like with the one it has; the server asks for MS-CHAPv2 first."""
    world = World(server_config("ms", "md5", "pap"), client_config(has))
    world.run(2)
    assert world.up
    asked = [
        option.value
        for side, frame in world.seen
        if (side, frame.protocol, frame.information[0]) == (0, Protocol.LCP, Code.CONFIGURE_REQUEST)
        for option in parse_options(parse_packet(frame.information).data)
        if option.type == 3
    ]
    assert asked[0] == OPTION_MSCHAPV2
    assert asked[-1] == OPTIONS[has]
    assert len(asked) <= 2


def test_interop_26_a_peer_that_asks_us_is_rejected_without_a_password() -> None:
    """We are the server, and a client that wants us to prove ourselves is told that we cannot."""
    link = Link(server_config("ms"), entropy=random.Random(1).randbytes)
    link.open(0)
    link.transmits()
    request = build_options([Option(3, OPTION_MSCHAPV2)])
    link.receive(Protocol.LCP, build_packet(CpPacket(Code.CONFIGURE_REQUEST, 1, request)), 0)
    (answer,) = link.transmits()
    assert parse_packet(answer.information) == CpPacket(Code.CONFIGURE_REJECT, 1, request)


@pytest.mark.parametrize("asked", [OPTION_PAP, OPTION_CHAP_MD5, b"\xc2\x23\x80", b"\xc2\x27", b"\xc2\x23", b""])
def test_interop_26_a_client_naks_to_the_method_it_has(asked: bytes) -> None:
    link = Link(client_config("ms"), entropy=random.Random(1).randbytes)
    link.open(0)
    link.transmits()
    request = build_options([Option(3, asked)])
    link.receive(Protocol.LCP, build_packet(CpPacket(Code.CONFIGURE_REQUEST, 1, request)), 0)
    (answer,) = link.transmits()
    suggestion = build_options([Option(3, OPTION_MSCHAPV2)])
    assert parse_packet(answer.information) == CpPacket(Code.CONFIGURE_NAK, 1, suggestion)


def test_both_ends_may_prove_themselves() -> None:
    one = LinkConfig(authenticators=(SERVERS["ms"],), authenticatees=(CLIENTS["md5"],), control_protocols=(SERVER_IP,))
    other = LinkConfig(
        authenticators=(SERVERS["md5"],), authenticatees=(CLIENTS["ms"],), control_protocols=(CLIENT_IP,)
    )
    world = World(one, other)
    world.run(3)
    assert world.up
    assert [sum(isinstance(event, AuthSucceeded) for event in log) for log in world.log] == [2, 2]


def authenticating(method: str, role: str) -> Link:
    """A link in the Authenticate phase, its peer played by the test."""
    config = server_config(method) if role == "server" else client_config(method)
    link = Link(config, entropy=random.Random(1).randbytes)
    link.open(0)
    (ours,) = (parse_packet(frame.information) for frame in link.transmits())
    link.receive(Protocol.LCP, build_packet(CpPacket(Code.CONFIGURE_ACK, ours.identifier, ours.data)), 0)
    options = [Option(3, OPTIONS[method])] if role == "client" else []
    request = CpPacket(Code.CONFIGURE_REQUEST, 1, build_options(options))
    link.receive(Protocol.LCP, build_packet(request), 0)
    assert link.phase is Phase.AUTHENTICATE
    return link


HOSTILE = [
    b"",
    b"\x01",
    b"\x01\x01\x00",
    b"\x01\x01\x00\x03",
    b"\x01\x01\x00\x04",
    b"\x01\x01\xff\xff",
    b"\x01\x01\x00\x05\x00",  # CHAP value size 0
    b"\x02\x01\x00\x05\x00",
    b"\x02\x01\x00\x06\x00\x61",
    b"\x02\x01\x00\x06\xff\x61",  # value size beyond the packet
    b"\x01\x01\x00\x06\xff\x61",
    b"\x02\x01\x01\x06\x01x" + b"n" * 256,  # a name of 256 octets
    b"\x02\x01\x05\x00\x01x" + b"n" * 1274,
    b"\x02\x01\x00\x16\x10" + bytes(16) + b"a",
    b"\x02\x01\x00\x37\x31" + bytes(49) + b"\0",
    b"\x01\x01\x00\x06\x00\x00",  # PAP without name and password
    b"\x01\x01\x00\x0b\x05alice\x00",
    b"\x01\x01\x00\x09\x00\x03abc",
    b"\x02\x01\x00\x05\x07",
    b"\x03\x01\x00\x05\xff",
    b"\x03\x01\x00\x04",
    b"\x04\x01\x00\x04",
    b"\x04\x01\x00\x06E=",
    b"\x05\x01\x00\x06\x01\x01",
    b"\x06\x01\x00\x05\x0d",
    b"\x07\x01\x02\x4a" + bytes(582),
    b"\x07\x01\x00\x04",
    b"\xff\x01\x00\x04",
]


@pytest.mark.parametrize("role", ["server", "client"])
@pytest.mark.parametrize("method", SERVERS)
def test_hostile_packets_never_raise_and_never_let_in(method: str, role: str) -> None:
    link = authenticating(method, role)
    for information in HOSTILE:
        for identifier in (1, 2, 130):
            packet = information[:1] + bytes((identifier,)) + information[2:] if len(information) > 1 else information
            for protocol in (Protocol.PAP, Protocol.CHAP, 0xC227):
                link.receive(protocol, packet, 1.0)
    events = link.events()
    believes = method != "ms" and role == "client"  # PAP and MD5 have no proof: any Success is one
    if not believes:
        assert not any(isinstance(event, AuthSucceeded) for event in events)
    assert sum(link.drops.values()) > 20


@pytest.mark.parametrize("role", ["server", "client"])
@pytest.mark.parametrize("method", SERVERS)
def test_mutated_packets_never_raise(method: str, role: str) -> None:
    """What a real exchange says, mutated a few thousand times; the seed of a failure is in its message."""
    for seed in range(25):
        dice = random.Random(seed)
        world = World(server_config(method), client_config(method), seed=seed)
        world.run(2)
        said = [
            (frame.protocol, bytes(frame.information))
            for side, frame in world.seen
            if side == (role == "server") and frame.protocol in (Protocol.PAP, Protocol.CHAP)
        ]
        link = authenticating(method, role)
        for step in range(60):
            protocol, information = dice.choice(said)
            mutated = bytearray(information)
            for _ in range(dice.randrange(4)):
                at = dice.randrange(len(mutated))
                match dice.randrange(3):
                    case 0:
                        mutated[at] = dice.randrange(256)
                    case 1:
                        mutated[at:at] = dice.randbytes(dice.randrange(20))
                    case _:
                        del mutated[at + 1 :]
            try:
                link.receive(protocol, bytes(mutated), step / 10)
            except Exception as error:
                raise AssertionError(f"seed {seed}: {mutated.hex()}") from error


def test_eap_is_rejected_as_a_protocol() -> None:
    link = authenticating("ms", "server")
    link.transmits()
    link.receive(0xC227, b"\x01\x01\x00\x05\x01", 1)
    (frame,) = link.transmits()
    rejected = parse_packet(frame.information)
    assert (rejected.code, rejected.data[:2]) == (Code.PROTOCOL_REJECT, b"\xc2\x27")


@pytest.mark.parametrize("role", ["server", "client"])
def test_chap_codes_in_the_wrong_role_are_dropped(role: str) -> None:
    link = authenticating("ms", role)
    link.transmits()
    wrong = {"server": (1, 3, 4), "client": (2, 7)}[role]
    for code in wrong:
        link.receive(Protocol.CHAP, bytes((code, 1, 0, 6, 1, 1)), 1)
    assert link.transmits() == []
    assert link.drops == {Drop.MALFORMED: len(wrong)}
    assert link.phase is Phase.AUTHENTICATE


def test_guesses_are_counted_by_the_link() -> None:
    """A peer has as many guesses as Challenges, and these are three."""
    link = authenticating("ms", "server")
    failures = 0
    for guess in range(50):
        for frame in link.transmits():
            failures += frame.protocol == Protocol.CHAP and frame.information[0] == 4
        for identifier in range(256):
            value = guess.to_bytes(2, "big") + bytes(47)
            link.receive(Protocol.CHAP, build_chap(ChapResponse(identifier, value, b"alice")), guess)
    assert failures == 3
    assert link.phase is Phase.TERMINATE


def test_one_guess_is_all_that_pap_gives() -> None:
    link = authenticating("pap", "server")
    for guess in range(10):
        link.receive(Protocol.PAP, build_pap(PapRequest(guess, b"alice", b"%d" % guess)), 1)
    replies = [frame for frame in link.transmits() if frame.protocol == Protocol.PAP]
    assert len(replies) == 1
    assert link.phase is Phase.TERMINATE


def test_a_server_that_asks_again_is_answered_while_the_link_carries_data() -> None:
    world = World(server_config("ms"), client_config("ms"))
    world.run(2)
    client = world.links[1]
    client.receive(Protocol.CHAP, build_chap(ChapChallenge(77, bytes(16), b"server")), world.now)
    (frame,) = client.transmits()
    response = parse_chap(frame.information)
    assert isinstance(response, ChapResponse)
    assert response.identifier == 77
    assert client.phase is Phase.NETWORK
