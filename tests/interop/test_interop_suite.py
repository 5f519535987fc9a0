"""The interoperability suite's own parts: what it reads from apt, modules, logs and captures, and what it makes."""

from __future__ import annotations

import shutil
import struct
import subprocess
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest

from tests.interop.cells import Cell, Row
from tests.interop.debian import Package, depended_on, parse_uris
from tests.interop.foreign import addresses
from tests.interop.image import Entry, cpio, depends_of, in_order, module_name
from tests.interop.kinds import KINDS, Kind
from tests.interop.matrix import CELLS, as_fields, line
from tests.interop.wire import GreFrame, displaced, gre_frames

DEPENDS = """\
pptpd
 |Depends: libwrap0
  Depends: <tcpd>
  Depends: libc6
  PreDepends: libssl3
libwrap0
 |Depends: debconf
  Depends: <debconf-2.0>
    cdebconf
    debconf
  Depends: libnsl2
"""


def test_of_alternatives_the_first_is_taken_and_no_virtual_package() -> None:
    assert depended_on(DEPENDS) == ["libwrap0", "libc6", "libssl3", "debconf", "libnsl2"]


def test_an_index_entry_is_read_with_its_epoch() -> None:
    digest = "ab" * 32
    text = f"'http://mirror/pool/b_1%3a2-3_amd64.deb' busybox-static_1%3a1.35-4+b1_amd64.deb 928188 SHA256:{digest}\n"
    assert parse_uris(text) == [
        Package("busybox-static", "1:1.35-4+b1", "busybox-static_1%3a1.35-4+b1_amd64.deb", 928188, digest)
    ]


def test_a_module_tells_what_it_depends_on() -> None:
    assert depends_of(b"\x7fELF\0alias=ppp-compress-18\0depends=ppp_generic,lib-arc4\0retpoline=Y\0") == [
        "ppp_generic",
        "lib_arc4",
    ]
    assert depends_of(b"\x7fELF\0depends=\0retpoline=Y\0") == []
    assert module_name(Path("virtio-rng.ko.xz")) == module_name(Path("virtio_rng.ko")) == "virtio_rng"


def test_modules_come_after_what_they_need() -> None:
    needs = {"mppe": ["generic", "arc4"], "generic": ["slhc"], "async": ["generic"]}
    assert in_order(["async", "mppe"], lambda name: needs.get(name, [])) == ["slhc", "generic", "async", "arc4", "mppe"]


def test_an_archive_holds_what_was_put_in() -> None:
    archive = cpio({"d": Entry(0o040755), "d/file": Entry(0o100644, b"text"), "link": Entry(0o120777, b"d/file")})
    offset, found = 0, {}
    while True:
        assert archive[offset : offset + 6] == b"070701"
        fields = [int(archive[offset + 6 + 8 * n : offset + 14 + 8 * n], 16) for n in range(13)]
        mode, size, name_length = fields[1], fields[6], fields[11]
        name = archive[offset + 110 : offset + 110 + name_length - 1].decode()
        content = (offset + 110 + name_length + 3) & ~3
        if name == "TRAILER!!!":
            break
        found[name] = (mode, archive[content : content + size])
        offset = (content + size + 3) & ~3
    assert found == {"d": (0o040755, b""), "d/file": (0o100644, b"text"), "link": (0o120777, b"d/file")}


@pytest.mark.parametrize("script", ["guest_init.sh", "guest_run.sh"])
def test_the_guest_s_scripts_parse(script: str) -> None:
    shell = shutil.which("dash") or "sh"
    subprocess.run([shell, "-n", str(Path(__file__).with_name(script))], check=True)


LOG = """\
using channel 1
Using interface ppp0
local  IP address 10.0.0.1
remote IP address 10.0.0.2
local  LL address fe80::1
remote LL address fe80::2
Using interface ppp1
sent [IPCP ConfReq id=0x1 <addr 10.77.0.1>]
local  LL address fe80::3
remote LL address fe80::4
"""


def test_the_last_link_of_a_log_is_read_once_it_has_both_families() -> None:
    assert addresses("") is None
    assert addresses(LOG) is None
    found = addresses(LOG + "local  IP address 10.0.0.3\nremote IP address 10.0.0.4\n")
    assert found is not None
    assert (found.here, found.there, found.interface) == (IPv4Address("10.0.0.3"), IPv4Address("10.0.0.4"), "ppp1")
    assert (found.here_ipv6, found.there_ipv6) == (IPv6Address("fe80::3"), IPv6Address("fe80::4"))


