"""Servers that answer heartbeats and do not serve: found, avoided, shown, and taken back."""

from __future__ import annotations

from filegrid.protocol.wire.head_pb2 import ServerStatus
from tests.grid.case import CHUNK, GridCase, content

BAD = "chunk-2"


class Gray(GridCase):
    chunk_servers = 6

    def shown(self, name: str = BAD) -> ServerStatus:
        return next(one for one in self.status().chunk_servers if one.name == name)

    def read_until_suspect(self, path: str, seconds: float = 60.0) -> float:
        begun = self.grid.clock.seconds()
        while self.shown().state != "suspect":
            if self.grid.clock.seconds() - begun > seconds:
                self.fail(f"still {self.shown().state} after {seconds} s")
            self.assertEqual(self.read(path), content(8 * CHUNK))
            self.grid.advance(1)
        return self.grid.clock.seconds() - begun

    def test_not_read_from(self) -> None:
        """A server that clients cannot reach is suspect soon, with the reason, and gets no new
        chunks; once it is well it is trusted again."""
        self.put("/f", content(8 * CHUNK))
        self.grid.network.cut("client-1", BAD)
        self.read_until_suspect("/f")
        self.assertIn("client-1 report", self.shown().reason)
        for number in range(12):
            self.put(f"/new{number}", b"x")
            self.assertNotIn(BAD, self.holders(f"/new{number}"))
        self.grid.network.mend("client-1", BAD)
        self.grid.advance(90)
        self.assertEqual((self.shown().state, self.shown().reason), ("live", ""))

    def test_slow(self) -> None:
        """A server that begins to send much later than others is found as well."""
        self.put("/f", content(8 * CHUNK))
        weather = self.grid.network.weather(BAD, "client-1")
        weather.latency_seconds = 2.0
        self.read_until_suspect("/f")
        self.assertIn("elsewhere", self.shown().reason)

    def test_peers(self) -> None:
        """A server that its peers in a pipeline cannot reach is found from what they say."""
        for one in self.grid.chunk_servers:
            if one.name != BAD:
                self.grid.network.cut(one.name, BAD)
        for number in range(40):
            self.put(f"/f{number}", content(CHUNK))
            self.grid.advance(1)
            if self.shown().state == "suspect":
                break
        self.assertEqual(self.shown().state, "suspect")
        self.until_healthy()

    def test_better_than_none(self) -> None:
        """Where there are too few others, a suspect gets new chunks all the same."""
        self.put("/f", content(8 * CHUNK))
        self.grid.network.cut("client-1", BAD)
        self.read_until_suspect("/f")
        self.grid.network.mend("client-1", BAD)
        self.put("/six", b"x", replication=6)
        self.assertIn(BAD, self.holders("/six"))

    def test_killed_server_is_not_suspect_when_it_returns(self) -> None:
        """A server that died and came back has nothing held against it."""
        self.put("/f", content(8 * CHUNK))
        machine = self.grid.machine(BAD)
        machine.kill()
        self.read("/f")
        self.grid.advance(2)
        self.read("/f")
        self.assertIn("last heard of", self.shown().reason)
        self.grid.wait(machine.start())
        self.grid.advance(3)
        self.assertEqual((self.shown().state, self.shown().reason), ("live", ""))
