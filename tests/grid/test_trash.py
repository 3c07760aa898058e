"""The trash: what was removed or replaced comes back, or goes for good."""

from __future__ import annotations

from filegrid.chunk.store import RESERVE_BYTES
from filegrid.client.stat import Trashed
from filegrid.errors import AlreadyExists, NoSpace, NoSuchPath, NotPermitted
from filegrid.head.placement import SPARE_FRACTION
from filegrid.model import Role
from filegrid.simulation.grid import Machine
from tests.grid.case import CHUNK, GridCase, content


class TrashCase(GridCase):
    settings = {"trash_seconds": 1000, "collection_grace_seconds": 5}

    def listed(self) -> list[Trashed]:
        async def names() -> list[Trashed]:
            return [one async for one in self.client.list_trash()]

        return self.run_(names())


class Restoring(TrashCase):
    def test_file_and_folder(self) -> None:
        """A removed file and a removed tree come back with their contents, where they were."""
        self.run_(self.client.mkdir("/d/e", parents=True))
        self.put("/d/e/f", content(2 * CHUNK))
        self.put("/g", b"1")
        self.run_(self.client.remove("/d", recursive=True))
        self.run_(self.client.remove("/g"))
        tree, file = self.listed()
        self.assertEqual((tree.path, tree.kind), ("/d", "folder"))
        self.assertEqual((tree.files, tree.bytes), (1, 2 * CHUNK))
        self.assertEqual((file.path, file.kind, file.bytes), ("/g", "file", 1))
        self.run_(self.client.restore(tree.id))
        self.run_(self.client.restore(file.id, "/d/h"))
        self.assertEqual(self.read("/d/e/f"), content(2 * CHUNK))
        self.assertEqual(self.read("/d/h"), b"1")
        self.assertEqual(self.listed(), [])
        self.assertEqual(self.status().files, 2)

    def test_replaced_version(self) -> None:
        """What was overwritten can be had back beside what replaced it."""
        self.put("/f", b"old")
        self.put("/f", b"new", overwrite=True)
        (old,) = self.listed()
        with self.assertRaises(AlreadyExists):
            self.run_(self.client.restore(old.id))
        self.run_(self.client.restore(old.id, "/f.old"))
        self.assertEqual((self.read("/f"), self.read("/f.old")), (b"new", b"old"))

    def test_gone(self) -> None:
        """What was restored, or whose time is over, is not there any more."""
        self.put("/f", b"x")
        self.run_(self.client.remove("/f"))
        (one,) = self.listed()
        self.grid.advance(1010)
        self.assertEqual(self.listed(), [])
        with self.assertRaises(NoSuchPath):
            self.run_(self.client.restore(one.id))


class Emptying(TrashCase):
    def test_all(self) -> None:
        """Emptying it gives the space back, after the grace; other files are not touched."""
        self.put("/f", content(2 * CHUNK))
        self.put("/kept", b"x")
        self.run_(self.client.remove("/f"))
        self.grid.advance(20)
        self.assertEqual(len(self.all_stored()), 3)
        with self.assertRaises(NotPermitted):
            self.run_(self.client.empty_trash())
        operator = self.new_client("operator", role=Role.OPERATOR)
        self.run_(operator.empty_trash())
        self.run_(operator.close())
        self.assertEqual(self.listed(), [])
        self.grid.advance(20)
        self.assertEqual(len(self.all_stored()), 1)
        self.assertEqual(self.read("/kept"), b"x")


class FilledCase(TrashCase):
    """Something old and something newer in the trash, and disks that can be filled."""

    def setUp(self) -> None:
        super().setUp()
        self.put("/old", content(8 * CHUNK))
        self.run_(self.client.remove("/old"))
        self.grid.advance(1)
        self.put("/new", content(CHUNK))
        self.run_(self.client.remove("/new"))

    def fill(self, machine: Machine) -> None:
        """There would be room for five chunks beside what is always kept free."""
        machine.disk.capacity_bytes = round((RESERVE_BYTES + 5 * CHUNK) / (1 - SPARE_FRACTION))

    def left(self) -> list[str]:
        return [one.path for one in self.listed()]


class Yielding(FilledCase):
    """When disks are full the trash yields by itself (S22)."""

    chunk_servers = 3

    def test_oldest(self) -> None:
        """The oldest goes, and no more than is needed, and that is told."""
        for machine in self.grid.chunk_servers:
            self.fill(machine)
        self.grid.advance(4)
        self.assertEqual(self.left(), ["/new"])
        told = [one for one in self.run_(self.client.events())["events"] if "trash" in one["kind"]]
        self.assertEqual([one["text"] for one in told], ["/old, and perhaps more"])
        self.grid.advance(30)
        self.assertEqual(self.left(), ["/new"])
        self.assertEqual(len(self.all_stored()), 1)
        self.put("/more", content(CHUNK))


class Roomy(FilledCase):
    """With one server more than a chunk has replicas."""

    chunk_servers = 4

    def test_servers_away(self) -> None:
        """It does not yield because servers with room are away, or have not told of it yet."""
        full, *others = self.grid.chunk_servers
        self.fill(full)
        self.grid.advance(3)
        for machine in others:
            machine.kill()
        self.grid.advance(40)
        (head,) = self.grid.heads
        head.kill()
        self.grid.wait(head.start())
        self.grid.advance(40)
        self.assertEqual(self.left(), ["/old", "/new"])


class Full(TrashCase):
    def fill(self) -> None:
        """No server has room for another byte."""
        for machine in self.grid.chunk_servers:
            machine.disk.capacity_bytes = 1024

    def test_stays_governable(self) -> None:
        """On a full grid writing is refused as such, and every way of removing goes on (S22)."""
        for name in "abc":
            self.put(f"/{name}", content(2 * CHUNK))
        self.fill()
        self.grid.advance(2)
        with self.assertRaises(NoSpace) as refused:
            self.put("/d", content(CHUNK))
        self.assertEqual(refused.exception.exit_code, 8)
        self.run_(self.client.remove("/a", now=True))
        self.run_(self.client.remove("/b"))
        operator = self.new_client("operator", role=Role.OPERATOR)
        self.run_(operator.empty_trash())
        self.run_(operator.close())
        self.assertEqual(self.listed(), [])
        self.grid.advance(30)
        self.assertEqual(len(self.all_stored()), 2)
        self.assertEqual(self.read("/c"), content(2 * CHUNK))
        for machine in self.grid.chunk_servers:
            machine.disk.capacity_bytes = 1 << 34
        self.grid.advance(2)
        self.put("/d", content(CHUNK))
