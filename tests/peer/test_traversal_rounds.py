"""A round that was agreed on takes place, whatever becomes of the rendezvous meanwhile."""

from __future__ import annotations

import random
from ipaddress import IPv4Address, IPv4Interface

from grepunch.ports import Form, GreSend
from grepunch.punch.plan import Budget
from grepunch.signalling.messages import Candidates, Plan, PlanReply
from grepunch.traversal import Traversal
from tests.attack.hostile import THERE, Clock


def test_a_rendezvous_that_goes_after_the_start_was_agreed_on_does_not_hold_it_up() -> None:
    clock: list[Clock | None] = [Clock()]
    traversal = Traversal(
        proposes=True,
        outgoing_key=b"o" * 32,
        incoming_key=b"i" * 32,
        forms=tuple(Form),
        window=30.0,
        budget=Budget(),
        clock=lambda: clock[0],
        interfaces=lambda: [IPv4Interface("192.168.1.7/24")],
        slot_taken=lambda address: False,
        entropy=random.Random(1).randbytes,
    )
    traversal.begin(0.0)
    traversal.receive(Candidates(1, 0.02, THERE, frozenset(Form), ()), 0.0)
    assert any(isinstance(item, Plan) for item in traversal.transmits())
    clock[0] = None
    traversal.receive(PlanReply(1, True), 0.1)
    deadline = traversal.deadline()
    assert deadline is not None
    assert deadline <= 1.0
    traversal.handle_timeout(deadline)
    sent = [item.destination for item in traversal.transmits() if isinstance(item, GreSend)]
    assert set(sent) == {IPv4Address(THERE)}
