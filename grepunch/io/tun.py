"""The TUN device: inner IP packets from and to this host's kernel.

Three modes. :class:`Tun` moves one whole IP packet per system call. :class:`OffloadTun` has a header of virtio before
each packet, and moves trains of segments and packets whose checksum is still to be made. :class:`JoiningTun` does so
towards the kernel only. The device lives as long as
the descriptor; when the process dies, by whatever way, the kernel removes the interface with its addresses and routes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from grepunch.io.engine import batches
from grepunch.io.engine.joining import Joiner
from grepunch.io.engine.virtio import HEADER
from grepunch.io.errors import BadName, DeviceGone, HostError, NameTaken, NoPrivilege, Refused, Unsupported

DEVICE = Path("/dev/net/tun")

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_TUNSETOFFLOAD = 0x400454D0
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_IFF_VNET_HDR = 0x4000
_IFF_TUN_EXCL = 0x8000  # refuse to attach to an interface that is already there

_TCP_OFFLOADS = 0x01 | 0x02 | 0x04  # TUN_F_CSUM, TUN_F_TSO4, TUN_F_TSO6
_UDP_OFFLOADS = 0x20 | 0x40  # TUN_F_USO4, TUN_F_USO6: both or none

_NAME_REQUEST = struct.Struct("16sH22x")  # struct ifreq with flags

# linux/if.h: IFNAMSIZ less the final zero
LONGEST_NAME = 15

# ours
_LARGEST_PACKET = 0xFFFF


class TunDrop(StrEnum):
    """Why the kernel did not take a packet from us."""

    DOWN = "down"  # the interface is not up
    NOT_IP = "not_ip"  # neither IPv4 nor IPv6
    QUEUE_FULL = "queue_full"


_WRITE_DROPS = {
    errno.EIO: TunDrop.DOWN,
    errno.ENETDOWN: TunDrop.DOWN,
    errno.EINVAL: TunDrop.NOT_IP,
    errno.EAGAIN: TunDrop.QUEUE_FULL,
    errno.ENOBUFS: TunDrop.QUEUE_FULL,
    errno.ENOMEM: TunDrop.QUEUE_FULL,
}


class _Device:
    """One TUN interface, made here and gone with :meth:`close`. It is down and has no address: see ``netconf``.

    Raises :class:`BadName`, :class:`NameTaken`, :class:`NoPrivilege`, :class:`Unsupported`, :class:`Refused`.
    """

    def __init__(self, name: str, flags: int) -> None:
        check_name(name)
        self.name = name
        self._descriptor = _create(name, flags)
        self.drops: Counter[TunDrop] = Counter()

    def fileno(self) -> int:
        """The descriptor, for the event loop."""
        return self._descriptor

    def close(self) -> None:
        """Close the descriptor, and so remove the interface; harmless when it is closed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _refused(self, error: OSError) -> bool:
        """Count what the kernel did not take; False, for the writer to return."""
        cause = _WRITE_DROPS.get(error.errno or 0)
        if cause is None:
            raise self._gone(error) from error
        self.drops[cause] += 1
        return False

    def _gone(self, error: OSError) -> HostError:
        if error.errno in (errno.EBADFD, errno.EIO, errno.ENODEV):
            return DeviceGone(f"The interface {self.name} was removed by somebody else while it was in use.")
        return Refused(f"The interface {self.name} failed: {error.strerror}.")


class Tun(_Device):
    """The plain mode, which every kernel with TUN has."""

    def __init__(self, name: str) -> None:
        super().__init__(name, 0)

    def read(self, limit: int) -> list[bytes]:
        """The IP packets the kernel sends into the tunnel, at most ``limit``; fewer mean that there are no more.

        Raises :class:`DeviceGone` when somebody removed the interface.
        """
        packets: list[bytes] = []
        descriptor = self._descriptor
        try:
            for _ in range(limit):
                packets.append(os.read(descriptor, _LARGEST_PACKET))
        except BlockingIOError:
            pass  # drained
        except OSError as error:
            raise self._gone(error) from error
        return packets

    def write(self, packet: bytes | memoryview) -> bool:
        """Hand the kernel one IP packet; False when it did not take it (counted).

        Raises :class:`DeviceGone` when somebody removed the interface.
        """
        try:
            os.write(self._descriptor, packet)
        except OSError as error:
            return self._refused(error)
        return True

    def flush(self) -> None:
        """Nothing is ever held."""


