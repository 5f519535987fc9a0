"""How calls of ordinary PPTP end: by a goodbye, by a kill, by a limit, or before they are up; and what is left then."""

from __future__ import annotations

import signal
from typing import Any

from grepunch.lab.node import Node
from grepunch.lab.topology import Lab
from tests.live.live_support import RunInLab
from tests.live.ordinary_support import CELLS, INNER, Endpoint, Ordinary, ping

CLEAR = CELLS["mschapv2"]


def remains(host: Node) -> str:
    """Devices and routes of ours on a host."""
    links = [line for line in host.ip("-oneline", "link", "show").splitlines() if "pptp" in line]
    return "\n".join(links) + host.ip("route", "show", "proto", "171")


def kill(endpoint: Endpoint) -> None:
    """End it as the kernel would, without a word."""
    endpoint.running.process.send_signal(signal.SIGKILL)
    endpoint.running.process.wait()


def refusals() -> dict[str, Any]:
    """Wrong passwords, unknown users, nothing in common, and a pool of two addresses."""
    with Lab("G2") as lab:
        world = Ordinary(lab, interface={"pool": "10.77.0.0/30"}, auth={"session_policy": "allow"})
        server = world.serve()
        seen: dict[str, Any] = {}
        for name, options in {
            "wrong password": {"password": "wrong"},
            "unknown user": {"user": "mallory"},
            "no encryption": {"legacy": CLEAR},
            "another strength": {"legacy": CELLS["mppe40"]},
            "another method": {"legacy": CELLS["pap"]},
        }.items():
            client = world.dial(lab.wan, **options)  # type: ignore[arg-type]
            seen[name] = (
                client.verdict(),
                client.running.process.wait(5),
                server.wait("session_down", count=len(seen) + 1),
            )
        first = world.dial(lab.wan)
        first.wait("session_up")
        late = world.dial(lab.wan)
        seen["pool exhausted"] = late.verdict(), late.running.process.wait(5), server.wait("session_down", count=6)
        seen["the first stays"] = ping(lab.wan, str(INNER))
        return seen


