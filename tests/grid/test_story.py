"""What a grid says of itself: honest health, and its story in order."""

from __future__ import annotations

from typing import Any

from filegrid.config import Scrub
from tests.grid.case import CHUNK, GridCase, content


class StoryCase(GridCase):
    def events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.run_(self.client.events())["events"]
        return found

    def story(self, *kinds: str) -> list[tuple[str, str]]:
        """Kinds and nodes, of these kinds only."""
        return [(one["kind"], one["node"]) for one in self.events() if one["kind"] in kinds]

    def document(self) -> dict[str, Any]:
        return self.run_(self.client.status())


class Told(StoryCase):
    def test_server_dies_and_returns(self) -> None:
        """Joining, dying, repair and return are told once each, in order, with the cause."""
        self.put("/f", content(4 * CHUNK), replication=4)
        self.grid.advance(3)
        joined = self.story("joined")
        self.assertEqual(sorted(joined), [("joined", f"chunk-{n}") for n in range(1, 6)])
        self.assertEqual(self.document()["condition"], "green")
        victim = self.grid.machine(self.holders("/f")[0])
        victim.kill()
        self.grid.advance(20)
        self.until_healthy()
        self.grid.wait(victim.start())
        self.grid.advance(5)
        told = self.story("died", "repair_begun", "repair_ended", "returned")
        self.assertEqual(
            told,
            [
                ("died", victim.name),
                ("repair_begun", ""),
                ("repair_ended", ""),
                ("returned", victim.name),
            ],
        )
        begun = next(one for one in self.events() if one["kind"] == "repair_begun")
        self.assertIn(f"{victim.name} is dead", begun["text"])
        times = [one["at"] for one in self.events()]
        self.assertEqual(times, sorted(times))

    def test_short_stop(self) -> None:
        """A stop in good order is told as one, and the start after it as a return."""
        self.grid.advance(3)
        self.grid.wait(self.grid.machine("chunk-2").stop())
        self.grid.advance(5)
        self.grid.wait(self.grid.machine("chunk-2").start())
        self.grid.advance(5)
        self.assertEqual(
            self.story("left", "died", "returned"), [("left", "chunk-2"), ("returned", "chunk-2")]
        )


class Failover(StoryCase):
    heads = 3

    def test_nothing_twice(self) -> None:
        """Another leader goes on with the story: who was here or dead is not told again."""
        self.grid.advance(3)
        self.grid.machine("chunk-1").kill()
        self.grid.advance(10)
        before = self.story("joined", "died", "returned")
        self.assertEqual(before[-1], ("died", "chunk-1"))
        leader = self.grid.leader()
        assert leader is not None
        leader.kill()
        self.grid.advance(20)
        self.assertEqual(self.story("joined", "died", "returned"), before)
        elections = self.story("election")
        self.assertGreaterEqual(len(elections), 2)
        self.assertNotEqual(elections[-1][1], leader.name)
        document = self.document()
        self.assertEqual(document["condition"], "yellow")
        self.assertTrue(any(leader.name in one for one in document["because"]))


class RotCase(StoryCase):
    sections = {"scrub": Scrub(days=0.0001)}

    def heal_rot(self) -> str:
        """Damage is found by scrubbing, and healed; returns the server on which it was."""
        self.put("/f", content(CHUNK))
        victim = self.holders("/f")[0]
        self.flip("/f", victim)
        self.grid.advance(12)
        self.until_healthy()
        self.grid.advance(3)
        return victim


class Rot(RotCase):
    def test_found_and_healed(self) -> None:
        """Damage that scrubbing finds is told, and that it was healed."""
        victim = self.heal_rot()
        self.assertEqual(
            self.story("rot_found", "rot_healed"), [("rot_found", victim), ("rot_healed", victim)]
        )


class RotAndFailover(RotCase):
    heads = 3

    def test_nothing_twice(self) -> None:
        """A new leader, which saw it too, does not tell of the same healing again."""
        victim = self.heal_rot()
        leader = self.grid.leader()
        assert leader is not None
        leader.kill()
        self.grid.advance(20)
        told = self.story("rot_found", "rot_healed")
        self.assertEqual(told, [("rot_found", victim), ("rot_healed", victim)])

    def test_removed(self) -> None:
        """A damaged chunk that is not wanted any more was not healed."""
        self.put("/f", content(CHUNK))
        victim = self.holders("/f")[0]
        for machine in self.grid.chunk_servers:
            machine.disk.capacity_bytes = 1024  # there is no place for another replica
        self.grid.advance(2)
        self.flip("/f", victim)
        self.grid.advance(12)
        self.run_(self.client.remove("/f", now=True))
        self.grid.advance(10)
        self.assertEqual(self.story("rot_found", "rot_healed"), [("rot_found", victim)])


class Condition(StoryCase):
    chunk_servers = 3
    racks = 3

    def test_yellow_and_red(self) -> None:
        """Too few replicas are yellow, with how many, since when and why; none left is red; and
        green only when all is back and has been compared."""
        self.put("/f", content(2 * CHUNK))
        self.grid.advance(2)
        self.assertEqual(self.document()["condition"], "green")
        self.grid.machine("chunk-1").kill()
        self.grid.advance(10)
        document = self.document()
        self.assertEqual(document["condition"], "yellow")
        (short,) = document["chunks"]["short"]
        self.assertEqual((short["replicas"], short["chunks"]), (2, 2))
        self.assertTrue(any("chunk-1 is dead" in one for one in document["because"]))
        for name in ("chunk-2", "chunk-3"):
            self.grid.machine(name).kill()
        self.grid.advance(10)
        self.assertEqual(self.document()["condition"], "red")
        for name in ("chunk-1", "chunk-2", "chunk-3"):
            self.grid.wait(self.grid.machine(name).start())
        self.grid.advance(10)
        self.assertEqual(self.document()["condition"], "green")

    def test_unknown_after_a_start(self) -> None:
        """A leader that has not heard of every server says that it does not know."""
        self.put("/f", content(CHUNK))
        self.grid.machine("chunk-3").kill()
        self.grid.head.kill()
        self.grid.wait(self.grid.head.start())
        self.grid.advance(3)
        self.assertEqual(self.document()["condition"], "unknown")
        self.grid.advance(10)
        self.assertEqual(self.document()["condition"], "yellow")
