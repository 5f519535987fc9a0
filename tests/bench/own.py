"""The contenders that are ours: the product, the original's way, and the bare line as the limit."""

from __future__ import annotations

import compileall
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import grepunch
import pptp
from grepunch.ordinary.users import User, write_users
from grepunch.secure.identity import Identity, encode_key, generate_private_key
from tests.bench.contender import INNER_NETWORK, Contender, write_secret
from tests.bench.wire import INNER, OUTER, SIDES, WIRE, Side, Site, other

ROLES: dict[Side, str] = {"left": "serve", "right": "dial"}
_UP_TIMEOUT = 30.0


class Veth(Contender):
    """No tunnel: what the kernel and iperf3 do on this machine."""

    name: ClassVar[str] = "veth"
    title: ClassVar[str] = "bare veth pair (the limit)"
    setting: ClassVar[str] = "no tunnel, segments of up to 64 KB"
    inner_mtu: ClassVar[int] = 1500

    def missing(self) -> str:
        """Nothing beyond the lab's own needs."""
        return ""

    def version(self) -> str:
        """The kernel's."""
        return f"Linux {platform.release()}"

    def prepare(self, site: Site) -> None:
        """Use the line itself."""
        site.inner = {side: OUTER[side] for side in SIDES}
        site.interfaces = dict.fromkeys(SIDES, WIRE)

    def start(self, site: Site) -> None:
        """Nothing to start."""


class Original(Contender):
    """A plain GRE version 0 forwarder without encryption: :mod:`tests.bench.original`."""

    name: ClassVar[str] = "original"
    title: ClassVar[str] = "the original's way (Python, GRE v0, no encryption)"
    setting: ClassVar[str] = "one packet a wake-up"
    inner_mtu: ClassVar[int] = 1400  # its own choice; 1476 would fit

    def missing(self) -> str:
        """Nothing beyond the lab's own needs."""
        return ""

    def version(self) -> str:
        """Python's, as it has none itself."""
        return f"Python {platform.python_version()}"

    def prepare(self, site: Site) -> None:
        """Choose the names."""
        site.interfaces = dict.fromkeys(SIDES, "gre-plain")

    def start(self, site: Site) -> None:
        """Start both forwarders."""
        script = str(Path(__file__).with_name("original.py"))
        for side in SIDES:
            ends = (OUTER[side], OUTER[other(side)], INNER[side], INNER[other(side)])
            addresses = [str(address) for address in ends]
            command = [sys.executable, script, site.interfaces[side], *addresses]
            site.endpoints[side] = site.hosts[side].start(command, label="original")
        for side in SIDES:
            site.configure(side, self.inner_mtu)


