"""A head that is too far behind for the log gets the whole state."""

from __future__ import annotations

from filegrid.head.headlog import HeadLog
from filegrid.head.journal import LogSizes
from filegrid.head.service import Head
from filegrid.model import Role
from tests.grid.case import GridCase, content


class CatchingUp(GridCase):
    heads = 3
    settings = {"collection_grace_seconds": 1, "trash_seconds": 0}
    # Logs are cut early, so that a head that was away for a while does not find its entries.
    log_sizes = LogSizes(segment_bytes=2000, recent_entries=8, checkpoint_entries=20)

    def log_of(self, name: str) -> HeadLog:
        node = self.grid.machine(name).node
        assert isinstance(node, Head)
        return node._log

    def fall_behind(self) -> str:
        """A standby misses more than the leader's log remembers; its name."""
        leader = self.grid.leader()
        assert leader is not None
        lagging = next(one for one in self.grid.heads if one is not leader)
        lagging.kill()
        for number in range(120):
            self.put(f"/f{number}", b"x")
        leader_log = self.log_of(leader.name)
        self.assertGreater(leader_log._journal.first_index, 60)
        return lagging.name

    def test_state_is_sent(self) -> None:
        """It has all names afterwards, and leads as well as any other."""
        self.put("/big", content(100_000))
        name = self.fall_behind()
        self.grid.wait(self.grid.machine(name).start())
        self.grid.advance(5)
        self.assertEqual(self.log_of(name).applied_index, self.log_of(name).last_index)
        self.assertGreater(self.log_of(name).applied_index, 120)
        for machine in self.grid.heads:
            if machine.name != name:
                machine.kill()
                other = machine
        self.grid.wait(other.start())
        self.assertEqual(self.read("/f119"), b"x")
        self.assertEqual(self.read("/big"), content(100_000))
        self.put("/after", b"y")

    def test_crash_while_it_is_taken_in(self) -> None:
        """Whenever it loses power on the way, it starts again and catches up."""
        name = self.fall_behind()
        machine = self.grid.machine(name)
        for operations in range(2, 60, 8):
            self.grid.wait(machine.start())
            machine.disk.cut_power_after(operations)
            self.grid.advance(2)
            machine.crash()
        self.grid.wait(machine.start())
        self.grid.advance(5)
        self.assertGreater(self.log_of(name).applied_index, 120)
        self.put("/after", b"y")
        self.grid.advance(1)
        self.assertEqual(self.log_of(name).applied_index, self.log_of(name).last_index)

    def test_what_went_meanwhile(self) -> None:
        """A chunk that was removed in what it missed is nothing that it finds missing, leading."""
        lagging = next(one for one in self.grid.heads if one is not self.grid.leader())
        lagging.kill()  # so that it has heard of no replica
        self.grid.wait(lagging.start())
        self.grid.advance(1)
        self.put("/gone", b"z")
        self.grid.advance(1)
        for other in self.grid.heads:
            self.grid.network.cut(lagging.name, other.name)
        self.grid.network.reset(lagging.name)  # or the first of what it misses would be on its way
        self.run_(self.client.remove("/gone"))
        self.grid.advance(10)
        for number in range(120):
            self.put(f"/f{number}", b"x")
        for other in self.grid.heads:
            self.grid.network.mend(lagging.name, other.name)
        self.grid.advance(5)
        self.assertGreater(self.log_of(lagging.name)._journal.first_index, 60)
        operator = self.new_client("operator", role=Role.OPERATOR)
        self.run_(operator.hand_over(lagging.name))
        self.run_(operator.close())
        self.until_healthy()
        self.assertIs(self.grid.leader(), lagging)
