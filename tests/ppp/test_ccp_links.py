"""Links with MPPE over a line that loses and swaps frames: they come up, carry data, and never carry it in clear."""

from __future__ import annotations

import itertools

import pytest

from pptp.crypto.mppe_keys import Strength
from pptp.errors import Drop, Terminated, TerminationCause
from pptp.ppp.auth import Authenticatee, Authenticator
from pptp.ppp.ccp import CcpPolicy, EncryptionUp
from pptp.ppp.chap import ChapMd5Authenticatee, ChapMd5Authenticator
from pptp.ppp.control_protocol import ControlProtocolPolicy, NetworkDown, NetworkFinished
from pptp.ppp.credentials import Credential
from pptp.ppp.ipcp import IpcpPolicy
from pptp.ppp.link import Phase
from pptp.ppp.mschapv2 import MsChapV2Authenticatee, MsChapV2Authenticator
from pptp.ppp.policy import LinkConfig
from pptp.wire.cp import Code, CpPacket, Option, build_options, build_packet
from pptp.wire.ppp import PppFrame, Protocol
from tests.ppp.legacy_world import CLIENT_IP, PASSWORD, SERVER_IP, World, ip_packet, users

SERVER = MsChapV2Authenticator(users())
CLIENT = MsChapV2Authenticatee("alice", Credential.of_password(PASSWORD))
MODES = [
    pytest.param(strength, stateless, id=f"{strength}-{'stateless' if stateless else 'stateful'}")
    for strength, stateless in itertools.product(Strength, (True, False))
]
REQUIRED, ALLOWED, REFUSED = CcpPolicy(), CcpPolicy(required=False), None


def only(strength: Strength, stateless: bool) -> CcpPolicy:
    return CcpPolicy(strengths=frozenset({strength}), stateless=stateless, stateful=not stateless)


def config(
    ip: IpcpPolicy,
    ccp: CcpPolicy | None,
    authenticator: Authenticator | None = None,
    authenticatee: Authenticatee | None = None,
) -> LinkConfig:
    protocols: tuple[ControlProtocolPolicy, ...] = (ip,) if ccp is None else (ccp, ip)
    return LinkConfig(
        authenticators=(authenticator,) if authenticator else (),
        authenticatees=(authenticatee,) if authenticatee else (),
        control_protocols=protocols,
    )


def world(server: CcpPolicy | None, client: CcpPolicy | None, *, seed: int = 0, required: bool = True) -> World:
    return World(
        config(SERVER_IP, server, authenticator=SERVER),
        config(CLIENT_IP, client, authenticatee=CLIENT),
        seed=seed,
        required=required,
    )


def ups(joined: World, side: int) -> list[EncryptionUp]:
    return [event for event in joined.log[side] if isinstance(event, EncryptionUp)]


def exchange(joined: World, packets: int, interval: float = 0.01) -> None:
    """Both ends send numbered packets, side 1 odd ones."""
    for number in range(packets):
        for side in (0, 1):
            joined.send_data(side, 2 * number + side)
        joined.run(joined.now + interval)
    joined.run(joined.now + 2)


@pytest.mark.parametrize(("strength", "stateless"), MODES)
def test_every_mode_comes_up_and_carries(strength: Strength, stateless: bool) -> None:
    joined = world(only(strength, stateless), CcpPolicy(strengths=frozenset(Strength), stateful=True))
    joined.run(2)
    exchange(joined, 600, 0.001)
    assert joined.carried == ([2 * n + 1 for n in range(600)], [2 * n for n in range(600)])
    for side in (0, 1):
        (up,) = ups(joined, side)
        assert up.encryptor is not None
        assert up.decryptor is not None
        for mode in (up.encryptor.mode, up.decryptor.mode):
            assert (mode.strength, mode.stateless) == (strength, stateless)
    assert joined.drops == []


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("strength", "stateless"), MODES)
def test_every_mode_survives_a_bad_line(strength: Strength, stateless: bool, seed: int) -> None:
    """Frames are lost and swapped; a reorder buffer puts them in order, and resets mend what was lost."""
    print(f"seed {seed}")
    policy = only(strength, stateless)
    joined = world(policy, policy, seed=seed)
    joined.loss, joined.reordering = 0.2, 0.2
    joined.run(90)
    assert joined.up, joined.log
    for carried in joined.carried:
        carried.clear()
    joined.loss, joined.reordering = 0.01, 0.1
    exchange(joined, 300)
    for side in (0, 1):
        carried = joined.carried[side]
        assert carried == sorted(set(carried))  # in order, nothing twice, nothing wrong
        assert all(number % 2 == 1 - side for number in carried)
        assert len(carried) > (270 if stateless else 100)
    joined.loss = joined.reordering = 0.0
    joined.carried[0].clear()
    exchange(joined, 20, 0.2)
    assert len(joined.carried[0]) >= 15


