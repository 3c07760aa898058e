"""Which replicas move, and which one of too many goes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from filegrid.head.balancing import Balancing, Filling
from filegrid.head.pruning import superfluous

ROOM = 1000
RACKS = {f"c{number}": f"r{number % 3}" for number in range(6)}


def balancing(*held: int, band: float = 0.05) -> Balancing:
    return Balancing(
        [
            Filling(name=name, rack=RACKS[name], held_bytes=size, room_bytes=ROOM)
            for name, size in zip(RACKS, held, strict=False)
        ],
        band=band,
    )


class Choices(SynchronousTestCase):
    def test_even(self) -> None:
        """Within the band around the mean nothing moves."""
        self.assertTrue(balancing(500, 540, 460).even)
        one = balancing(500, 540, 460)
        self.assertEqual(one.bytes_left, 0)
        self.assertIsNone(one.receiver("c1", 10, ["c1"], RACKS))

    def test_one_empty(self) -> None:
        """An empty server gets from the fullest, until it is within the band."""
        one = balancing(330, 310, 320, 0)
        self.assertFalse(one.even)
        self.assertEqual(one.givers(), ["c0", "c2", "c1"])
        self.assertEqual(one.bytes_left, 190)
        self.assertEqual(one.receiver("c0", 10, ["c0", "c1", "c2"], RACKS), "c3")

    def test_one_full(self) -> None:
        """A server that is too full gives to the emptiest, although that one is within the band."""
        one = balancing(300, 210, 205, 210)
        self.assertEqual(one.receiver("c0", 10, ["c0"], RACKS), "c2")

    def test_racks(self) -> None:
        """A move that would leave a chunk on fewer racks is none."""
        one = balancing(500, 500, 500, 500, 0, 500)
        self.assertIsNone(one.receiver("c0", 10, ["c0", "c1"], RACKS))  # c4 is in the rack of c1
        self.assertEqual(one.receiver("c1", 10, ["c0", "c1"], RACKS), "c4")

    def test_no_overshoot(self) -> None:
        """A chunk so large that the two would only change places stays."""
        one = balancing(100, 0, band=0.01)
        self.assertIsNone(one.receiver("c0", 100, ["c0"], RACKS))
        self.assertEqual(one.receiver("c0", 99, ["c0"], RACKS), "c1")

    def test_superfluous(self) -> None:
        """The fullest goes, unless a rack would go with it."""
        use = {"c0": 0.9, "c1": 0.5, "c3": 0.4, "c4": 0.8}
        self.assertEqual(superfluous(["c0", "c1", "c4"], RACKS, use), "c4")
        self.assertEqual(superfluous(["c1", "c4"], RACKS, use), "c4")
        self.assertEqual(superfluous(["c0", "c3", "c1"], RACKS, use), "c0")

    @settings(max_examples=60, deadline=None, database=None)
    @given(
        st.lists(st.integers(0, ROOM - 50), min_size=2, max_size=6),
        st.integers(1, 50),
        st.sampled_from([0.001, 0.05, 0.3]),
    )
    def test_laws(self, held: list[int], length: int, band: float) -> None:
        """Moves of one-replica chunks end by themselves, each makes things more even, and none
        leads to a fuller server; what one move gave, pruning would not give back."""
        one = balancing(*held, band=band)
        left = dict(zip(RACKS, held, strict=False))
        for _ in range(6 * ROOM):
            giver = next((name for name in one.givers() if left[name] >= length), None)
            receiver = one.receiver(giver, length, [giver], RACKS) if giver else None
            if giver is None or receiver is None:
                break
            self.assertFalse(one.even)
            before = left[giver], left[receiver]
            left[giver] -= length
            left[receiver] += length
            self.assertLess(before[1], before[0])
            self.assertLessEqual(left[receiver], before[0])
            one.move(giver, receiver, length)
            use = {name: size / ROOM for name, size in left.items()}
            use[giver] += length / ROOM  # both have it now
            if RACKS[giver] == RACKS[receiver] and use[giver] > use[receiver]:
                self.assertEqual(superfluous([giver, receiver], RACKS, use), giver)
        else:
            self.fail("it never ends")
