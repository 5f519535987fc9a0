"""What is read of this host's settings, and what is made of their absence."""

from __future__ import annotations

from ipaddress import IPv4Address
from pathlib import Path

import pytest

from grepunch.io.hostnet import forwards_ipv4, has_ipv6, resolvers


@pytest.mark.parametrize(
    ("forward", "disable", "expected"),
    [("1", "0", (True, True)), ("0", "1", (False, False)), (None, None, (True, False))],
)
def test_settings(tmp_path: Path, forward: str | None, disable: str | None, expected: tuple[bool, bool]) -> None:
    for name, value in (("ipv4/ip_forward", forward), ("ipv6/conf/default/disable_ipv6", disable)):
        if value is not None:
            (tmp_path / name).parent.mkdir(parents=True)
            (tmp_path / name).write_text(f"{value}\n")
    assert (forwards_ipv4(tmp_path), has_ipv6(tmp_path)) == expected


def test_name_servers_are_read_from_what_there_is(tmp_path: Path) -> None:
    first, second = tmp_path / "resolv.conf", tmp_path / "absent"
    first.write_bytes(
        b"# nameserver 192.0.2.9\nsearch example.org\nnameserver 10.0.0.53\nnameserver ::1 \xff\nnameserver\n"
    )
    assert resolvers((first, second)) == {IPv4Address("10.0.0.53")}
