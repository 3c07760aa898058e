"""Which folder may import which: the arrows of the house point down."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import filegrid

ROOT = Path(filegrid.__file__).parent

FORBIDDEN = {
    "errors.py": ("twisted", "filegrid.net", "filegrid.head", "filegrid.chunk", "filegrid.client"),
    "model.py": ("twisted", "filegrid.net", "filegrid.head", "filegrid.chunk", "filegrid.client"),
    "protocol": ("twisted", "filegrid.net", "filegrid.head", "filegrid.chunk", "filegrid.client"),
    "election": ("twisted", "filegrid.net", "filegrid.head", "filegrid.chunk", "filegrid.client"),
    "net": ("filegrid.head", "filegrid.chunk", "filegrid.client", "filegrid.cli"),
    "head": (
        "filegrid.chunk",
        "filegrid.health",
        "filegrid.client",
        "filegrid.cli",
        "filegrid.simulation",
    ),
    "chunk": (
        "filegrid.head",
        "filegrid.health",
        "filegrid.client",
        "filegrid.cli",
        "filegrid.simulation",
    ),
    "health": (
        "filegrid.head",
        "filegrid.chunk",
        "filegrid.client",
        "filegrid.cli",
        "filegrid.simulation",
    ),
    "client": (
        "filegrid.head",
        "filegrid.chunk",
        "filegrid.health",
        "filegrid.cli",
        "filegrid.simulation",
    ),
    "simulation": ("filegrid.cli",),
}

PURE = (
    "head/placement.py",
    "head/liveness.py",
    "head/redundancy.py",
    "head/changes.py",
    "head/view.py",
    "chunk/format.py",
    "chunk/inventory.py",
    "health/judgement.py",
    "health/deliberation.py",
    "hashing.py",
)
"""Beside the thin services in their folders, these never see a reactor."""


def imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


class Arrows(SynchronousTestCase):
    def check(self, file: Path, forbidden: tuple[str, ...]) -> None:
        for name in imports(file):
            for prefix in forbidden:
                if name == prefix or name.startswith(prefix + "."):
                    self.fail(f"{file.relative_to(ROOT)} imports {name}")

    def test_folders(self) -> None:
        """No file imports from a folder that stands above its own."""
        for place, forbidden in FORBIDDEN.items():
            path = ROOT / place
            for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
                self.check(file, forbidden)

    def test_pure_parts(self) -> None:
        """The pure parts of the services do not know Twisted's reactor."""
        for place in PURE:
            self.check(ROOT / place, ("twisted",))

    def test_no_global_reactor(self) -> None:
        """Nothing but the rim takes the global reactor, and that inside a function."""
        for file in ROOT.rglob("*.py"):
            for node in ast.parse(file.read_text()).body:
                if isinstance(node, ast.ImportFrom) and node.module == "twisted.internet":
                    names = [alias.name for alias in node.names]
                    self.assertNotIn("reactor", names, str(file))
