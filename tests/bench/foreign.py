"""The contenders from elsewhere, each set up as its own documentation says, with the largest MTU that fits."""

from __future__ import annotations

import base64
import json
import os
import re
import socket
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from grepunch.lab.node import LabError
from grepunch.secure.certificate import laboratory_certificate
from tests.bench.contender import Contender, find, write_secret
from tests.bench.wire import INNER, OUTER, SIDES, Site, other

PORT = 11010
_UAPI_TIMEOUT = 5.0


class Packaged(Contender):
    """A contender that is one or more programs of a Debian package."""

    package: ClassVar[str]
    programs: ClassVar[tuple[str, ...]]
    version_arguments: ClassVar[tuple[str, ...]] = ("--version",)

    def missing(self) -> str:
        """The package whose programs are not there."""
        absent = [name for name in self.programs if find(name) is None]
        return f"{', '.join(absent)} not installed: sudo apt-get install {self.package}" if absent else ""

    def version(self) -> str:
        """The first thing that looks like a version in what it prints."""
        command = [self.path(), *self.version_arguments]
        said = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        found = re.search(r"\d+\.\d+[\w.]*", said.stdout + said.stderr)
        return found.group() if found else "unknown"

    def path(self, program: str = "") -> str:
        """The path of one of its programs, the first if not said."""
        return find(program or self.programs[0]) or program


class OpenVpn(Packaged):
    """OpenVPN over UDP between two peers that know each other's certificate."""

    name: ClassVar[str] = "openvpn"
    title: ClassVar[str] = "OpenVPN, UDP, AES-256-GCM"
    setting: ClassVar[str] = "data-ciphers AES-256-GCM, fast-io, no compression, disable-dco"
    inner_mtu: ClassVar[int] = 1448  # 1500 - IPv4 20 - UDP 8 - opcode and peer id 4 - packet id 4 - tag 16
    package: ClassVar[str] = "openvpn"
    programs: ClassVar[tuple[str, ...]] = ("openvpn",)

    def prepare(self, site: Site) -> None:
        """Certificates and both configurations."""
        certificates = {}
        for side in SIDES:
            certificate, key = laboratory_certificate(OUTER[side], datetime.now(UTC))
            write_secret(site.directory / f"{side}.key", key)
            (site.directory / f"{side}.crt").write_bytes(certificate)
            certificates[side] = x509.load_pem_x509_certificate(certificate)
        site.interfaces = dict.fromkeys(SIDES, "ovpn")
        for side in SIDES:
            peer = other(side)
            fingerprint = certificates[peer].fingerprint(hashes.SHA256()).hex(":").upper()
            lines = [
                "dev ovpn",
                "dev-type tun",
                "proto udp4",
                f"local {OUTER[side]}",
                f"remote {OUTER[peer]} {PORT}",
                f"port {PORT}",
                f"ifconfig {INNER[side]} {INNER[peer]}",
                f"tun-mtu {self.inner_mtu}",
                "data-ciphers AES-256-GCM",
                "disable-dco",
                "fast-io",  # its own optimisation for UDP: no poll before a write
                *(("tls-server", "dh none") if side == "left" else ("tls-client",)),
                f"cert {site.directory}/{side}.crt",
                f"key {site.directory}/{side}.key",
                f"peer-fingerprint {fingerprint}",
                "keepalive 10 60",
                "verb 3",
            ]
            (site.directory / f"{side}.conf").write_text("\n".join(lines) + "\n")

    def start(self, site: Site) -> None:
        """Start both; they make their interfaces themselves."""
        for side in SIDES:
            command = [self.path(), "--config", f"{site.directory}/{side}.conf"]
            site.endpoints[side] = site.hosts[side].start(command, label="openvpn")