def test_every_refusal_has_its_verdict_and_its_windows_number(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(refusals)
    expected = {
        "wrong password": ("auth_failed", 13, "authentication", 691),
        "unknown user": ("auth_failed", 13, "authentication", 691),
        "no encryption": ("not_agreed", 14, "encryption", 742),
        "another strength": ("not_agreed", 14, "encryption", 742),
        "another method": ("not_agreed", 14, "not_agreed", 919),
        "pool exhausted": ("pool_exhausted", 17, "pool_exhausted", 720),
    }
    assert seen["the first stays"]
    for name, (verdict, code, cause, number) in expected.items():
        client, exit_code, server = seen[name]
        assert (client["result"], exit_code) == (verdict, code), (name, client)
        assert (server["cause"], server.get("windows_error")) == (cause, number), (name, server)
        assert not server["was_up"]
        assert server["detail"]
        assert client["detail"]
    for side in (0, 2):
        assert "128" in seen["another strength"][side]["detail"]
        assert "40" in seen["another strength"][side]["detail"]


def no_gre() -> dict[str, Any]:
    """A NAT that drops GRE, and one that refuses it."""
    found = {}
    for nat in ("G4", "G4R"):
        with Lab(nat) as lab:
            world = Ordinary(lab)
            server = world.serve()
            client = world.dial(lab.a.host)
            found[nat] = client.verdict(), server.wait("session_down")
    return found


def test_silence_over_gre_is_named_within_seconds_on_both_sides(run_in_lab: RunInLab) -> None:
    for client, server in run_in_lab(no_gre).values():
        assert client["result"] == "no_gre_from_peer"
        assert "no GRE from the peer for 6 s" in client["detail"]
        assert (server["cause"], server["windows_error"]) == ("no_gre", 806)


def ended_by_force() -> dict[str, Any]:
    """A client killed and back again; then the server killed and back again, for a client that keeps trying."""
    with Lab("G2") as lab:
        world = Ordinary(lab)
        server = world.serve()
        first = world.dial(lab.wan)
        address = first.wait("session_up")["own_address"]
        kill(first)
        server.wait("session_down")
        second = world.dial(lab.wan, "--retry", "forever")
        again = second.wait("session_up")["own_address"]
        seen = {"same address": address == again, "pinged": ping(lab.wan, str(INNER))}
        kill(server)
        lost = second.wait("session_down")
        left = remains(lab.meet)
        server = world.serve()
        second.wait("session_up", count=2)
        seen |= {"lost": lost, "left": left, "pinged again": ping(lab.wan, str(INNER))}
        second.running.stop()
        server.wait("session_down", cause="peer_request")
        server.running.stop()
        seen["remains"] = remains(lab.wan) + remains(lab.meet)
        return seen


def test_either_side_killed_is_noticed_and_comes_back(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(ended_by_force)
    assert seen["same address"]
    assert seen["pinged"]
    assert seen["lost"]["was_up"]
    assert "dev" not in seen["left"]
    assert seen["pinged again"]
    assert seen["remains"] == ""


def policies() -> dict[str, Any]:
    """One user twice, under each policy."""
    seen: dict[str, Any] = {}
    with Lab("G3") as lab:
        for policy in ("replace", "deny", "allow"):
            world = Ordinary(lab, CLEAR, auth={"session_policy": policy})
            server = world.serve()
            one = world.dial(lab.wan)
            address = one.wait("session_up")["own_address"]
            two = world.dial(lab.a.host)
            if policy == "deny":
                seen[policy] = two.verdict()["result"], ping(lab.wan, str(INNER))
            else:
                other = two.wait("session_up")["own_address"]
                ended = one.verdict()["result"] if policy == "replace" else ""
                seen[policy] = other == address, ended, ping(lab.a.host, str(INNER))
            for endpoint in (one, two, server):
                endpoint.running.stop()
        return seen


def test_the_session_policy_decides_who_gives_way(run_in_lab: RunInLab) -> None:
    """The first client is next to the server, the second behind a NAT with a PPTP helper."""
    seen = run_in_lab(policies)
    assert seen["replace"] == [True, "link_lost", True]
    assert seen["deny"] == ["limit_reached", True]
    assert seen["allow"] == [False, "", True]


def time_limits() -> list[Any]:
    """A session that lasts too long, and one that is idle."""
    found = []
    for limit in ("session_timeout", "idle_timeout"):
        with Lab("G2") as lab:
            world = Ordinary(lab, CLEAR, listen={limit: 1})
            server = world.serve()
            client = world.dial(lab.wan)
            client.wait("session_up")
            found.append((server.wait("session_down"), client.verdict()))
    return found


def test_a_session_ends_when_its_time_is_over(run_in_lab: RunInLab) -> None:
    seen = run_in_lab(time_limits)
    for (server, client), limit in zip(seen, ("session_timeout", "idle_timeout"), strict=True):
        assert server["cause"] == "timeout"
        assert limit in server["detail"]
        assert server["windows_error"] == 629
        assert client["result"] == "link_lost"


def without_ipv6() -> dict[str, Any]:
    """A client host whose administrator has switched IPv6 off."""
    with Lab("G2") as lab:
        lab.wan.set_sysctls({"net.ipv6.conf.default.disable_ipv6": 1})
        world = Ordinary(lab, CLEAR)
        server = world.serve()
        client = world.dial(lab.wan)
        up = client.wait("session_up")
        return {"ipv6": up["ipv6"], "pinged": ping(lab.wan, str(INNER)), "server": server.wait("session_up")["ipv6"]}


def test_a_host_without_ipv6_has_ipv4(run_in_lab: RunInLab) -> None:
    assert run_in_lab(without_ipv6) == {"ipv6": False, "pinged": True, "server": False}
