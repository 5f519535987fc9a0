"""One EasyTier node from its configuration, a TOML file; run by the Python that has the easytier-pyo3 package.

python easytier_node.py CONFIG.toml
python easytier_node.py --version
"""

from __future__ import annotations

import importlib
import signal
import sys
from pathlib import Path
from typing import Any


def main(arguments: list[str]) -> None:
    """Run the node until SIGTERM."""
    easytier: Any = importlib.import_module("easytier_pyo3")
    if arguments == ["--version"]:
        print(easytier.version())
        return
    node = easytier.Node(Path(arguments[0]).read_text())
    node.start()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    node.stop()


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    main(sys.argv[1:])
