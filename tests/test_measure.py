"""Tests of filegrid.measure."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from filegrid.measure import percentiles, rounded, spread


class FiguresTests(SynchronousTestCase):
    def test_a_median_comes_with_its_spread(self) -> None:
        """The median of several runs says how many they were and how far apart they lie."""
        self.assertEqual(
            spread([3.0, 1.0, 2.0]), {"runs": 3, "median": 2.0, "least": 1.0, "most": 3.0}
        )

    def test_percentiles_are_values_that_were_seen(self) -> None:
        """A percentile is by nearest rank: nothing is made up between two values."""
        values = [float(value) for value in range(1, 1002)]
        self.assertEqual(
            percentiles(values), {"p50": 501.0, "p99": 991.0, "p999": 1000.0, "most": 1001.0}
        )

    def test_one_value_is_all_its_percentiles(self) -> None:
        """A single measurement has figures as well."""
        self.assertEqual(percentiles([0.5]), {"p50": 0.5, "p99": 0.5, "p999": 0.5, "most": 0.5})

    def test_figures_have_four_digits(self) -> None:
        """More digits than the measurement has are not shown."""
        self.assertEqual((rounded(123456.0), rounded(0.000123456)), (123500.0, 0.0001235))
