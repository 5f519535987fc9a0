"""What the lab needs of the machine it runs on, and what to say where that is missing.

Every refusal is a :class:`LabUnavailable`: one word for programs (:class:`Missing`) and one sentence for people,
which names the setting, program or device that is in the way and the command that helps.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from pathlib import Path

# Debian's packages; other distributions use the same names or show the program under the same name.
DEBIAN_PACKAGES: Mapping[str, str] = {
    "ip": "iproute2",
    "nft": "nftables",
    "ping": "iputils-ping",
    "setpriv": "util-linux",
    "tc": "iproute2",
    "unshare": "util-linux",
}
# ours, because an ordinary user's PATH on Debian has no sbin, and ip and nft live there
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TUN_DEVICE = Path("/dev/net/tun")
# The settings that forbid namespaces to ordinary users (or, when 0, to everybody), each with the value that forbids.
NAMESPACE_SETTINGS: Mapping[str, str] = {
    "kernel.apparmor_restrict_unprivileged_userns": "1",
    "kernel.unprivileged_userns_clone": "0",
    "user.max_user_namespaces": "0",
    "user.max_net_namespaces": "0",
    "user.max_pid_namespaces": "0",
    "user.max_mnt_namespaces": "0",
}
_HELPFUL_VALUES: Mapping[str, str] = {
    "kernel.apparmor_restrict_unprivileged_userns": "0",
    "kernel.unprivileged_userns_clone": "1",
}
_LIMIT_THAT_HELPS = "10000"  # ours: far more namespaces than a lab makes, far fewer than the kernel's own limits


class Missing(StrEnum):
    """What the lab lacks, in one word."""

    NAMESPACES = "no-namespaces"
    PROGRAM = "no-program"
    TUN = "no-tun"
    NETFILTER = "no-netfilter"
    ORDINARY_USER = "no-ordinary-user"


class LabUnavailable(Exception):
    """The lab cannot run on this machine as it is; the text says what forbids it and how to go on."""

    def __init__(self, missing: Missing, sentence: str) -> None:
        super().__init__(sentence)
        self.missing = missing


@cache
def program(name: str) -> str:
    """The path of a program the lab calls. Raises :class:`LabUnavailable` naming the Debian package that has it."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}")
    if path is None:
        package = DEBIAN_PACKAGES[name]
        raise LabUnavailable(
            Missing.PROGRAM, f"the program {name!r} is not installed: sudo apt-get install {package} (Debian's name)"
        )
    return path


def require_tun(device: Path = TUN_DEVICE) -> None:
    """Check that TUN interfaces can be made. Raises :class:`LabUnavailable` with the command that allows it."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except (FileNotFoundError, NotADirectoryError):
        node = f"sudo mkdir -p {device.parent} && sudo mknod -m 0666 {device} c 10 200"
        sentence = f"{device} does not exist, so no tunnel interface can be made: sudo modprobe tun, or {node}"
    except PermissionError:
        sentence = (
            f"{device} may not be opened by this user, so no tunnel interface can be made: sudo chmod 0666 {device}"
        )
    except OSError as error:
        sentence = (
            f"{device} cannot be opened ({error.strerror}): load the kernel's TUN driver with sudo modprobe tun, or "
            "allow the device in the container (docker run --device /dev/net/tun)"
        )
    else:
        return
    raise LabUnavailable(Missing.TUN, sentence)


def read_namespace_settings(root: Path = Path("/proc/sys")) -> dict[str, str]:
    """The values of :data:`NAMESPACE_SETTINGS` that this kernel has."""
    settings = {}
    for name in NAMESPACE_SETTINGS:
        try:
            settings[name] = (root / name.replace(".", "/")).read_text().strip()
        except OSError:
            continue
    return settings


def explain_refusal(message: str, settings: Mapping[str, str], *, root: bool) -> LabUnavailable:
    """Why namespaces were refused: ``message`` is what ``unshare`` said, ``settings`` what the kernel is set to."""
    said = " ".join(message.split()) or "unshare gave no reason"
    for name, forbidding in NAMESPACE_SETTINGS.items():
        if settings.get(name) != forbidding or (root and name.startswith("kernel.")):
            continue
        value = _HELPFUL_VALUES.get(name, _LIMIT_THAT_HELPS)
        how = f"the setting {name}={forbidding} forbids it: sudo sysctl -w {name}={value}"
        return LabUnavailable(
            Missing.NAMESPACES,
            f"cannot make network namespaces ({said}); {how}" + ("" if root else ", or run this as root"),
        )
    if root:
        how = (
            "root without CAP_SYS_ADMIN, as in a container: "
            "docker run --cap-add SYS_ADMIN --cap-add NET_ADMIN --security-opt seccomp=unconfined "
            "--security-opt apparmor=unconfined"
        )
    else:
        how = (
            "no sysctl forbids it, so a container's seccomp profile or a security module does: "
            "run this as root, or start the container with --security-opt seccomp=unconfined "
            "--security-opt systempaths=unconfined"
        )
    return LabUnavailable(Missing.NAMESPACES, f"cannot make network namespaces ({said}); {how}")
