"""The TUN device: inner IP packets from and to this host's kernel.

Plain mode (no virtio-net header): one whole IP packet per system call. The device lives as long as the descriptor;
when the process dies, by whatever way, the kernel removes the interface with its addresses and routes.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections import Counter
from enum import StrEnum
from pathlib import Path

from grepunch.io.errors import BadName, DeviceGone, HostError, NameTaken, NoPrivilege, Refused, Unsupported

DEVICE = Path("/dev/net/tun")

# linux/if_tun.h
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_IFF_TUN_EXCL = 0x8000  # refuse to attach to an interface that is already there

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


class Tun:
    """One TUN interface, made here and gone with :meth:`close`. It is down and has no address: see ``netconf``.

    Raises :class:`BadName`, :class:`NameTaken`, :class:`NoPrivilege`, :class:`Unsupported`, :class:`Refused`.
    """

    def __init__(self, name: str) -> None:
        check_name(name)
        self.name = name
        self._descriptor = _create(name)
        self.drops: Counter[TunDrop] = Counter()

    def fileno(self) -> int:
        """The descriptor, for the event loop."""
        return self._descriptor

    def close(self) -> None:
        """Close the descriptor, and so remove the interface; harmless when it is closed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

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
            cause = _WRITE_DROPS.get(error.errno or 0)
            if cause is None:
                raise self._gone(error) from error
            self.drops[cause] += 1
            return False
        return True

    def _gone(self, error: OSError) -> HostError:
        if error.errno in (errno.EBADFD, errno.EIO, errno.ENODEV):
            return DeviceGone(f"The interface {self.name} was removed by somebody else while it was in use.")
        return Refused(f"The interface {self.name} failed: {error.strerror}.")


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


def _create(name: str) -> int:
    descriptor = open_device()
    try:
        fcntl.ioctl(descriptor, _TUNSETIFF, _NAME_REQUEST.pack(name.encode(), _IFF_TUN | _IFF_NO_PI | _IFF_TUN_EXCL))
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
