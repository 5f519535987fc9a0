"""The entrance's own listener: in a lab, since ordinary users may not put a filter in front of a TCP socket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from grepunch.lab.topology import Lab
from tests.live.live_support import RunInLab
from tests.peer.test_entrance import PEERS, Place, all_call, refuse_all, run


def in_a_node(work: Callable[[Place], Awaitable[None]]) -> None:
    with Lab("G0") as lab, lab.wan.entered():
        run(lambda: Place(served=False), work)


def several() -> None:
    async def work(place: Place) -> None:
        for name in PEERS:
            place.await_peer(name)
        await all_call(place)
        place.entrance.forget("alice")
        assert await place.call(PEERS["bob"]) == b"bob"

    in_a_node(work)


def test_several_peers_are_awaited_at_once(run_in_lab: RunInLab) -> None:
    run_in_lab(several)


def nobody() -> str:
    seen = ["somebody listens"]

    async def work(place: Place) -> None:
        place.await_peer("bob")
        place.entrance.forget("bob")
        try:
            await place.call(PEERS["bob"])
        except ConnectionRefusedError:
            seen[:] = ["refused"]

    in_a_node(work)
    return seen[0]


def test_nobody_listens_when_nobody_is_awaited(run_in_lab: RunInLab) -> None:
    assert run_in_lab(nobody) == "refused"


def after_a_refusal() -> None:
    async def work(place: Place) -> None:
        await refuse_all(place)
        place.await_peer("alice")
        assert await place.call(PEERS["alice"]) == b"alice"

    in_a_node(work)


def test_a_port_that_was_refused_can_be_had_later(run_in_lab: RunInLab) -> None:
    run_in_lab(after_a_refusal)
