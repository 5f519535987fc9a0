"""pppd in the guest: as a client through pptp-linux, as a server under pptpd, and what its logs tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from tests.interop.guest import Guest, GuestError
from tests.interop.kinds import PASSWORD, USER, Kind

SERVER_ADDRESS, CLIENT_ADDRESSES = IPv4Address("10.88.0.1"), "10.88.0.10-20"  # inside a tunnel to pptpd
FAR_SERVER, _FAR_CLIENT = IPv4Address("203.0.113.1"), IPv4Address("203.0.113.2")  # between the guest's namespaces
_CLIENT, _SERVER = "/run/client", "/run/server"  # stems of files in the guest
_ENDED = "/run/ended"  # what a client's pppd ended with
_LINE = re.compile(r"(local|remote) +(IP|LL) address (\S+)")
# what a desktop sets, with pppd's own keepalive, so that a peer that is gone is noticed soon
_COMMON = ("debug", "+ipv6", "lcp-echo-interval 3", "lcp-echo-failure 5")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Both ends of a link in pppd's words; ``here`` is the guest."""

    here: IPv4Address
    there: IPv4Address
    here_ipv6: IPv6Address
    there_ipv6: IPv6Address
    interface: str


def addresses(log: str) -> Addresses | None:
    """The last link that a debug log of pppd shows coming up; nothing while it lacks IPv4 or IPv6."""
    last = log.rpartition("Using interface ")[2]
    found = {(side, kind): value for side, kind, value in _LINE.findall(last)}
    if len(found) < 4:
        return None
    return Addresses(
        IPv4Address(found["local", "IP"]),
        IPv4Address(found["remote", "IP"]),
        IPv6Address(found["local", "LL"]),
        IPv6Address(found["remote", "LL"]),
        last.split(maxsplit=1)[0],
    )


class Foreign:
    """A pppd in the guest, whatever started it. ``log`` is its debug log."""

    log_file: str
    options_file: str

    def __init__(self, guest: Guest) -> None:
        self.guest = guest

    @property
    def log(self) -> str:
        """What pppd has written up to now."""
        return self.guest.run(f"cat {self.log_file}")

    def forget_log(self) -> None:
        """Begin the log anew."""
        self.guest.run(f": >{self.log_file}")

    def wait_for_log(self, pattern: str, timeout: float) -> None:
        """Wait for a line of the log that matches an extended regular expression."""
        self.guest.wait_for(f'grep -qE "{pattern}" {self.log_file}', timeout, what=f"{pattern!r} in pppd's log")

    def up(self, timeout: float) -> Addresses:
        """Wait for IPv4 and IPv6 on the link begun last. Raises :class:`GuestError` with the log."""
        counting = "/Using interface/{n=0} /local  (IP|LL) address/{n++} END{exit n<2}"
        try:
            self.guest.wait_for(f"awk '{counting}' {self.log_file}", timeout)
        except GuestError as error:
            raise GuestError(f"pppd did not come up within {timeout} s\n{self.log[-3000:]}") from error
        found = addresses(self.log)
        if found is None:
            raise GuestError(f"no addresses in pppd's log:\n{self.log[-3000:]}")
        return found