class Ours(Contender):
    """The product as a user starts it, with profiles that name the other's address."""

    name: ClassVar[str] = "ours"
    title: ClassVar[str] = "grepunch-pptp"
    setting: ClassVar[str] = "AES-256-GCM, sealed GRE"
    inner_mtu: ClassVar[int] = 0
    command: ClassVar[Sequence[str]] = ("-m", "grepunch")
    ready_stage: ClassVar[str] = "punching"  # what a lone ``serve`` does once it has started

    def __init__(self, *, sampled: bool = False) -> None:
        """``sampled``: each endpoint's time goes to the file that :func:`samples_of` names."""
        self.sampled = sampled

    def missing(self) -> str:
        """Nothing: this is its own checkout."""
        return ""

    def version(self) -> str:
        """The package's."""
        return f"{grepunch.__version__} on Python {platform.python_version()}"

    def prepare(self, site: Site) -> None:
        """Make keys and write both profiles; and compile, as an installation does, or each start would do it again."""
        for package in (grepunch, pptp):
            compileall.compile_dir(str(Path(package.__path__[0])), quiet=2)
        identities = {side: Identity.from_private_key(generate_private_key(os.urandom)) for side in SIDES}
        site.interfaces = dict.fromkeys(SIDES, "gp-bench")
        for side in SIDES:
            key = write_secret(site.directory / f"{side}.key", encode_key(identities[side].private_key) + "\n")
            write_profile(profile_of(site, side), side, key, encode_key(identities[other(side)].public_key))

    def start(self, site: Site) -> None:
        """Start ``serve`` on the left and ``dial`` on the right; returns when both say that the peer is up."""
        for side in SIDES:
            self.start_endpoint(site, side)
        for side in SIDES:
            site.endpoints[side].wait_for('"event":"peer_up"', _UP_TIMEOUT)

    def seconds_to_ready(self, site: Site) -> float:
        """Seconds from the start of a lone ``serve`` until it does its work, as it says itself."""
        began = time.monotonic()
        self.start_endpoint(site, "left")
        alone = site.endpoints.pop("left")
        alone.wait_for(f'"stage":"{self.ready_stage}"', _UP_TIMEOUT)
        took = time.monotonic() - began
        alone.stop()
        return took

    def start_endpoint(self, site: Site, side: Side) -> None:
        """Start one of the two."""
        runtime = site.directory / f"run-{side}"
        runtime.mkdir(mode=0o700, exist_ok=True)
        site.endpoints[side] = site.hosts[side].start(
            [sys.executable, *self.arguments(site, side), ROLES[side], str(profile_of(site, side)), "--json"],
            label=ROLES[side],
            environment={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
        )

    def arguments(self, site: Site, side: Side) -> Sequence[str]:
        """What stands between the interpreter and the command."""
        if self.sampled:
            return ("-m", "tests.bench.endpoint", "--sample", str(samples_of(site, side)))
        return self.command


class OursChaCha(Ours):
    """The same, allowed to agree on ChaCha20-Poly1305 alone: :mod:`tests.bench.endpoint`."""

    name: ClassVar[str] = "ours-chacha"
    title: ClassVar[str] = "grepunch-pptp, ChaCha20-Poly1305"
    setting: ClassVar[str] = "ChaCha20-Poly1305, sealed GRE"
    command: ClassVar[Sequence[str]] = ("-m", "tests.bench.endpoint", "--suite", "CHACHA20_POLY1305")


class OursMppe(Ours):
    """Ordinary PPTP between two of ours: TCP 1723, MS-CHAPv2, MPPE."""

    name: ClassVar[str] = "ours-mppe"
    title: ClassVar[str] = "grepunch-pptp, ordinary PPTP"
    setting: ClassVar[str] = "MPPE-128 stateless (RC4; breakable), MS-CHAPv2"
    ready_stage: ClassVar[str] = "waiting"

    def prepare(self, site: Site) -> None:
        """Make a user and write both profiles."""
        site.interfaces = dict.fromkeys(SIDES, "gp-bench")
        password = os.urandom(16).hex()
        write_users(site.directory / "users.toml", [User.of_password("bench", password)])
        secret = write_secret(site.directory / "password", password + "\n")
        legacy = '[legacy]\nallow = ["mschapv2", "mppe128"]\n'
        write_secret(
            profile_of(site, "left"),
            f'version = 1\n[interface]\nname = "gp-bench"\npool = "{INNER_NETWORK}"\n'
            f'[listen]\ntcp = ["{OUTER["left"]}:1723"]\n[auth]\nusers = "users.toml"\n{legacy}',
        )
        write_secret(
            profile_of(site, "right"),
            f'version = 1\n[interface]\nname = "gp-bench"\n[server]\nhost = "{OUTER["left"]}"\n'
            f'[auth]\nuser = "bench"\npassword = {{ file = "{secret}" }}\n{legacy}',
        )

    def start(self, site: Site) -> None:
        """Start ``serve`` on the left, and ``dial`` on the right once there is something to dial."""
        self.start_endpoint(site, "left")
        site.endpoints["left"].wait_for('"stage":"waiting"', _UP_TIMEOUT)
        self.start_endpoint(site, "right")
        site.endpoints["right"].wait_for('"event":"session_up"', _UP_TIMEOUT)


def samples_of(site: Site, side: Side) -> Path:
    """Where a sampled endpoint writes what it has spent its time on."""
    return site.directory / f"samples-{side}.json"


def profile_of(site: Site, side: Side) -> Path:
    """The profile of one host; its name is also that of the lock that all endpoints of this machine share."""
    return site.directory / f"{site.name}-{side}.toml"


def write_profile(path: Path, side: Side, key: Path, peer_key: str) -> None:
    """The profile of one host, naming the other's address instead of a rendezvous."""
    write_secret(
        path,
        "\n".join(
            [
                "version = 1",
                "[interface]",
                'name = "gp-bench"',
                f'address = "{INNER[side]}/24"',
                "[identity]",
                f'private_key = {{ file = "{key}" }}',
                "[[peer]]",
                f'name = "{other(side)}"',
                f'public_key = "{peer_key}"',
                f'address = "{INNER[other(side)]}"',
                f'last_known_address = "{OUTER[other(side)]}"',
                "",
            ]
        ),
    )
