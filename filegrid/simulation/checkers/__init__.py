"""The promises of a grid, each watched by an object of its own."""

from __future__ import annotations

from filegrid.simulation.checkers.acknowledged import Acknowledged
from filegrid.simulation.checkers.alike import Alike
from filegrid.simulation.checkers.bounded import Bounded
from filegrid.simulation.checkers.epochs import Epochs
from filegrid.simulation.checkers.kept import Kept
from filegrid.simulation.checkers.leaders import OneLeader
from filegrid.simulation.checkers.linearizable import Linearizable
from filegrid.simulation.checkers.prompt import Prompt
from filegrid.simulation.checkers.quiet import Quiet
from filegrid.simulation.checkers.redundant import Redundant
from filegrid.simulation.checkers.surplus import ReadBack
from filegrid.simulation.checkers.thrift import Thrift
from filegrid.simulation.checkers.voters import OneByOne

CHECKERS = (
    *(OneLeader, OneByOne, Epochs, Kept, ReadBack, Quiet, Acknowledged),
    *(Linearizable, Bounded, Alike, Redundant, Thrift, Prompt),
)
"""In the order in which they judge in the end; `Bounded` sends the clients away, and `Prompt` takes
a chunk server from the grid."""