class WireguardGo(Packaged):
    """wireguard-go, configured over its own socket."""

    name: ClassVar[str] = "wireguard-go"
    title: ClassVar[str] = "wireguard-go"
    setting: ClassVar[str] = "ChaCha20-Poly1305 (there is no other)"
    inner_mtu: ClassVar[int] = 1440  # 1500 - IPv4 20 - UDP 8 - header 16 - tag 16
    package: ClassVar[str] = "wireguard-go"
    programs: ClassVar[tuple[str, ...]] = ("wireguard-go",)

    def prepare(self, site: Site) -> None:
        """Write what both are told over their sockets."""
        keys = {side: X25519PrivateKey.generate() for side in SIDES}
        site.interfaces = {side: f"wg-{side}" for side in SIDES}  # the sockets are named after them, in one directory
        for side in SIDES:
            peer = other(side)
            lines = [
                "set=1",
                f"private_key={keys[side].private_bytes_raw().hex()}",
                f"listen_port={PORT}",
                f"public_key={keys[peer].public_key().public_bytes_raw().hex()}",
                f"endpoint={OUTER[peer]}:{PORT}",
                f"allowed_ip={INNER[peer]}/32",
            ]
            write_secret(site.directory / f"{side}.uapi", "\n".join(lines) + "\n\n")

    def start(self, site: Site) -> None:
        """Start both, configure them, give them their addresses."""
        environment = {**os.environ, "WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD": "1", "LOG_LEVEL": "error"}
        for side in SIDES:
            command = [self.path(), "-f", site.interfaces[side]]
            site.endpoints[side] = site.hosts[side].start(command, label="wireguard-go", environment=environment)
        for side in SIDES:
            tell_wireguard(Path(f"/run/wireguard/{site.interfaces[side]}.sock"), site.directory / f"{side}.uapi")
            site.configure(side, self.inner_mtu)


def tell_wireguard(path: Path, configuration: Path) -> None:
    """Hand a wireguard-go process its configuration. Raises :class:`LabError` when it does not take it."""
    deadline = time.monotonic() + _UAPI_TIMEOUT
    with socket.socket(socket.AF_UNIX) as control:
        while True:
            try:
                control.connect(str(path))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > deadline:
                    raise LabError(f"wireguard-go made no {path}") from None
                time.sleep(0.005)
        control.sendall(configuration.read_bytes())
        control.settimeout(_UAPI_TIMEOUT)
        answer = control.recv(4096).decode()
    if "errno=0" not in answer:
        raise LabError(f"wireguard-go refused its configuration: {answer.strip()}")


class Nebula(Packaged):
    """Nebula without a lighthouse: both hosts know the other's address."""

    name: ClassVar[str] = "nebula"
    title: ClassVar[str] = "Nebula, AES-256-GCM"
    setting: ClassVar[str] = "cipher aes, static_host_map, firewall open"
    inner_mtu: ClassVar[int] = 1440  # 1500 - IPv4 20 - UDP 8 - header 16 - tag 16
    package: ClassVar[str] = "nebula"
    programs: ClassVar[tuple[str, ...]] = ("nebula", "nebula-cert")
    version_arguments: ClassVar[tuple[str, ...]] = ("-version",)

    def prepare(self, site: Site) -> None:
        """Make an authority, two certificates and both configurations."""
        directory = site.directory
        certify = self.path("nebula-cert")
        authority = ["-ca-crt", f"{directory}/ca.crt", "-ca-key", f"{directory}/ca.key"]
        _run(certify, "ca", "-name", "bench", "-out-crt", f"{directory}/ca.crt", "-out-key", f"{directory}/ca.key")
        site.interfaces = dict.fromkeys(SIDES, "nebula")
        for side in SIDES:
            peer = other(side)
            files = ["-out-crt", f"{directory}/{side}.crt", "-out-key", f"{directory}/{side}.key"]
            _run(certify, "sign", *authority, "-name", side, "-ip", f"{INNER[side]}/24", *files)
            everything = [{"port": "any", "proto": "any", "host": "any"}]
            configuration = {
                "pki": {
                    "ca": f"{directory}/ca.crt",
                    "cert": f"{directory}/{side}.crt",
                    "key": f"{directory}/{side}.key",
                },
                "static_host_map": {str(INNER[peer]): [f"{OUTER[peer]}:{PORT}"]},
                "lighthouse": {"am_lighthouse": False, "hosts": []},
                "listen": {"host": "0.0.0.0", "port": PORT},  # noqa: S104  # inside a namespace of its own
                "cipher": "aes",
                "tun": {"dev": "nebula", "mtu": self.inner_mtu},
                "logging": {"level": "warning"},
                "firewall": {"outbound": everything, "inbound": everything},
            }
            (directory / f"{side}.yml").write_text(json.dumps(configuration))  # JSON is YAML too

    def start(self, site: Site) -> None:
        """Start both; they make their interfaces themselves."""
        for side in SIDES:
            command = [self.path(), "-config", f"{site.directory}/{side}.yml"]
            site.endpoints[side] = site.hosts[side].start(command, label="nebula")


