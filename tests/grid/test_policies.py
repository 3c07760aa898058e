"""Policies and quotas of folders, over a whole grid."""

from __future__ import annotations

from filegrid.errors import NoSpace, NotPermitted
from filegrid.model import Role
from filegrid.protocol.wire import values_pb2
from tests.grid.case import CHUNK, GridCase, content


class Policies(GridCase):
    settings = {"collection_grace_seconds": 5, "trash_seconds": 0}

    def setUp(self) -> None:
        super().setUp()
        self.operator = self.new_client("operator", role=Role.OPERATOR)
        self.run_(self.client.mkdir("/logs"))

    def tearDown(self) -> None:
        self.run_(self.operator.close())
        super().tearDown()

    def wait_for_replicas(self, path: str, count: int) -> None:
        for _ in range(60):
            self.grid.advance(1)
            if len(self.holders(path)) == count:
                return
        self.fail(f"{path} has {len(self.holders(path))} replicas, {count} are wanted")

    def test_replication(self) -> None:
        """New files get what their folder says from the start; existing ones get more replicas."""
        self.put("/logs/old", content(CHUNK))
        self.run_(self.operator.set_policy("/logs", replication=4))
        self.put("/logs/new", content(CHUNK, 2))
        self.assertEqual(len(self.holders("/logs/new")), 4)
        self.assertEqual(self.run_(self.client.stat("/logs/new")).replication, 4)
        self.wait_for_replicas("/logs/old", 4)
        self.until_healthy()

    def test_one_replica(self) -> None:
        """A folder may say one replica: then one is enough to write."""
        self.run_(self.operator.set_policy("/logs", replication=1))
        self.put("/logs/f", content(CHUNK))
        self.assertEqual(len(self.holders("/logs/f")), 1)
        self.assertEqual(self.read("/logs/f"), content(CHUNK))

    def test_survives_failover_and_is_listed(self) -> None:
        """Policies are logged; everybody may see them, and only operators set them."""
        with self.assertRaises(NotPermitted):
            self.run_(self.client.set_policy("/logs", replication=2))
        self.run_(self.operator.set_policy("/logs", replication=2, trash_seconds=60))
        self.grid.head.kill()
        self.grid.wait(self.grid.head.start())
        (one,) = self.run_(self.client.policies())
        self.assertEqual((one.path, one.replication, one.trash_seconds), ("/logs", 2, 60))
        self.assertIsNone(one.quota_bytes)

    def test_spread_over_hosts(self) -> None:
        """With the spread "host" racks do not count: two replicas may share one, and soon do."""
        self.run_(self.operator.set_policy("/logs", replication=2, spread=values_pb2.SPREAD_HOST))
        racks = {one.name: one.rack for one in self.status().chunk_servers}
        shared = 0
        for number in range(30):
            self.put(f"/logs/f{number}", b"x")
            first, second = self.holders(f"/logs/f{number}")
            self.assertNotEqual(first, second)
            shared += racks[first] == racks[second]
        self.assertGreater(shared, 0)

    def test_quota(self) -> None:
        """What would pass a quota is refused, by name; after a removal there is room again."""
        self.run_(self.operator.set_policy("/logs", quota_bytes=3 * CHUNK, quota_files=2))
        self.put("/logs/f", content(2 * CHUNK))
        with self.assertRaises(NoSpace) as refused:
            self.put("/logs/g", content(2 * CHUNK))
        self.assertEqual(refused.exception.subject, "/logs")
        self.run_(self.client.remove("/logs/f"))
        self.put("/logs/g", content(2 * CHUNK))
        (one,) = self.run_(self.client.policies())
        self.assertEqual((one.used_files, one.used_bytes), (1, 2 * CHUNK))
