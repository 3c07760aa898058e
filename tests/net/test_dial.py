"""Connections of the data plane, lent to one transfer after the other."""

from __future__ import annotations

from filegrid.model import Address
from filegrid.net import dial
from filegrid.net.link import Link
from tests.grid.case import GridCase

AT_ONCE = dial.KEPT_PER_PEER + 5


class Pool(GridCase):
    chunk_servers = 1

    def setUp(self) -> None:
        super().setUp()
        self.pool = self.client.access.pool
        self.address = Address(self.grid.chunk_servers[0].name, 7000)

    def lend(self, count: int) -> list[Link]:
        acquiring = [self.begin(self.pool.acquire(self.address)) for _ in range(count)]
        return [self.grid.wait(one) for one in acquiring]

    def give_back(self, links: list[Link]) -> None:
        for link in links:
            self.pool.release(self.address, link)

    def test_used_again(self) -> None:
        """As many transfers at once as a moment ago need no new connection."""
        links = self.lend(AT_ONCE)
        self.give_back(links)
        self.grid.advance(dial.SPARE_SECONDS / 2)
        self.assertEqual(set(self.lend(AT_ONCE)), set(links))

    def test_closed_in_time(self) -> None:
        """Most are closed soon after, some are kept for longer, and none for ever."""
        links = self.lend(AT_ONCE)
        self.give_back(links)
        self.grid.advance(dial.SPARE_SECONDS + 0.1)
        self.assertEqual(sum(link.alive for link in links), dial.KEPT_PER_PEER)
        self.grid.advance(dial.IDLE_SECONDS)
        self.assertEqual([link for link in links if link.alive], [])

    def test_bounded(self) -> None:
        """No more are kept than anybody needs."""
        self.patch(dial, "MOST_IDLE_PER_PEER", AT_ONCE - 2)
        links = self.lend(AT_ONCE)
        self.give_back(links)
        self.grid.advance(0.1)
        self.assertEqual(sum(link.alive for link in links), AT_ONCE - 2)
