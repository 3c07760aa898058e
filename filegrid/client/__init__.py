"""The client library: :class:`GridClient` for the Twisted reactor, and the blocking face."""

from filegrid.client.grid import GridClient
from filegrid.client.stat import Stat

__all__ = ["GridClient", "Stat"]
