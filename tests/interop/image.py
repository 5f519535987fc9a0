"""The guest's kernel and file system, made once from Debian packages: ``python -m tests.interop.image``.

Everything the guest runs from is one initramfs: a static busybox, pppd, pptpd, pptp-linux and tcpdump with their
libraries, and the kernel's modules for PPP, MPPE and virtio. Nothing is installed on this machine.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import json
import lzma
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.interop import debian
from tests.interop.debian import Package

PROGRAMS = ("busybox-static", "ppp", "pptpd", "pptp-linux", "tcpdump")
EXECUTABLES = ("sbin/pppd", "sbin/pptpd", "sbin/pptpctrl", "sbin/pptp", "bin/tcpdump")  # below /usr
MODULES = ("virtio_pci", "virtio_net", "veth", "ppp_async", "ppp_synctty", "ppp_mppe")
_HERE = Path(__file__).parent
_RECIPE = (_HERE / "image.py", _HERE / "debian.py", _HERE / "guest_init.sh", _HERE / "guest_run.sh")
_DIRECTORIES = (
    *("bin", "dev", "etc/ppp", "lib/modules", "lib64", "proc", "run", "srv/cgi-bin", "sys", "tmp"),
    *("usr/bin", "usr/sbin", "var/log", "var/run"),
)
_TRAILER = "TRAILER!!!"  # the name that ends a cpio archive


@dataclass(frozen=True, slots=True)
class Image:
    """What QEMU boots, and the packages it was made from."""

    kernel: Path
    initramfs: Path
    packages: tuple[Package, ...]


def cache_directory() -> Path:
    """Where packages and the image are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "grepunch-pptp" / "interop"


def provide(cache: Path | None = None) -> Image:
    """The image, made now if it is not there or its recipe has changed. Raises :class:`.debian.PackagesUnavailable`."""
    cache = cache or cache_directory()
    cache.mkdir(parents=True, exist_ok=True)
    recipe = hashlib.sha256(b"".join(path.read_bytes() for path in _RECIPE)).hexdigest()[:16]
    made = cache / recipe
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (made / "manifest.json").exists():
            _make(cache, made)
    manifest = json.loads((made / "manifest.json").read_text())
    return Image(made / "kernel", made / "initramfs.gz", tuple(Package(**entry) for entry in manifest["packages"]))


def _make(cache: Path, made: Path) -> None:
    if platform.machine() != "x86_64":
        raise debian.PackagesUnavailable(f"the guest's programs are for amd64, this machine is {platform.machine()}")
    downloads = cache / "packages"
    try:
        kernel_name, packages = _fetch(downloads)
    except debian.PackagesUnavailable:  # lists that were too old have been renewed since: what they name is there
        kernel_name, packages = _fetch(downloads)
    with tempfile.TemporaryDirectory(dir=cache) as work:
        kernel_tree, program_tree = Path(work, "kernel"), Path(work, "programs")
        for package in packages:
            debian.unpack(downloads / package.file, kernel_tree if package.name == kernel_name else program_tree)
        building = Path(work, "made")
        building.mkdir()
        (kernel_image,) = (kernel_tree / "boot").glob("vmlinuz-*")
        shutil.copyfile(kernel_image, building / "kernel")
        entries = {**_frame(), **_programs(program_tree), **_modules(kernel_tree)}
        with gzip.open(building / "initramfs.gz", "wb", compresslevel=1) as file:
            file.write(cpio(entries))
        fields = [{name: getattr(package, name) for name in Package.__slots__} for package in packages]
        (building / "manifest.json").write_text(json.dumps({"packages": fields}, indent=1))
        shutil.rmtree(made, ignore_errors=True)
        building.rename(made)


def _fetch(downloads: Path) -> tuple[str, list[Package]]:
    """The name of the kernel's package, and all packages, which are then in ``downloads``."""
    kernel_name = debian.kernel()
    packages = debian.look_up([kernel_name, *debian.libraries(PROGRAMS)])
    size = sum(package.size for package in packages) >> 20
    print(f"interop: making a guest from {size} MB of Debian packages", file=sys.stderr)
    debian.fetch(packages, downloads)
    return kernel_name, packages


# -- what is in it -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of an archive: its mode with the type's bits, and its content (the target of a symbolic link)."""

    mode: int
    content: bytes = b""


def _file(content: bytes, permissions: int = 0o644) -> Entry:
    return Entry(stat.S_IFREG | permissions, content)