class Tinc(Packaged):
    """tinc 1.0 in router mode."""

    name: ClassVar[str] = "tinc"
    title: ClassVar[str] = "tinc 1.0, AES-256-CBC"
    setting: ClassVar[str] = "Cipher aes-256-cbc, Digest sha256 (it has no AEAD), Mode router"
    inner_mtu: ClassVar[int] = (
        1437  # 1500 - IPv4 20 - UDP 8 - HMAC 4 - number 4 - Ethernet 14, padded to 16 at least by 1
    )
    package: ClassVar[str] = "tinc"
    programs: ClassVar[tuple[str, ...]] = ("tincd",)

    def prepare(self, site: Site) -> None:
        """Make two RSA keys and both configurations."""
        site.interfaces = dict.fromkeys(SIDES, "tinc")
        public = {}
        for side in SIDES:
            key = generate_private_key(65537, 2048)
            private = key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
            )
            public[side] = (
                key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1).decode()
            )
            (site.directory / side / "hosts").mkdir(parents=True)
            write_secret(site.directory / side / "rsa_key.priv", private)
        for side in SIDES:
            directory = site.directory / side
            (directory / "tinc.conf").write_text(
                f"Name = {side}\nInterface = tinc\nMode = router\nAddressFamily = ipv4\nConnectTo = {other(side)}\n"
            )
            for name in SIDES:
                (directory / "hosts" / name).write_text(
                    f"Address = {OUTER[name]}\nPort = {PORT}\nSubnet = {INNER[name]}/32\n"
                    f"Cipher = aes-256-cbc\nDigest = sha256\n{public[name]}"
                )

    def start(self, site: Site) -> None:
        """Start both and give them their addresses."""
        for side in SIDES:
            directory = site.directory / side
            command = [self.path(), "-D", "-c", str(directory), f"--pidfile={directory}/pid"]
            site.endpoints[side] = site.hosts[side].start(command, label="tinc")
        for side in SIDES:
            site.configure(side, self.inner_mtu)


class EasyTier(Contender):
    """EasyTier from its Python package, in an environment of its own that ``.ci/setup bench`` makes."""

    name: ClassVar[str] = "easytier"
    title: ClassVar[str] = "EasyTier, UDP, AES-256-GCM"
    setting: ClassVar[str] = "encryption_algorithm aes-256-gcm, listener udp"
    inner_mtu: ClassVar[int] = 1440  # it takes 20 off: 1500 - IPv4 20 - UDP 8 - headers 24 - nonce 12 - tag 16 = 1420
    environment: ClassVar[Path] = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grepunch-pptp" / "easytier"
    )

    def missing(self) -> str:
        """Its environment, if that is not there."""
        return "" if self._python().exists() else f"no {self.environment}: run .ci/setup bench"

    def version(self) -> str:
        """The core's version."""
        command = [str(self._python()), _script("easytier_node.py"), "--version"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        return done.stdout.strip() or "unknown"

    def prepare(self, site: Site) -> None:
        """Write both configurations."""
        site.interfaces = dict.fromkeys(SIDES, "easytier")
        secret = base64.b64encode(os.urandom(24)).decode()
        for side in SIDES:
            lines = [
                f'instance_name = "{side}"',
                f'hostname = "{side}"',
                f'ipv4 = "{INNER[side]}/24"',
                f'listeners = ["udp://{OUTER[side]}:{PORT}"]',
                "[network_identity]",
                'network_name = "bench"',
                f'network_secret = "{secret}"',
                *(["[[peer]]", f'uri = "udp://{OUTER["left"]}:{PORT}"'] if side == "right" else []),
                "[flags]",
                'dev_name = "easytier"',
                'default_protocol = "udp"',
                "enable_encryption = true",
                'encryption_algorithm = "aes-256-gcm"',
                "enable_ipv6 = false",
                f"mtu = {self.inner_mtu}",
            ]
            write_secret(site.directory / f"{side}.toml", "\n".join(lines) + "\n")

    def start(self, site: Site) -> None:
        """Start both; they make their interfaces themselves."""
        for side in SIDES:
            command = [str(self._python()), _script("easytier_node.py"), f"{site.directory}/{side}.toml"]
            site.endpoints[side] = site.hosts[side].start(command, label="easytier")

    def _python(self) -> Path:
        return self.environment / "bin" / "python"


def _script(name: str) -> str:
    return str(Path(__file__).with_name(name))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(command)}: {done.stderr or done.stdout}")