class Client(Foreign):
    """``pppd pty "pptp SERVER --nolaunchpppd"``, one at a time."""

    log_file = f"{_CLIENT}.log"

    def dial(self, server: IPv4Address, kind: Kind, *, pptp_options: Sequence[str] = (), within: str = "") -> None:
        """Start pppd. ``within`` is a command that the programs are started by (to be in another namespace)."""
        secret(self.guest)
        pptp = " ".join(["pptp", str(server), "--nolaunchpppd", "--loglevel", "1", *pptp_options])
        options = [f'pty "{pptp}"', "nodetach", f"user {USER}", "noauth", "noipdefault", "usepeerdns", "nodefaultroute"]
        options += [f"logfile {self.log_file}", "linkname client", "maxfail 1", *_COMMON, *kind.pppd_client_options()]
        self.guest.write(f"{_CLIENT}.options", "\n".join(options))
        self.guest.run(
            f"rm -f {_ENDED}; : >{self.log_file}\n"
            f"(setsid {within} pppd file {_CLIENT}.options; echo $? >{_ENDED}) >{_CLIENT}.out 2>&1 </dev/null &"
        )

    def hang_up(self) -> int:
        """End the link as a user would; what pppd ended with."""
        self.guest.run("kill -TERM $(head -n 1 /var/run/ppp-client.pid)")
        return self.ended(15.0)

    def ended(self, timeout: float) -> int:
        """Wait for its end; what pppd ended with."""
        self.guest.wait_for(f"test -s {_ENDED}", timeout, what="the end of pppd")
        return int(self.guest.run(f"cat {_ENDED}"))

    def kill(self) -> None:
        """Kill it and pptp as a loss of power would."""
        kill_all(self.guest)


class Server(Foreign):
    """pptpd, and the pppd that it starts for each call."""

    log_file = f"{_SERVER}.log"

    def start(self, kind: Kind, *, within: str = "") -> None:
        """Start pptpd."""
        secret(self.guest)
        options = ["name guest", "auth", "nodefaultroute", f"logfile {self.log_file}", "ms-dns 10.88.0.53"]
        self.guest.write(f"{_SERVER}.options", "\n".join([*options, *_COMMON, *kind.pppd_server_options()]))
        settings = (
            f"option {_SERVER}.options",
            f"localip {SERVER_ADDRESS}",
            f"remoteip {CLIENT_ADDRESSES}",
            "noipparam",
            "debug",
        )
        self.guest.write(f"{_SERVER}.conf", "\n".join(settings))
        self.guest.run(
            f": >{self.log_file}\nsetsid {within} pptpd --fg --conf {_SERVER}.conf --pidfile {_SERVER}.pid "
            f">{_SERVER}.out 2>&1 </dev/null &"
        )
        self.guest.wait_for('netstat -ltn | grep -q ":1723 "', 10.0, what="pptpd")

    def hang_up(self) -> None:
        """End every link as pppd does on SIGTERM; pptpd goes on."""
        self.guest.run("killall -TERM pppd")

    def kill(self) -> None:
        """Kill pptpd and everything that it started as a loss of power would."""
        kill_all(self.guest)


def kill_all(guest: Guest) -> None:
    """Leave nothing of PPP running in the guest."""
    guest.run(
        "killall -KILL pptpd pptpctrl pppd pptp 2>/dev/null\n"
        "until ! pidof pptpd pptpctrl pppd pptp >/dev/null && ! grep -q ppp /proc/net/dev; do usleep 20000; done"
    )


def secret(guest: Guest) -> None:
    """Let both sides know the user's password."""
    for file in ("chap-secrets", "pap-secrets"):
        guest.write(f"/etc/ppp/{file}", f'"{USER}" * "{PASSWORD}" *', permissions=0o600)


def far_namespace(guest: Guest) -> str:
    """Another network namespace of the guest, from which :data:`FAR_SERVER` is reached; the command that enters it."""
    enter = "nsenter --net=/proc/$(cat /run/far)/ns/net"
    guest.run(
        "test -e /run/far && exit\n"
        "setsid unshare -n sleep 100000 >/dev/null 2>&1 </dev/null &\n"
        "pid=$!; until test /proc/$pid/ns/net -ef /proc/self/ns/net; [ $? = 1 ]; do usleep 10000; done\n"
        "echo $pid >/run/far\n"
        "ip link add near type veth\n"  # busybox cannot name the other end, which is veth0 then
        f"ip address add {FAR_SERVER}/24 dev near; ip link set near up\n"
        f"ip link set veth0 netns $pid; {enter} ip address add {_FAR_CLIENT}/24 dev veth0; {enter} ip link set veth0 up"
    )
    return enter
