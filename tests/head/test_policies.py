"""Tests for policies and quotas of folders: set, inherited, kept, and followed by files."""

from __future__ import annotations

from typing import Any

from filegrid.errors import InvalidRequest, NoSpace, NoSuchPath, NotAFolder
from filegrid.head.policies import Policy
from filegrid.protocol.wire import journal_pb2 as journal
from filegrid.protocol.wire import values_pb2 as wire
from tests.head.entries import CHUNK_BYTES, DEFAULT_REPLICATION, NamespaceTestCase


class PolicyCase(NamespaceTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.grid.make("/a/b/c", parents=True)

    def set(self, path: str, unset: tuple[str, ...] = (), **values: Any) -> journal.Outcome:
        return self.grid.once(set_policy=wire.SetPolicy(path=path, unset=unset, **values))

    def put(self, path: str, chunks: int = 1, replication: int = 0, **more: Any) -> journal.Outcome:
        new = [self.grid.new_chunk() for _ in range(chunks)]
        return self.grid.put(path, *new, replication=replication, **more)

    def apply(self, limit: int = 1000) -> journal.Outcome:
        work = journal.ApplyPolicies(limit=limit)
        return self.grid.does(apply_policies=work, replication=DEFAULT_REPLICATION)

    def apply_all(self) -> int:
        """How many contents were changed."""
        changed = 0
        while self.grid.namespace.policies_to_apply():
            changed += len(self.apply().resized)
        return changed

    def replication(self, path: str) -> int:
        return self.grid.namespace.stat(path).replication


class Inheriting(PolicyCase):
    def test_nearest_says(self) -> None:
        """A value is that of the nearest folder above that sets it, each value for itself."""
        self.set("/a", replication=2, trash_seconds=5)
        self.set("/a/b", spread=wire.SPREAD_HOST, trash_seconds=0)
        of = self.grid.namespace.policy_of
        self.assertEqual(of("/f"), Policy())
        self.assertEqual(of("/a/f"), Policy(replication=2, trash_seconds=5))
        there = Policy(replication=2, spread=wire.SPREAD_HOST, trash_seconds=0)
        self.assertEqual(of("/a/b/c/f"), there)
        self.assertEqual(of("/a/b/not/made/yet/f"), there)

    def test_unset(self) -> None:
        """What a folder unsets those above say again; one that says nothing is not listed."""
        self.set("/a", replication=2)
        self.set("/a/b", replication=4, trash_seconds=9)
        self.set("/a/b", unset=("replication",))
        self.assertEqual(
            self.grid.namespace.policy_of("/a/b/f"), Policy(replication=2, trash_seconds=9)
        )
        self.set("/a/b", unset=("trash_seconds",))
        listed = self.grid.namespace.list_policies(0, 9)
        self.assertEqual([one.path for one in listed], ["/a"])

    def test_refused(self) -> None:
        """Policies are of folders that exist, and have values that make sense."""
        self.put("/f")
        self.refused(self.set("/f", replication=2), NotAFolder, "/f")
        self.refused(self.set("/none", replication=2), NoSuchPath, "/none")
        self.refused(self.set("/a", replication=0), InvalidRequest)
        self.refused(self.set("/a", replication=99), InvalidRequest)
        self.refused(self.set("/a", spread=7), InvalidRequest)
        self.refused(self.set("/a", quota_bytes=2**63), InvalidRequest)
        self.refused(self.set("/a", unset=("colour",)), InvalidRequest)

    def test_goes_with_the_folder(self) -> None:
        """A policy moves with its folder, into the trash and back; it ends with the folder."""
        self.set("/a/b", replication=2)
        self.grid.rename("/a/b", "/z")
        self.assertEqual(self.grid.namespace.policy_of("/z/f").replication, 2)
        self.grid.remove("/z", recursive=True)
        (thrown,) = self.grid.namespace.list_trash(0, 9)
        self.grid.once(restore_trash=wire.RestoreTrash(trash_id=thrown.id))
        self.assertEqual(self.grid.namespace.policy_of("/z/f").replication, 2)
        self.grid.remove("/z", recursive=True, now=True)
        self.grid.purge()
        self.assertEqual(self.grid.namespace.list_policies(0, 9), [])


class Trash(PolicyCase):
    def test_time_by_folder(self) -> None:
        """What is removed or replaced stays in the trash for as long as its folder says."""
        self.set("/a", trash_seconds=7)
        self.set("/a/b", trash_seconds=0)
        for path in ("/f", "/a/f", "/a/b/f"):
            self.put(path)
            self.grid.remove(path)
        due = {one.path: one.due_ms for one in self.grid.namespace.list_trash(0, 9)}
        self.assertEqual(due, {"/f": 1000, "/a/f": 7000})
        self.put("/a/g")
        self.put("/a/g", replace=True)
        self.grid.remove("/a", recursive=True)
        due = {one.path: one.due_ms for one in self.grid.namespace.list_trash(0, 9)}
        self.assertEqual((due["/a/g"], due["/a"]), (7000, 7000))


class Replication(PolicyCase):
    def test_new_files(self) -> None:
        """A new file has what its writer asked for, or what its folder says, or the default."""
        self.set("/a", replication=2)
        self.put("/f")
        self.put("/a/f")
        self.put("/a/g", replication=5)
        self.assertEqual([self.replication(path) for path in ("/f", "/a/f", "/a/g")], [3, 2, 5])

    def test_existing_files(self) -> None:
        """Files that exist follow a change, and its end; those that were asked for do not."""
        self.put("/a/f")
        self.put("/a/b/c/f")
        self.put("/a/asked", replication=5)
        self.put("/f")
        self.set("/a", replication=2)
        self.assertEqual(self.apply_all(), 2)
        paths = ("/a/f", "/a/b/c/f", "/a/asked", "/f")
        self.assertEqual([self.replication(path) for path in paths], [2, 2, 5, 3])
        self.set("/a", unset=("replication",))
        self.assertEqual(self.apply_all(), 2)
        self.assertEqual([self.replication(path) for path in paths], [3, 3, 5, 3])

    def test_nearer_policy_holds(self) -> None:
        """A change further up does not touch what a nearer folder says."""
        self.set("/a/b", replication=4)
        self.put("/a/b/c/f")
        self.set("/a", replication=2)
        self.assertEqual(self.apply_all(), 0)
        self.assertEqual(self.replication("/a/b/c/f"), 4)

    def test_in_steps(self) -> None:
        """However small the steps, and whatever is moved between them, all follow in the end."""
        for number in range(5):
            self.put(f"/a/f{number}")
            self.put(f"/a/b/c/f{number}")
        self.set("/a", replication=2)
        for step in range(3):
            self.assertLessEqual(self.apply(2).count, 2)
            self.grid.rename(f"/a/b/c/f{step}", f"/a/moved{step}")
        self.grid.rename("/a/b", "/elsewhere")
        while self.grid.namespace.policies_to_apply():
            self.apply(2)
        for number in range(5):
            self.assertEqual(self.replication(f"/a/f{number}"), 2)
            if number < 3:
                self.assertEqual(self.replication(f"/a/moved{number}"), 2)
            else:
                self.assertEqual(self.replication(f"/elsewhere/c/f{number}"), 3)

    def test_moved_file(self) -> None:
        """A file that is moved follows its new folder at once, and the change is told."""
        self.put("/f")
        content_id = self.grid.namespace.stat("/f").content_id
        self.set("/a", replication=2)
        outcome = self.grid.rename("/f", "/a/f")
        self.assertEqual(list(outcome.resized), [content_id])
        self.assertEqual(self.replication("/a/f"), 2)

    def test_moved_before_it_followed(self) -> None:
        """What is moved while it has not followed yet follows as well, from folder to folder with
        the same policy, and where the last policy has gone."""
        self.put("/a/f")
        self.put("/a/b/g")
        self.grid.make("/z")
        self.set("/z", replication=2)
        self.apply_all()
        self.set("/a", replication=2)
        self.grid.rename("/a/f", "/z/f")
        self.grid.rename("/a/b", "/z/b")
        self.apply_all()
        self.assertEqual([self.replication(path) for path in ("/z/f", "/z/b/g")], [2, 2])
        self.set("/a", unset=("replication",))
        self.set("/z", unset=("replication",))
        self.grid.rename("/z/f", "/f")
        self.grid.rename("/z/b", "/b")
        self.apply_all()
        self.assertEqual([self.replication(path) for path in ("/f", "/b/g")], [3, 3])

    def test_restored(self) -> None:
        """What comes back from the trash follows the folder that it comes to, whatever held where
        it was, then or now."""
        self.set("/a", replication=2)
        self.put("/a/f")
        self.put("/a/g")
        self.put("/a/b/h")
        for path in ("/a/f", "/a/g", "/a/b"):
            self.grid.remove(path, recursive=path == "/a/b")
        thrown = {one.path: one.id for one in self.grid.namespace.list_trash(0, 9)}
        self.grid.make("/z")
        for path, target in (("/a/f", "/f"), ("/a/b", "/z/b")):
            self.grid.once(restore_trash=wire.RestoreTrash(trash_id=thrown[path], target=target))
        self.set("/a", unset=("replication",))
        self.apply_all()
        outcome = self.grid.once(restore_trash=wire.RestoreTrash(trash_id=thrown["/a/g"]))
        self.assertEqual(outcome.node.replication, 3)
        paths = ("/f", "/z/b/h", "/a/g")
        self.assertEqual([self.replication(path) for path in paths], [3, 3, 3])

    def test_thrown_away_again(self) -> None:
        """What is in the trash when its turn comes keeps the replicas that it has."""
        self.set("/a", replication=4)
        self.put("/a/b/f")
        content_id = self.grid.namespace.stat("/a/b/f").content_id
        ((chunk,), _) = self.grid.namespace.manifest(content_id, 0, 1)
        for _ in range(2):
            self.grid.remove("/a/b", recursive=True)
            self.apply_all()
            kept = self.grid.namespace.chunk(chunk.id)
            self.assertEqual(kept and kept.replication, 4)
            (thrown,) = self.grid.namespace.list_trash(0, 9)
            self.grid.once(restore_trash=wire.RestoreTrash(trash_id=thrown.id))
        self.apply_all()
        self.assertEqual(self.replication("/a/b/f"), 4)

    def test_restored_and_moved(self) -> None:
        """What is moved out of a folder that came back, and was not looked through yet, follows."""
        self.set("/a", replication=2)
        self.put("/a/b/c/f")
        self.grid.remove("/a/b", recursive=True)
        self.set("/a", unset=("replication",))
        self.apply_all()
        self.set("/a", trash_seconds=9)
        self.set("/a", unset=("trash_seconds",))
        self.grid.rename("/a", "/z")  # nobody says anything any more
        (thrown,) = self.grid.namespace.list_trash(0, 9)
        self.grid.once(restore_trash=wire.RestoreTrash(trash_id=thrown.id, target="/b"))
        self.grid.rename("/b/c/f", "/f")
        self.apply_all()
        self.assertEqual(self.replication("/f"), 3)

    def test_appended(self) -> None:
        """An append keeps what the first writer asked for."""
        for path, asked in (("/a/f", 0), ("/a/g", 5)):
            node = self.put(path, replication=asked).node
            self.put(path, base_version=node.version)
            self.assertEqual(self.replication(path), asked or DEFAULT_REPLICATION)


class Quotas(PolicyCase):
    def test_files(self) -> None:
        """A file too many is refused, at any depth, and nothing has changed."""
        self.set("/a", quota_files=2)
        self.put("/a/f")
        self.put("/a/b/f")
        before = self.grid.namespace.counts()
        self.refused(self.put("/a/b/c/f"), NoSpace, "/a")
        self.assertEqual(self.grid.namespace.counts(), before)
        self.assertEqual(self.put("/a/f", replace=True).WhichOneof("result"), "node")
        self.grid.remove("/a/b/f")
        self.assertEqual(self.put("/a/b/c/f").WhichOneof("result"), "node")

    def test_bytes(self) -> None:
        """Bytes are counted with what is replaced taken off; a smaller version always fits."""
        self.put("/a/f", chunks=4)
        self.set("/a", quota_bytes=3 * CHUNK_BYTES)
        self.refused(self.put("/a/g"), NoSpace, "/a")
        self.refused(self.put("/a/f", chunks=5, replace=True), NoSpace, "/a")
        self.put("/a/f", chunks=2, replace=True)
        self.put("/a/g")
        self.refused(self.put("/a/h"), NoSpace, "/a")
        (listed,) = self.grid.namespace.list_policies(0, 9)
        self.assertEqual((listed.files, listed.bytes), (2, 3 * CHUNK_BYTES))

    def test_nested(self) -> None:
        """All quotas above have to be kept; the error names the one that is not."""
        self.set("/a", quota_files=5)
        self.set("/a/b", quota_files=1)
        self.put("/a/b/f")
        self.refused(self.put("/a/b/g"), NoSpace, "/a/b")
        self.set("/a/b", quota_files=9)
        self.set("/a", quota_files=1)
        self.refused(self.put("/a/b/g"), NoSpace, "/a")

    def test_moves(self) -> None:
        """What is moved or restored counts where it comes to; within a quota it moves freely."""
        self.grid.make("/d")
        self.put("/d/f", chunks=2)
        self.put("/d/g", chunks=2)
        self.put("/a/h", chunks=1)
        self.set("/a", quota_bytes=4 * CHUNK_BYTES, quota_files=2)
        self.refused(self.grid.rename("/d", "/a/d"), NoSpace, "/a")
        self.assertEqual(self.grid.rename("/a/h", "/a/b/h").WhichOneof("result"), "node")
        self.grid.remove("/a/b/h")
        self.assertEqual(self.grid.rename("/d", "/a/d").WhichOneof("result"), "node")
        (thrown,) = self.grid.namespace.list_trash(0, 9)
        restored = self.grid.once(restore_trash=wire.RestoreTrash(trash_id=thrown.id))
        self.refused(restored, NoSpace, "/a")
        self.assertEqual([one.id for one in self.grid.namespace.list_trash(0, 9)], [thrown.id])

    def test_full_quota_can_be_emptied(self) -> None:
        """Above a quota everything can be removed and moved away (S22)."""
        self.put("/a/f")
        self.put("/a/g")
        self.set("/a", quota_files=0, quota_bytes=0)
        self.assertEqual(self.grid.rename("/a/f", "/f").WhichOneof("result"), "node")
        self.assertEqual(self.grid.remove("/a/g").count, 1)
