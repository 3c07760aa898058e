"""The table of transitions, and the picture that is drawn from it."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import get_args

from twisted.trial.unittest import SynchronousTestCase

import filegrid
from filegrid.election.bully import Bully
from filegrid.election.diagram import BEGIN, END, section
from filegrid.election.events import Input
from filegrid.election.table import TABLE, State

HOUSE = Path(filegrid.__file__).parent


class TableTests(SynchronousTestCase):
    """Every state by every input."""

    def test_complete(self) -> None:
        """There is a row for each state and each input, and none besides."""
        every = {(state, kind) for state in State for kind in get_args(Input)}
        self.assertEqual(set(TABLE), every)

    def test_actions(self) -> None:
        """Each action is a method of the machine; where nothing is done nothing changes."""
        for row in TABLE.values():
            if row.action is None:
                self.assertEqual(row.leads_to, ())
            else:
                self.assertTrue(callable(getattr(Bully, f"_{row.action}")))

    def test_documented(self) -> None:
        """The documentation shows the table as it is; `python -m filegrid.election.diagram`."""
        text = (HOUSE.parent / "docs" / "election.md").read_text()
        drawn = text[text.index(BEGIN) : text.index(END) + len(END)]
        self.assertEqual(drawn, section())

    def test_pure(self) -> None:
        """The election knows neither Twisted nor the clock, the disk or chance of its own."""
        allowed = {"__future__", "collections", "dataclasses", "enum", "filegrid", "math", "typing"}
        for path in (HOUSE / "election").glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                    if node.module == "random":
                        self.assertEqual([a.name for a in node.names], ["Random"])
                        continue
                for name in names:
                    self.assertIn(name.partition(".")[0], allowed, path)