def test_a_link_of_another_kind_than_the_cell_s_is_told() -> None:
    log = "rcvd [LCP ConfReq id=0x1 <mru 1400> <auth chap MS-v2>]\nMPPE 128-bit stateless compression enabled\n"
    assert Kind("mschapv2", 128).deviations(log) == []
    assert Kind("mschapv2", 128, stateful=True).deviations(log) == [
        "pppd says ['128-bit stateless compression enabled']"
    ]
    assert len(Kind("pap").deviations(log)) == 2
    assert Kind("mschapv2", 40).deviations("<auth chap MS-v2>") == ["pppd says nothing of MPPE"]


def test_profiles_allow_what_the_cell_is_about_and_no_more() -> None:
    assert Kind("pap").profile_sections() == '[legacy]\nallow = ["pap", "cleartext"]'
    assert Kind("mschapv2", 128, stateful=True).profile_sections() == (
        '[legacy]\nallow = ["mschapv2", "mppe128", "stateful"]\nmppe_mode = "stateful"'
    )


def test_pppd_proves_itself_in_one_way_alone() -> None:
    assert Kind("chap").pppd_client_options() == [
        "refuse-eap", "refuse-pap", "refuse-mschap", "refuse-mschap-v2", "nomppe",
    ]  # fmt: skip
    assert Kind("mschapv2", 40).pppd_server_options() == ["require-mschap-v2", "require-mppe-40"]


def frame(sequence: int, when: float) -> GreFrame:
    return GreFrame(when, "192.0.2.1", 1, sequence, b"")


def test_a_frame_is_late_by_the_time_since_it_was_first_overtaken() -> None:
    frames = [frame(1, 0.0), frame(4, 0.1), frame(3, 0.2), frame(5, 0.3), frame(2, 0.6), frame(6, 0.7)]
    assert displaced(frames) == {3: pytest.approx(0.1), 2: pytest.approx(0.5)}
    assert displaced([frame(1, 0.0), frame(2, 9.0)]) == {}


def test_frames_are_found_in_gre_whatever_is_compressed_of_their_headers() -> None:
    def packet(payload: bytes, acknowledgment: bool = False) -> bytes:
        flags = 0x3081 if acknowledgment else 0x3001
        gre = struct.pack("!HHHHI", flags, 0x880B, len(payload), 7, 9) + (bytes(4) if acknowledgment else b"")
        return bytes([0x45]) + bytes(8) + bytes([47]) + bytes(2) + bytes([192, 0, 2, 1]) + bytes(4) + gre + payload

    acknowledgment_only = (
        bytes([0x45]) + bytes(8) + bytes([47]) + bytes(10) + struct.pack("!HHHHI", 0x2081, 0x880B, 0, 7, 3)
    )
    packets = [packet(b"\xff\x03\xc0\x21\x01"), packet(b"\x00\xfd\x90", True), packet(b"\xfd\x90"), acknowledgment_only]
    found = list(gre_frames((float(n), data) for n, data in enumerate(packets)))
    assert [f.protocol for f in found] == [0xC021, 0x00FD, 0x00FD]
    assert {(f.source, f.call_id, f.sequence) for f in found} == {("192.0.2.1", 7, 9)}


def test_every_kind_is_called_in_both_roles_and_every_cell_survives_its_way_into_the_sandbox() -> None:
    links = {(cell.role, cell.kind) for cell in CELLS if not cell.disorder and not cell.calls}
    assert {(role, kind) for role in ("serve", "dial") for kind in KINDS} <= links
    assert {cell.disorder for cell in CELLS if cell.kind.strength} == {0, 1, 2, 3}
    assert {cell.disorder for cell in CELLS if not cell.kind.strength} == {0, 1, 2, 3}
    assert len(set(map(str, CELLS))) == len(CELLS)
    for cell in CELLS:
        fields = as_fields(cell)
        assert Cell(**{**fields, "kind": Kind(**fields["kind"])}) == cell


def test_a_failed_row_says_so_in_its_line() -> None:
    row = Row("pppd", "serve", "pap", "none", "link", "auth_failed", False, 1.0, ["a"], "why")
    assert "FAILED auth_failed" in line(row)
    assert row.as_json()["detail"] == "why"
    assert "detail" not in Row("pppd", "serve", "pap", "none", "link", "up", True, 1.0).as_json()
