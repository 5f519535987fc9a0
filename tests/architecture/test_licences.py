"""What runs in our process may be combined with GPL-2.0-only code: no package that is Apache-2.0 and nothing else.

The program is GPL-2.0-only because scapy is, and the Apache License 2.0 is not compatible with version 2 of the GPL.
`cryptography` itself is "Apache-2.0 OR BSD-3-Clause" and is taken under the latter. Its wheel bundles OpenSSL, which
is Apache-2.0: pip puts the two together on the user's machine, and we ship only our own wheel; the README says so.
"""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import Distribution, distribution

from packaging.requirements import Requirement

from tests.architecture.source_tree import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()


def normal(name: str) -> str:
    """The name of a package as the lock writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(requirements: list[str]) -> dict[str, Distribution]:
    """Everything these requirements install here, extras left out."""
    found: dict[str, Distribution] = {}
    pending = [Requirement(text) for text in requirements]
    while pending:
        requirement = pending.pop()
        name = normal(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found[name] = distribution(name)
        pending += [Requirement(text) for text in found[name].requires or []]
    return found


def licence(package: Distribution) -> str:
    """Everything a package says of its licence."""
    metadata = package.metadata
    classifiers = [text for text in metadata.get_all("Classifier", []) if text.startswith("License ::")]
    said = [*metadata.get_all("License-Expression", []), *classifiers] or metadata.get_all("License", [])
    return " | ".join(said)


def is_apache_only(text: str) -> bool:
    """Whether Apache is the only licence named."""
    others = re.sub(r"Apache[- \w.,()]*?(?=\||\bOR\b|\band\b|$)", "", text, flags=re.IGNORECASE)
    return "apache" in text.lower() and not re.search(r"BSD|MIT|GPL|PSF|ISC|MPL", others)


RUN_TIME = closure(PROJECT["dependencies"])


def test_no_package_is_apache_only() -> None:
    said = {name: licence(package) for name, package in RUN_TIME.items()}
    assert [f"{name}: {text}" for name, text in said.items() if is_apache_only(text)] == []
    assert [name for name, text in said.items() if not text] == []


def test_the_judgement_itself() -> None:
    assert is_apache_only("Apache-2.0")
    assert is_apache_only("License :: OSI Approved :: Apache Software License")
    assert not is_apache_only("Apache-2.0 OR BSD-3-Clause")
    assert not is_apache_only("dual license GPLv2+ and Apache v2")
    assert not is_apache_only("MIT")


def test_the_project_says_its_licence() -> None:
    assert PROJECT["license"] == "GPL-2.0-only"
    assert "GNU GENERAL PUBLIC LICENSE\n                       Version 2, June 1991" in (ROOT / "LICENSE").read_text()


def test_the_lock_pins_and_hashes_everything_that_runs_and_nothing_else_runs() -> None:
    pinned = dict(re.findall(r"^([a-z0-9.-]+)==(\S+) \\$", LOCK, re.MULTILINE))
    everything = closure(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"])
    assert {name: package.version for name, package in everything.items() if name in pinned} == {
        name: version for name, version in pinned.items() if name in everything
    }
    assert set(everything) - set(pinned) == set()
    entries = re.split(r"^(?=[a-z0-9.-]+==)", LOCK, flags=re.MULTILINE)[1:]
    assert all("--hash=sha256:" in entry for entry in entries)


def test_the_lock_names_no_place() -> None:
    assert "://" not in LOCK
    assert not re.search(r"^\s*(--(extra-)?index|--find-links|--trusted-host|#)", LOCK, re.MULTILINE)