def test_interop_18_swapped_packets_are_put_in_order_before_mppe() -> None:
    joined = world(only(Strength.BITS_128, False), only(Strength.BITS_128, False), seed=18)
    joined.run(2)
    joined.reordering = 0.3
    exchange(joined, 300)
    assert joined.carried == ([2 * n + 1 for n in range(300)], [2 * n for n in range(300)])
    assert joined.drops == []


@pytest.mark.parametrize(
    ("server", "client", "encrypted", "cause"),
    [
        (REQUIRED, REQUIRED, True, None),
        (REQUIRED, ALLOWED, True, None),
        (ALLOWED, REQUIRED, True, None),
        (ALLOWED, ALLOWED, True, None),
        (REQUIRED, REFUSED, False, TerminationCause.REFUSED),
        (REFUSED, REQUIRED, False, TerminationCause.REFUSED),
        (ALLOWED, REFUSED, False, None),
        (REFUSED, ALLOWED, False, None),
        (REFUSED, REFUSED, False, None),
    ],
)
def test_interop_39_require_allow_refuse(
    server: CcpPolicy | None, client: CcpPolicy | None, encrypted: bool, cause: TerminationCause | None
) -> None:
    joined = world(server, client, required=False)
    joined.run(30)
    assert joined.up is (cause is None)
    if cause is not None:
        ends = [log[-1] for log in joined.log]
        causes = {end.cause for end in ends if isinstance(end, Terminated)}
        assert cause in causes
        details = " ".join(end.detail for end in ends if isinstance(end, Terminated))
        assert "we want 128-bit stateless" in details
        return
    exchange(joined, 10)
    assert len(joined.carried[0]) == len(joined.carried[1]) == 10
    assert all((path.encryptor is not None) == encrypted for path in joined.paths)


@pytest.mark.parametrize(
    ("server", "client", "offers"),
    [
        (
            CcpPolicy(),
            CcpPolicy(strengths=frozenset({Strength.BITS_40})),
            ("we want 128-bit stateless, the peer wants 40-bit stateless",),
        ),
        (
            CcpPolicy(),
            CcpPolicy(stateless=False, stateful=True),
            ("we want 128-bit stateless, the peer wants 128-bit stateful",),
        ),
    ],
)
def test_policies_without_common_ground_end_with_both_offers(
    server: CcpPolicy, client: CcpPolicy, offers: tuple[str, ...]
) -> None:
    joined = world(server, client)
    joined.run(120)
    details = [event.detail for log in joined.log for event in log if isinstance(event, Terminated)]
    assert len(details) == 2
    for offer in offers:
        assert any(offer in detail for detail in details), details
    assert joined.carried == ([], [])


def test_encryption_without_ms_chapv2_is_no_agreement() -> None:
    joined = World(
        config(SERVER_IP, CcpPolicy(), authenticator=ChapMd5Authenticator(users())),
        config(CLIENT_IP, CcpPolicy(required=False), authenticatee=ChapMd5Authenticatee("alice", PASSWORD)),
    )
    joined.run(60)
    end = joined.log[0][-1]
    assert isinstance(end, Terminated)
    assert end.cause is TerminationCause.NOT_AGREED
    assert "only MS-CHAPv2 leaves keys" in end.detail


def test_early_packets_for_a_ccp_that_cannot_begin_do_not_raise() -> None:
    """The peer is a phase ahead: its CCP packets wait for our exchange to succeed, and then there are no keys."""
    joined = World(
        config(SERVER_IP, CcpPolicy(), authenticator=ChapMd5Authenticator(users())),
        config(CLIENT_IP, CcpPolicy(required=False), authenticatee=ChapMd5Authenticatee("alice", PASSWORD)),
    )
    joined.lose = lambda side, frame: frame.protocol == Protocol.CHAP and side == 1
    joined.run(1)
    server = joined.links[0]
    assert server.phase is Phase.AUTHENTICATE
    server.receive(Protocol.CCP, build_packet(CpPacket(Code.CONFIGURE_REQUEST, 1)), joined.now)
    joined.lose = lambda side, frame: False
    joined.run(60)
    assert isinstance(joined.log[0][-1], Terminated)


