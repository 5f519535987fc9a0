"""What the packet loop remembers of a peer's link is looked at again whenever that peer's machine has been called."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from grepunch.endpoint import Endpoint


def test_the_loop_is_told_after_all_that_a_machine_wanted_done() -> None:
    """Before that, its answer could be the one of the link that has just gone down."""
    done: list[str] = []
    endpoint = cast(Any, object.__new__(Endpoint))
    endpoint._pump = SimpleNamespace(review=lambda: done.append("review"))
    endpoint._destinations = SimpleNamespace(sent=lambda *_: None)
    endpoint._mirrors = SimpleNamespace(act=lambda name, machine, item: done.append(item))
    endpoint._take = lambda traffic, event: done.append(event)
    machine = SimpleNamespace(transmits=lambda: ["sent"], events=lambda: ["down"], deadline=lambda: None)
    endpoint._flush(SimpleNamespace(name="peer", machine=machine))
    assert done == ["sent", "down", "review"]
