"""A picture of a benchmark's JSON: one bar for each figure, its median, with its spread as a line.

    python -m benchmarks.plot FIGURES.json [--of ratios_of_time] [--out FIGURES.svg]

Bars of one kind of figure share a scale; kinds stand below each other. --of picks the figures
whose path in the document contains the word.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

LABEL_WIDTH, BAR_WIDTH, VALUE_WIDTH = 240, 420, 170
ROW_HEIGHT, HEADING_HEIGHT, MARGIN = 22, 34, 10


@dataclass(frozen=True, slots=True)
class Spread:
    """A figure that was measured several times, as :func:`filegrid.measure.spread` tells it.

    :ivar path: where it stands in the document, its own name last or first.
    """

    path: tuple[str, ...]
    median: float
    least: float
    most: float


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("figures", type=Path)
    arguments.add_argument("--of", default="")
    arguments.add_argument("--out", type=Path)
    options = arguments.parse_args()
    document = json.loads(options.figures.read_text())
    found = [one for one in spreads(document) if options.of in "/".join(one.path)]
    if not found:
        raise SystemExit("the document has no such figure")
    title = f"{document.get('machine', '')}, Python {document.get('python', '')}"
    out = options.out or options.figures.with_suffix(".svg")
    out.write_text(picture(title, grouped(found)))
    print(out)


def spreads(document: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[Spread]:
    """All figures in the document that have a median and a spread."""
    for name, value in document.items():
        if not isinstance(value, Mapping):
            continue
        if {"median", "least", "most"} <= value.keys():
            yield Spread((*path, name), value["median"], value["least"], value["most"])
        else:
            yield from spreads(value, (*path, name))


def grouped(found: list[Spread]) -> dict[str, list[tuple[str, Spread]]]:
    """Kinds of figure, each with its bars' labels.

    Where the same name ends several paths it is the kind (`mib_per_second` of put and of get);
    otherwise what the figures stand in is (`ratios_of_time`).
    """
    names = [one.path[-1] for one in found]
    groups: dict[str, list[tuple[str, Spread]]] = {}
    for one in found:
        name, above = one.path[-1], one.path[:-1]
        if names.count(name) > 1 and above:
            groups.setdefault(name, []).append((above[-1], one))
        else:
            groups.setdefault("/".join(above), []).append((name, one))
    return groups


def picture(title: str, groups: Mapping[str, list[tuple[str, Spread]]]) -> str:
    """The SVG."""
    parts = []
    top = MARGIN + ROW_HEIGHT
    parts.append(_text(MARGIN, top - 6, title))
    for kind, bars in groups.items():
        parts.append(_text(MARGIN, top + HEADING_HEIGHT - 12, kind.replace("_", " "), bold=True))
        top += HEADING_HEIGHT
        scale = BAR_WIDTH / (max(bar.most for _, bar in bars) or 1.0)
        for label, bar in bars:
            parts.append(_bar(top, label, bar, scale))
            top += ROW_HEIGHT
    width = LABEL_WIDTH + BAR_WIDTH + VALUE_WIDTH + 2 * MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top + MARGIN}" '
        'font-family="sans-serif" font-size="12">'
        '<rect width="100%" height="100%" fill="white"/>' + "".join(parts) + "</svg>\n"
    )


def _bar(top: float, label: str, bar: Spread, scale: float) -> str:
    left, middle = LABEL_WIDTH + MARGIN, top + ROW_HEIGHT / 2
    told = f"{bar.median:g} ({bar.least:g} to {bar.most:g})"
    return (
        _text(MARGIN, middle + 4, label)
        + f'<rect x="{left}" y="{top + 3}" width="{bar.median * scale:.1f}" '
        f'height="{ROW_HEIGHT - 6}" fill="#7aa6c2"/>'
        f'<line x1="{left + bar.least * scale:.1f}" x2="{left + bar.most * scale:.1f}" '
        f'y1="{middle}" y2="{middle}" stroke="#222" stroke-width="2"/>'
        + _text(left + BAR_WIDTH + MARGIN, middle + 4, told)
    )


def _text(x: float, y: float, text: str, *, bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x}" y="{y}"{weight}>{escape(text)}</text>'


if __name__ == "__main__":
    main()