def _frame() -> dict[str, Entry]:
    """Directories, our own two scripts, and the few files that the programs look for."""
    entries = {name: Entry(stat.S_IFDIR | 0o755) for path in _DIRECTORIES for name in _with_parents(path)}
    entries["init"] = _file((_HERE / "guest_init.sh").read_bytes(), 0o755)
    entries["srv/cgi-bin/run"] = _file((_HERE / "guest_run.sh").read_bytes(), 0o755)
    entries["etc/passwd"] = _file(b"root:x:0:0:root:/:/bin/sh\n")
    entries["etc/group"] = _file(b"root:x:0:\n")
    entries["etc/ppp/options"] = _file(b"")
    return entries


def _with_parents(path: str) -> Iterator[str]:
    parts = path.split("/")
    for length in range(1, len(parts) + 1):
        yield "/".join(parts[:length])


def _programs(tree: Path) -> dict[str, Entry]:
    """busybox, and the others with the libraries that their own loader finds for them."""
    (busybox,) = (path for path in (tree / "bin/busybox", tree / "usr/bin/busybox") if path.exists())
    entries = {"bin/busybox": _file(busybox.read_bytes(), 0o755), "bin/sh": Entry(stat.S_IFLNK | 0o777, b"busybox")}
    loader = next(path for path in tree.rglob("ld-linux-x86-64.so.2") if path.is_file() and "lib64" not in path.parts)
    folders = sorted({str(path.parent) for path in tree.rglob("*.so*")})
    entries["lib64/ld-linux-x86-64.so.2"] = _file(loader.read_bytes(), 0o755)
    for executable in EXECUTABLES:
        path = tree / "usr" / executable
        entries[f"usr/{executable}"] = _file(path.read_bytes(), 0o755)
        listed = subprocess.run(
            [str(loader), "--library-path", ":".join(folders), "--list", str(path)],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        for line in listed.stdout.splitlines():
            name, arrow, found = line.partition(" => ")
            if arrow and str(tree) in found:
                entries[f"lib/{name.strip()}"] = _file(Path(found.rpartition(" (")[0]).read_bytes(), 0o755)
    return entries


def _modules(tree: Path) -> dict[str, Entry]:
    """The kernel's modules, unpacked and numbered in the order in which they are to be loaded."""
    (folder,) = next(path for path in (tree / "lib/modules", tree / "usr/lib/modules") if path.is_dir()).iterdir()
    # Packages have no modules.dep (depmod makes it when they are installed), but each module says what it needs.
    available = {module_name(path): path for path in folder.rglob("*.ko*")}
    contents: dict[str, bytes] = {}

    def needs(name: str) -> list[str]:
        if name not in contents:
            data = available[name].read_bytes()
            contents[name] = lzma.decompress(data) if available[name].suffix == ".xz" else data
        return [needed for needed in depends_of(contents[name]) if needed in available]

    wanted = [name for name in MODULES if name in available]
    return {f"lib/modules/{n:02}-{name}.ko": _file(contents[name]) for n, name in enumerate(in_order(wanted, needs))}


def module_name(path: Path) -> str:
    """The name under which other modules depend on a file's: ``virtio-rng.ko.xz`` is ``virtio_rng``."""
    return path.name.partition(".ko")[0].replace("-", "_")


def depends_of(module: bytes) -> list[str]:
    """What a module's own ``.modinfo`` says that it depends on."""
    _, found, rest = module.partition(b"\0depends=")
    names = rest.partition(b"\0")[0].decode() if found else ""
    return [name.replace("-", "_") for name in names.split(",") if name]


def in_order(wanted: Iterable[str], needs: Callable[[str], Iterable[str]]) -> list[str]:
    """``wanted`` and what they need, each after everything that it needs itself."""
    ordered: dict[str, None] = {}

    def add(name: str) -> None:
        if name not in ordered:
            for needed in needs(name):
                add(needed)
            ordered[name] = None

    for name in wanted:
        add(name)
    return list(ordered)


def cpio(entries: Mapping[str, Entry]) -> bytes:
    """An archive in the "newc" format that the kernel unpacks (Documentation/driver-api/early-userspace)."""
    archive = bytearray()
    for number, (name, entry) in enumerate([*entries.items(), (_TRAILER, Entry(0))], 1):
        encoded = name.encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device and special device twice, length of the name, checksum
        fields = (number, entry.mode, 0, 0, 1, 0, len(entry.content), 0, 0, 0, 0, len(encoded), 0)
        archive += b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        archive += bytes(-len(archive) % 4)
        archive += entry.content
        archive += bytes(-len(archive) % 4)
    return bytes(archive)


if __name__ == "__main__":
    try:
        provide()
    except debian.PackagesUnavailable as error:
        sys.exit(f"interop: {error}")
