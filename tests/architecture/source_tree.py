"""The project's own files, as the architecture tests look at them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("pptp", "grepunch")


@dataclass(frozen=True, slots=True)
class Import:
    """One import: who, what (a full module name), on which line, and whether it waits inside a function."""

    importer: str
    imported: str
    line: int
    lazy: bool
    for_types: bool  # below `if TYPE_CHECKING`

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def python_files(*folders: str) -> list[Path]:
    """The Python files of these folders."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def text_files() -> list[Path]:
    """Everything people wrote: sources, tests, configurations, and the files at the top."""
    folders = [path for name in (*PACKAGES, "tests", "configs", ".ci") for path in (ROOT / name).rglob("*")]
    top = [path for path in ROOT.iterdir() if path.name not in (".git", "LICENSE")]
    return sorted(path for path in (*folders, *top) if path.is_file() and path.suffix not in (".pyc", ".pcap"))


def module_name(path: Path) -> str:
    """``pptp/wire/gre.py`` is ``pptp.wire.gre``."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> Iterator[Import]:
    """Every import of a file; ``from package import module`` counts as importing the module."""
    importer = module_name(path)
    pending: list[tuple[ast.AST, bool, bool]] = [(ast.parse(path.read_text()), False, False)]
    while pending:
        node, lazy, for_types = pending.pop()
        match node:
            case ast.Import(names=names):
                for name in names:
                    yield Import(importer, name.name, node.lineno, lazy, for_types)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                for name in names:
                    yield Import(importer, _module(module, name.name), node.lineno, lazy, for_types)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                pending += [(child, lazy, True) for child in node.body]
                pending += [(child, lazy, for_types) for child in node.orelse]
                continue
        inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        pending += [(child, inside, for_types) for child in ast.iter_child_nodes(node)]


def _module(package: str, name: str) -> str:
    folder = ROOT.joinpath(*package.split("."))
    is_module = (folder / f"{name}.py").exists() or (folder / name).is_dir()
    return f"{package}.{name}" if package.split(".")[0] in PACKAGES and is_module else package
