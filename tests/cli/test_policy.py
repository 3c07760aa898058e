"""`filegrid policy` and `filegrid quota`."""

from __future__ import annotations

from filegrid.client.blocking import Grid
from filegrid.model import Role
from tests.cli.test_files import CommandCase


class PolicyCommands(CommandCase):
    def connect(self, config: object, *, timeout_seconds: float | None = None) -> Grid:
        self.asked.append(timeout_seconds)
        client = self.new_client(f"operator-{len(self.asked)}", 30, Role.OPERATOR)
        return Grid(client, self.runner)

    def test_policy(self) -> None:
        """Policies are set, listed and taken back, one value or all."""
        self.do("mkdir", "/logs")
        self.do("policy", "set", "/logs", "--replication", 2, "--trash-seconds", 0)
        self.do("policy", "set", "/logs", "--spread", "host")
        (one,) = self.json("policy", "ls")
        self.assertEqual(
            one, {"path": "/logs", "replication": 2, "spread": "host", "trash_seconds": 0}
        )
        self.assertIn("/logs", self.do("policy", "ls"))
        self.do("policy", "unset", "/logs", "--replication")
        self.assertIsNone(self.json("policy", "ls")[0]["replication"])
        self.do("policy", "unset", "/logs")
        self.assertEqual(self.json("policy", "ls"), [])
        self.assertEqual(self.fails("policy", "set", "/logs")[0], 2)
        code, _, err = self.result("policy", "set", "/logs", "--replication", 6)
        self.assertEqual(code, 0)
        self.assertIn("5 chunk servers can have replicas, and 6 are asked for", err)

    def test_quota(self) -> None:
        """A quota is set in units that people write; passing it ends with exit code 8."""
        self.do("mkdir", "/a")
        self.do("quota", "set", "/a", "--bytes", "1.5K", "--files", 2)
        self.do("put", self.local("f", b"x" * 1000), "/a/f")
        code, error = self.fails("put", self.local("g", b"x" * 600), "/a/g")
        self.assertEqual(code, 8)
        self.assertIn("/a", error)
        self.assertEqual(
            self.json("quota", "ls"),
            [
                {
                    "path": "/a",
                    "used_bytes": 1000,
                    "quota_bytes": 1536,
                    "used_files": 1,
                    "quota_files": 2,
                }
            ],
        )
        self.do("quota", "unset", "/a")
        self.assertEqual(self.json("quota", "ls"), [])
        self.do("put", self.folder / "g", "/a/g")
        self.assertEqual(self.fails("quota", "set", "/a", "--bytes", "much")[0], 2)
