"""Reading: one version, verified, whatever happens to the servers that hold it."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from filegrid.client import reader
from filegrid.client.content import Content
from filegrid.errors import ContentCollected, IntegrityError, Unavailable
from tests.grid.case import CHUNK, GridCase, content


class Reading(GridCase):
    settings = {"trash_seconds": 0, "collection_grace_seconds": 1}

    def open(self, path: str) -> Content:
        return self.run_(self.client.open_read(path))

    def pread(self, opened: Content, offset: int, length: int) -> bytes:
        return self.run_(opened.pread(offset, length))

    def test_random_reads(self) -> None:
        """Any range of a file comes back as it was written."""
        data = content(3 * CHUNK + 1234)
        self.put("/f", data)
        opened = self.open("/f")
        self.patch(reader, "SEGMENT_BYTES", 2 * 65536)

        @given(st.integers(0, len(data) + 10), st.integers(0, 2 * CHUNK))
        @settings(max_examples=50, deadline=None, database=None)
        def check(offset: int, length: int) -> None:
            self.assertEqual(self.pread(opened, offset, length), data[offset : offset + length])

        check()

    def test_negative(self) -> None:
        """A negative offset or length is a mistake of the program."""
        self.put("/f", b"x")
        for offset, length in ((-1, 1), (0, -1)):
            with self.assertRaises(ValueError):
                self.pread(self.open("/f"), offset, length)

    def test_one_version(self) -> None:
        """An open file stays the version that it was, also when its path is another file (S19)."""
        old = content(CHUNK)
        self.put("/f", old)
        opened = self.open("/f")
        self.put("/f", b"new", overwrite=True)
        self.assertEqual(self.pread(opened, 0, CHUNK), old)

    def test_collected(self) -> None:
        """When the version has been removed for good, reading it says so by name (S19)."""
        self.put("/f", content(CHUNK))
        opened = self.open("/f")
        self.run_(self.client.remove("/f"))
        self.grid.advance(10)
        with self.assertRaises(ContentCollected):
            self.pread(opened, 0, 10)

    def test_every_server_once(self) -> None:
        """A damaged replica is complained of, and never read twice by one reader."""
        data = content(CHUNK)
        self.put("/f", data)
        holders = self.holders("/f")
        for server in holders[:2]:
            self.flip("/f", server, offset=200_000)
        for _ in range(5):
            self.assertEqual(self.pread(self.open("/f"), 0, CHUNK), data)
        self.grid.advance(1)
        quarantined = [
            machine.name
            for machine in self.grid.chunk_servers
            if machine.disk.names("/data/quarantine")
        ]
        self.assertTrue(quarantined)
        self.assertNotIn(holders[2], quarantined)

    def test_damage_elsewhere(self) -> None:
        """A reader is not held up by damage in blocks that it does not touch."""
        data = content(CHUNK)
        self.put("/f", data)
        for server in self.holders("/f"):
            self.flip("/f", server, offset=200_000)
        self.assertEqual(self.pread(self.open("/f"), 0, 1000), data[:1000])

    def test_all_corrupt(self) -> None:
        """Where every replica is damaged the error comes at once: there is nothing to wait for."""
        self.put("/f", content(CHUNK))
        for server in self.holders("/f"):
            self.flip("/f", server)
        begun = self.grid.clock.seconds()
        with self.assertRaises(IntegrityError) as raised:
            self.pread(self.open("/f"), 0, 10)
        self.assertLess(self.grid.clock.seconds() - begun, 5)
        self.assertTrue(str(raised.exception).startswith("/f: no good replica of chunk 0"))

    def test_all_away(self) -> None:
        """Where no replica can be reached, the error names the servers and why, in time."""
        self.put("/f", content(CHUNK))
        holders = self.holders("/f")
        for server in holders:
            self.grid.machine(server).kill()
        client = self.new_client("client-2", timeout_seconds=5)
        begun = self.grid.clock.seconds()
        with self.assertRaises(Unavailable) as raised:
            self.run_(client.read_bytes("/f"))
        self.assertLess(self.grid.clock.seconds() - begun, 12)
        self.assertIn("chunk 0", str(raised.exception))
        self.run_(client.close())

    def test_one_corrupt_others_away(self) -> None:
        """Nothing is called lost while servers that cannot be reached have it, as is said."""
        self.put("/f", content(CHUNK))
        corrupt, *others = self.holders("/f")
        self.flip("/f", corrupt)
        for server in others:
            self.grid.machine(server).kill()
        client = self.new_client("client-2", timeout_seconds=1)
        with self.assertRaises(Unavailable) as raised:
            self.run_(client.read_bytes("/f"))
        for server in others:
            self.assertIn(server, str(raised.exception))
        self.run_(client.close())

    def test_away_for_a_while(self) -> None:
        """Where the servers come back in time, the caller sees a pause."""
        data = content(CHUNK)
        self.put("/f", data)
        holders = [self.grid.machine(name) for name in self.holders("/f")]
        for machine in holders:
            machine.kill()
        reading = self.begin(self.client.read_bytes("/f"))
        self.grid.advance(8)
        self.assertNoResult(reading)
        for machine in holders:
            self.grid.wait(machine.start())
        self.assertEqual(self.grid.wait(reading), data)

    def test_stalled(self) -> None:
        """A replica that falls silent in the middle is left for the next one, where it stopped."""
        data = content(12 * CHUNK)
        self.put("/f", data)
        reading = self.begin(self.client.read_bytes("/f"))
        self.grid.advance(0.003)
        self.assertNoResult(reading)
        for machine in self.grid.chunk_servers[:2]:
            self.grid.network.cut(machine.name, "client-1", both_ways=False)
        begun = self.grid.clock.seconds()
        self.assertEqual(self.grid.wait(reading), data)
        self.assertLess(self.grid.clock.seconds() - begun, 15)

    def test_slow_consumer(self) -> None:
        """A reader whose consumer rests longer than any timeout goes on where it was."""
        data = content(60 * CHUNK)
        self.put("/f", data)
        chunks = self.open("/f").reader()
        got = []
        while piece := self.run_(chunks.next()):
            got.append(bytes(piece))
            if len(got) % 20 == 0:
                self.grid.advance(40)
        self.assertEqual(b"".join(got), data)

    def test_given_up(self) -> None:
        """A reader that is closed in the middle leaves nothing behind that goes on."""
        self.put("/f", content(40 * CHUNK))
        chunks = self.open("/f").reader()
        self.run_(chunks.next())
        chunks.close()
        self.grid.advance(1)