def test_interop_49_ip_is_held_until_mppe_is_up() -> None:
    """IPCP is open, CCP is not: nothing leaves in clear."""
    joined = world(CcpPolicy(), CcpPolicy())
    joined.lose = lambda side, frame: frame.protocol == Protocol.CCP
    joined.run(2)
    assert joined.up
    assert not any(link.carries(Protocol.MPPE) for link in joined.links)
    exchange(joined, 5)
    assert joined.carried == ([], [])
    assert {error.cause for error in joined.drops} == {Drop.CLEARTEXT}
    joined.lose = lambda side, frame: False
    joined.run(joined.now + 5)
    exchange(joined, 5)
    assert joined.carried == ([1, 3, 5, 7, 9], [0, 2, 4, 6, 8])


def test_interop_44_clear_packets_are_dropped_and_counted() -> None:
    joined = world(CcpPolicy(), CcpPolicy())
    joined.run(2)
    joined.paths[1].required = False
    joined.paths[1].rekey(None, None)  # a client that has forgotten that it encrypts
    joined.send_data(1, 1)
    joined.run(joined.now + 1)
    assert joined.carried == ([], [])
    assert joined.paths[0].drops == {Drop.CLEARTEXT: 1}


def test_interop_42_a_lost_packet_costs_a_round_trip() -> None:
    joined = world(only(Strength.BITS_128, False), only(Strength.BITS_128, False))
    joined.run(2)
    lost: list[int] = []

    def first_packet(side: int, frame: PppFrame) -> bool:
        if side == 0 and frame.protocol == Protocol.MPPE and not lost:
            lost.append(side)
            return True
        return False

    joined.lose = first_packet
    exchange(joined, 100)
    resets = [
        (side, frame.information[0])
        for side, frame in joined.seen
        if frame.protocol == Protocol.CCP and frame.information[0] in (Code.RESET_REQUEST, Code.RESET_ACK)
    ]
    assert resets == [(1, Code.RESET_REQUEST), (0, Code.RESET_ACK)]
    assert len(joined.carried[1]) > 60  # the reorder buffer waits 0.3 s for what is lost, and then come the resets
    assert joined.carried[1][-1] == 198
    assert len(joined.carried[0]) == 100


@pytest.mark.parametrize("stateless", [True, False], ids=["stateless", "stateful"])
def test_interop_38_ccp_negotiated_again_goes_on_with_fresh_keys(stateless: bool) -> None:
    policy = only(Strength.BITS_128, stateless)
    joined = world(policy, policy)
    joined.run(2)
    exchange(joined, 300, 0.001)
    request = build_packet(
        CpPacket(Code.CONFIGURE_REQUEST, 99, build_options([Option(18, bytes((stateless, 0, 0, 0x40)))]))
    )
    joined.links[0].receive(Protocol.CCP, request, joined.now)  # as if the client had begun anew
    joined.run(joined.now + 10)
    assert len(ups(joined, 0)) == 2
    assert NetworkDown(Protocol.MPPE) in joined.log[0]
    assert joined.up
    for carried in joined.carried:
        carried.clear()
    exchange(joined, 20)
    assert joined.carried == ([2 * n + 1 for n in range(20)], [2 * n for n in range(20)])


def test_a_link_negotiated_again_has_new_keys_throughout() -> None:
    joined = world(CcpPolicy(), CcpPolicy())
    joined.run(2)
    exchange(joined, 5)
    joined.links[1].open(joined.now)
    joined.run(joined.now + 5)
    exchange(joined, 5)
    assert len(joined.carried[0]) == len(joined.carried[1]) == 10
    assert [len(ups(joined, side)) for side in (0, 1)] == [2, 2]


def test_a_peer_that_stops_encrypting_ends_a_required_link() -> None:
    joined = world(CcpPolicy(), CcpPolicy())
    joined.run(2)
    terminate = build_packet(CpPacket(Code.TERMINATE_REQUEST, 50))
    joined.links[0].receive(Protocol.CCP, terminate, joined.now)
    joined.run(60)
    end = joined.log[0][-1]
    assert isinstance(end, Terminated)
    assert NetworkDown(Protocol.MPPE) in joined.log[0]
    assert any(isinstance(event, NetworkFinished) for event in joined.log[0])


def test_the_line_carries_no_packet_in_clear() -> None:
    joined = world(CcpPolicy(), CcpPolicy())
    joined.run(2)
    on_the_line: list[bytes] = []

    def watch(side: int, frame: PppFrame) -> bool:
        on_the_line.append(bytes(frame.information))
        return False

    joined.lose = watch
    exchange(joined, 50)
    assert len(joined.carried[0]) == 50
    assert not any(ip_packet(number)[4:16] in information for information in on_the_line for number in range(100))
