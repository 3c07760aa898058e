"""What fsck finds."""

from __future__ import annotations

from filegrid.chunk.transfers import MOST_INSPECTED
from filegrid.client.check import INSPECTED_TOGETHER, Checker, Finding, Trouble
from filegrid.errors import InvalidRequest
from filegrid.model import Address
from filegrid.protocol.wire import chunk_pb2
from tests.grid.case import CHUNK, GridCase, content


class Checks(GridCase):
    def setUp(self) -> None:
        super().setUp()
        self.put("/f", content(2 * CHUNK))
        self.run_(self.client.mkdir("/d"))
        self.put("/d/g", content(100))

    def check(self, path: str = "/", *, verify: bool = False) -> list[Finding]:
        findings: list[Finding] = []
        checker = Checker(self.client, findings.append)
        self.run_(checker.verify(path) if verify else checker.ask(path))
        self.summary = checker.summary
        return findings

    def test_well(self) -> None:
        """A grid that is well has no findings, and the check says how much it looked at."""
        self.assertEqual(self.check(), [])
        self.assertEqual((self.summary.files, self.summary.chunks), (2, 3))
        self.assertEqual(self.check(verify=True), [])
        self.assertEqual((self.summary.files, self.summary.replicas), (2, 9))
        self.assertEqual(self.check("/d"), [])
        self.assertEqual((self.summary.files, self.summary.chunks), (1, 1))
        self.assertEqual(self.check("/f", verify=True), [])
        self.assertEqual(self.summary.replicas, 6)

    def test_corrupt(self) -> None:
        """Damage that nobody has read yet is found by reading, and healed after."""
        holder = self.holders("/f", 1)[0]
        self.flip("/f", holder, index=1)
        self.assertEqual(self.check(), [])
        (finding,) = self.check(verify=True)
        self.assertEqual((finding.trouble, finding.path, finding.index), (Trouble.CORRUPT, "/f", 1))
        states = {one.server: one.document()["state"] for one in finding.replicas}
        self.assertEqual(states.pop(holder), "corrupt")
        self.assertEqual(set(states.values()), {"good"})
        self.grid.advance(5)
        self.until_healthy(30)
        self.assertEqual(self.check(verify=True), [])

    def test_many(self) -> None:
        """Small files are verified many at a time, and what is wrong with one is not its
        neighbours' trouble."""
        names = [f"/d/{number:03}" for number in range(INSPECTED_TOGETHER + 20)]
        for name in names:
            self.put(name, name.encode())
        self.flip(names[7], self.holders(names[7])[0], offset=2)
        (finding,) = self.check("/d", verify=True)
        self.assertEqual((finding.trouble, finding.path), (Trouble.CORRUPT, names[7]))
        self.assertEqual(self.summary.replicas, 3 * (len(names) + 1))

    def test_too_many(self) -> None:
        """A question about more chunks than fit in an answer is refused."""
        request = chunk_pb2.InspectChunks(chunk_ids=[bytes(16)] * (MOST_INSPECTED + 1))
        address = Address.parse(self.manifest("/d/g").chunks[0].replicas[0].address)
        asking = self.client.access.pool.ask(
            address, request, chunk_pb2.Inspection, timeout_seconds=5
        )
        with self.assertRaisesRegex(InvalidRequest, "at most 256"):
            self.run_(asking)

    def test_under_replicated(self) -> None:
        """What lost a server is under-replicated until it is repaired, wherever one looks."""
        path = "/d/g"
        holders = self.holders(path)
        others = [one.name for one in self.grid.chunk_servers if one.name not in holders]
        for name in (*holders[:2], others[0]):  # two are left: it stays so
            self.grid.machine(name).kill()
        self.grid.advance(8)
        for verify in (False, True):
            found = {finding.path: finding.trouble for finding in self.check("/d", verify=verify)}
            self.assertEqual(found, {path: Trouble.UNDER_REPLICATED})

    def test_missing(self) -> None:
        """What no server has any more is missing; below other folders nothing is said of it."""
        self.put("/alone", content(10), replication=1)
        self.grid.machine(self.holders("/alone")[0]).kill()
        self.grid.advance(8)
        self.until_repaired()
        for verify in (False, True):
            (finding,) = self.check(verify=verify)
            self.assertEqual((finding.trouble, finding.path), (Trouble.MISSING, "/alone"))
        self.assertEqual(self.check("/d"), [])

    def test_out_of_reach(self) -> None:
        """What cannot be reached now is unknown, not missing (S18)."""
        self.put("/alone", content(10), replication=1)
        self.grid.network.isolate(self.holders("/alone")[0])
        found = self.check("/alone", verify=True)
        self.assertEqual([finding.trouble for finding in found], [Trouble.UNKNOWN])

    def until_repaired(self) -> None:
        for _ in range(100):
            self.grid.advance(0.5)
            if self.status().chunks.under_replicated == 0:
                return
        self.fail("not repaired")
