"""Every lack of the machine has a sentence with the command that helps."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from grepunch.lab.requirements import (
    LabUnavailable,
    Missing,
    explain_refusal,
    program,
    read_namespace_settings,
    require_tun,
)

SAID = "unshare: unshare failed: Operation not permitted\n"
UBUNTU = "kernel.apparmor_restrict_unprivileged_userns"
OLD_DEBIAN = "kernel.unprivileged_userns_clone"


@pytest.mark.parametrize(
    ("settings", "root", "words"),
    [
        ({UBUNTU: "1"}, False, f"sudo sysctl -w {UBUNTU}=0, or run this as root"),
        ({UBUNTU: "0", OLD_DEBIAN: "0"}, False, f"sudo sysctl -w {OLD_DEBIAN}=1, or run this as root"),
        (
            {"user.max_user_namespaces": "0"},
            False,
            "sudo sysctl -w user.max_user_namespaces=10000, or run",
        ),
        ({"user.max_net_namespaces": "0"}, True, "sudo sysctl -w user.max_net_namespaces=10000"),
        ({UBUNTU: "1"}, True, "--cap-add SYS_ADMIN"),  # never in root's way
        ({UBUNTU: "0", OLD_DEBIAN: "1", "user.max_user_namespaces": "96365"}, False, "seccomp=unconfined"),
        ({}, True, "--cap-add SYS_ADMIN"),
    ],
)
def test_a_refusal_names_the_setting_and_the_way_on(settings: dict[str, str], root: bool, words: str) -> None:
    error = explain_refusal(SAID, settings, root=root)
    assert error.missing is Missing.NAMESPACES
    assert words in str(error)
    assert "unshare failed: Operation not permitted" in str(error)
    assert "\n" not in str(error)


def test_settings_are_read_where_the_kernel_has_them(tmp_path: Path) -> None:
    (tmp_path / "user").mkdir()
    (tmp_path / "user/max_user_namespaces").write_text("0\n")
    assert read_namespace_settings(tmp_path) == {"user.max_user_namespaces": "0"}


@pytest.mark.parametrize(
    ("name", "package"), [("nft", "nftables"), ("ip", "iproute2"), ("unshare", "util-linux"), ("ping", "iputils-ping")]
)
def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch, name: str, package: str) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    program.cache_clear()
    with pytest.raises(LabUnavailable, match=f"'{name}' is not installed: sudo apt-get install {package} ") as caught:
        program(name)
    assert caught.value.missing is Missing.PROGRAM


def test_programs_are_found_without_sbin_in_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    program.cache_clear()
    assert Path(program("ip")).name == "ip"


@pytest.mark.parametrize(
    ("number", "command"),
    [
        (errno.ENOENT, "sudo modprobe tun, or sudo mkdir -p /dev/net && sudo mknod -m 0666 /dev/net/tun c 10 200"),
        (errno.EACCES, "sudo chmod 0666 /dev/net/tun"),
        (errno.EPERM, "sudo chmod 0666 /dev/net/tun"),
        (errno.ENODEV, "sudo modprobe tun"),
    ],
)
def test_a_tun_device_that_cannot_be_opened_is_told_with_the_command(
    monkeypatch: pytest.MonkeyPatch, number: int, command: str
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(LabUnavailable) as caught:
        require_tun()
    assert caught.value.missing is Missing.TUN
    assert command in str(caught.value)


def test_a_tun_device_that_opens_is_enough(tmp_path: Path) -> None:
    device = tmp_path / "tun"
    device.touch()
    require_tun(device)
