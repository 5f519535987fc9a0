"""An emulated machine whose kernel has PPP, on a tap of a lab's node, and shell commands run in it.

The guest has two interfaces, each the other end of a tap in the node: ``control`` carries commands (HTTP to a
one-script server in the guest, so that several may run at the same time), ``wan`` what is tested, so that a capture of
``wan`` holds that alone.
"""

from __future__ import annotations

import http.client
import re
import shlex
import shutil
import socket
import time
from ipaddress import IPv4Interface
from typing import Self

from grepunch.lab.node import LabError, Node, Program
from grepunch.lab.requirements import SYSTEM_PATH, LabUnavailable, Missing, require_tun
from tests.interop.image import Image

CONTROL_HERE, CONTROL_THERE = IPv4Interface("192.168.255.1/30"), IPv4Interface("192.168.255.2/30")
WAN_HERE, WAN_THERE = IPv4Interface("198.51.100.1/24"), IPv4Interface("198.51.100.2/24")
CONTROL, WAN = "control", "wan"  # the taps' names in the node
BOOT = 120.0  # seconds; it takes five on an idle machine
_PORT = 80
_MEMORY = 256  # megabytes
_STATUS = re.compile(rb"\nexit status (\d+)\n\Z")
_MAC = "52:54:00:00:00:%02x"
_EMULATOR = "qemu-system-x86_64"


class GuestError(LabError):
    """A command in the guest failed, or the guest did; the text has what it printed."""


class Guest:
    """A running guest. Starts with the ``with`` statement, which ends it."""

    def __init__(self, node: Node, image: Image) -> None:
        self.node = node
        self._image = image
        self._emulator: Program | None = None

    def __enter__(self) -> Self:
        emulator = shutil.which(_EMULATOR, path=SYSTEM_PATH) or shutil.which(_EMULATOR)
        if emulator is None:
            raise LabUnavailable(
                Missing.PROGRAM, f"the program {_EMULATOR!r} is not installed: sudo apt-get install qemu-system-x86"
            )
        require_tun()
        for tap, address in ((CONTROL, CONTROL_HERE), (WAN, WAN_HERE)):
            self.node.ip("tuntap", "add", "dev", tap, "mode", "tap")
            self.node.ip("address", "add", str(address), "dev", tap)
            self.node.ip("link", "set", "dev", tap, "up")
        kernel_line = (
            "console=ttyS0 quiet panic=-1 random.trust_cpu=on mitigations=off "
            f"guest.control={CONTROL_THERE} guest.address={WAN_THERE} guest.port={_PORT}"
        )
        command = [emulator, *("-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", str(_MEMORY))]
        command += ["-nodefaults", "-no-reboot", "-nographic", "-serial", "stdio"]
        command += ["-kernel", str(self._image.kernel), "-initrd", str(self._image.initramfs), "-append", kernel_line]
        for number, tap in enumerate((CONTROL, WAN)):
            command += ["-netdev", f"tap,id={tap},ifname={tap},script=no,downscript=no"]
            command += ["-device", f"virtio-net-pci,netdev={tap},mac={_MAC % number},romfile="]
        self._emulator = self.node.start(command, label="guest")
        self._emulator.wait_for("guest is ready", BOOT)
        return self

    def __exit__(self, *_: object) -> None:
        if self._emulator is not None:
            self._emulator.process.kill()  # it has nothing to put away
            self._emulator.process.wait()

    def run(self, script: str, *, timeout: float = 30.0) -> str:
        """Run a shell script in the guest; what it printed. Raises :class:`GuestError` unless its status is 0."""
        status, printed = self.attempt(script, timeout=timeout)
        if status != 0:
            raise GuestError(f"in the guest, ended with {status}:\n{script}\n{printed}")
        return printed

    def attempt(self, script: str, *, timeout: float = 30.0) -> tuple[int, str]:
        """Run a shell script in the guest; its exit status and what it printed. Background jobs must close stdout."""
        connection = http.client.HTTPConnection(str(CONTROL_THERE.ip), _PORT, timeout=timeout)
        with self.node.entered():
            connection.sock = socket.create_connection((str(CONTROL_THERE.ip), _PORT), timeout)
        try:
            connection.request("POST", "/cgi-bin/run", script.encode())
            answer = connection.getresponse().read()
        except (OSError, http.client.HTTPException) as error:
            raise GuestError(
                f"the guest did not answer in {timeout} s ({error!r}):\n{script}\n{self.console()}"
            ) from error
        finally:
            connection.close()
        found = _STATUS.search(answer)
        if found is None:
            raise GuestError(f"the guest's answer is cut: {answer!r}")
        return int(found[1]), answer[: found.start()].decode(errors="replace")

    def write(self, path: str, content: str, *, permissions: int = 0o644) -> None:
        """Make a small text file in the guest."""
        self.run(f"cat >{path} <<'END-OF-FILE'\n{content}\nEND-OF-FILE\nchmod {permissions:o} {path}")

    def wait_for(self, condition: str, timeout: float, *, what: str = "") -> str:
        """Wait in the guest until a shell condition holds; what it printed then."""
        script = f"until {{ {condition}; }}; do usleep 50000; done"
        begun = time.monotonic()
        status, printed = self.attempt(f"timeout {timeout:.0f} sh -c {shlex.quote(script)}", timeout=timeout + 30)
        if status != 0:
            raise GuestError(f"{what or condition}: not within {time.monotonic() - begun:.1f} s\n{printed[-2000:]}")
        return printed

    def console(self) -> str:
        """The end of what the guest's kernel said."""
        return "" if self._emulator is None else self._emulator.stdout[-2000:]