class JoiningTun(_Device):
    """The mode for ordinary PPTP: whole packets come out as from :class:`Tun`, and trains go in.

    Raises :class:`Unsupported` where the kernel has no such mode.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, _IFF_VNET_HDR)
        self._buffer = bytearray(HEADER.size + _LARGEST_PACKET)
        self._view = memoryview(self._buffer)
        self._joiner = Joiner(self._hand_over)
        self.write, self.flush = self._joiner.write, self._joiner.flush

    def read(self, limit: int) -> list[bytes]:
        """The IP packets the kernel sends into the tunnel, at most ``limit``; fewer mean that there are no more.

        Raises :class:`DeviceGone` when somebody removed the interface.
        """
        packets: list[bytes] = []
        descriptor, into, view = self._descriptor, (self._buffer,), self._view
        try:
            for _ in range(limit):
                packets.append(bytes(view[HEADER.size : os.readv(descriptor, into)]))
        except BlockingIOError:
            pass  # drained
        except OSError as error:
            raise self._gone(error) from error
        return packets

    def _hand_over(self, parts: Sequence[memoryview]) -> bool:
        try:
            os.writev(self._descriptor, parts)
        except OSError as error:
            return self._refused(error)
        return True


class OffloadTun(_Device):
    """The mode with a header of virtio (``IFF_VNET_HDR``). ``udp``: trains of UDP datagrams too, not only of TCP.

    Raises :class:`Unsupported` where the kernel has no such mode.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name, _IFF_VNET_HDR)
        try:
            self.udp = self._offload(_TCP_OFFLOADS | _UDP_OFFLOADS)
            if not self.udp and not self._offload(_TCP_OFFLOADS):
                raise Unsupported(f"This kernel offloads nothing to the interface {name}.")
        except BaseException:
            self.close()
            raise

    def read_into(self, buffer: bytearray) -> int:
        """The next header and packet, or train; its size, 0 when there are no more.

        Raises :class:`DeviceGone` when somebody removed the interface.
        """
        try:
            return os.readv(self._descriptor, (buffer,))
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._gone(error) from error

    def write(self, parts: Sequence[memoryview]) -> bool:
        """Hand the kernel a header with its packet or train, in parts; False when it did not take it (counted).

        Raises :class:`DeviceGone` when somebody removed the interface.
        """
        try:
            os.writev(self._descriptor, parts)
        except OSError as error:
            return self._refused(error)
        return True

    def _offload(self, what: int) -> bool:
        try:
            fcntl.ioctl(self._descriptor, _TUNSETOFFLOAD, what)
        except OSError:
            return False
        return True


def open_tun(name: str) -> Tun | OffloadTun:
    """An interface in the best mode that this system has; raises what :class:`Tun` does."""
    if batches.available():
        try:
            return OffloadTun(name)
        except Unsupported:
            pass  # if it is the device itself that is missing, what follows says so
    return Tun(name)


def open_call_tun(name: str) -> Tun | JoiningTun:
    """An interface for ordinary PPTP in the best mode that this system has; raises what :class:`Tun` does."""
    try:
        return JoiningTun(name)
    except Unsupported:
        return Tun(name)  # if it is the device itself that is missing, this says so


def check_name(name: str) -> None:
    """Refuse what the kernel takes for no interface name, or for a pattern; raises :class:`BadName`."""
    octets = len(name.encode())
    if octets > LONGEST_NAME:
        raise BadName(f"The interface name {name!r} has {octets} octets; the kernel takes {LONGEST_NAME} at most.")
    if not name or name in (".", "..") or any(c in "/:%" or c.isspace() or not c.isprintable() for c in name):
        raise BadName(f"{name!r} can be no interface name: it is empty, or has a slash, colon, percent sign or blank.")


def open_device() -> int:
    """Open the clone device, non-blocking; raises :class:`Unsupported` or :class:`NoPrivilege`."""
    try:
        return os.open(DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise Unsupported(
            f"There is no {DEVICE}.",
            "Load the module with `modprobe tun`; hand a container the device with `--device /dev/net/tun`.",
        ) from None
    except PermissionError:
        raise NoPrivilege(
            f"{DEVICE} may not be opened.", f"Run it as root, or allow it: `chmod 0666 {DEVICE}`."
        ) from None
    except OSError as error:  # ENXIO, ENODEV: a node without a driver
        raise Unsupported(
            f"{DEVICE} does not open: {error.strerror}.", "Load the module with `modprobe tun`."
        ) from error


def _create(name: str, flags: int) -> int:
    descriptor = open_device()
    try:
        fcntl.ioctl(
            descriptor, _TUNSETIFF, _NAME_REQUEST.pack(name.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_TUN_EXCL | flags)
        )
    except OSError as error:
        os.close(descriptor)
        raise _explain(name, error) from error
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _explain(name: str, error: OSError) -> HostError:
    match error.errno:
        case errno.EPERM | errno.EACCES:
            return NoPrivilege(
                f"The interface {name} may not be made: CAP_NET_ADMIN is missing.",
                "Run it as root, or give it the capability: systemd's AmbientCapabilities=CAP_NET_RAW CAP_NET_ADMIN.",
            )
        case errno.EBUSY | errno.EEXIST | errno.EINVAL:  # EINVAL: it is there and no TUN
            return NameTaken(
                f"There is already an interface {name}.",
                "End what uses it, or set another interface.name in the profile.",
            )
    return Refused(f"The kernel refused to make the interface {name}: {error.strerror}.")
