"""The picture of a benchmark's figures."""

from __future__ import annotations

from xml.etree import ElementTree

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.plot import grouped, picture, spreads
from filegrid.measure import spread

_SVG = "{http://www.w3.org/2000/svg}"

DOCUMENT = {
    "machine": "2 cores",
    "work": {
        "put": {"mib_per_second": spread([50, 60, 40]), "peak_mib": {"of": "client", "mib": 80}},
        "get": {"mib_per_second": spread([100, 90, 110])},
    },
    "ratios_of_time": {
        "put / floor put": spread([1.5, 1.4, 1.7]),
        "get / floor <get>": spread([1]),
    },
}


class PlotTests(SynchronousTestCase):
    def test_figures_of_one_kind_stand_together(self) -> None:
        groups = grouped(list(spreads(DOCUMENT)))
        labels = {kind: [label for label, _ in bars] for kind, bars in groups.items()}
        self.assertEqual(
            labels,
            {
                "mib_per_second": ["put", "get"],
                "ratios_of_time": ["put / floor put", "get / floor <get>"],
            },
        )

    def test_bars_are_as_long_as_their_medians(self) -> None:
        svg = ElementTree.fromstring(picture("2 < 3 cores", grouped(list(spreads(DOCUMENT)))))
        _, put, get, *_ = svg.iter(f"{_SVG}rect")
        self.assertAlmostEqual(float(put.attrib["width"]) * 2, float(get.attrib["width"]), 0)
        whisker = next(svg.iter(f"{_SVG}line"))
        bar_end = float(put.attrib["x"]) + float(put.attrib["width"])
        self.assertLess(float(whisker.attrib["x1"]), bar_end)
        self.assertGreater(float(whisker.attrib["x2"]), bar_end)

    def test_what_is_no_figure_is_left_out(self) -> None:
        self.assertEqual([one.path[-1] for one in spreads({"a": {"median": 1}, "b": "c"})], [])
