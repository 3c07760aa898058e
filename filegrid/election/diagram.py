"""The table of transitions, drawn for ``docs/election.md``."""

from __future__ import annotations

from filegrid.election.table import TABLE, State

BEGIN = "<!-- drawn from filegrid/election/table.py: python -m filegrid.election.diagram -->"
END = "<!-- end of what was drawn -->"


def mermaid() -> str:
    """The states and what leads from one to another, as a Mermaid state diagram."""
    arrows: dict[tuple[State, State], list[str]] = {}
    for (state, kind), row in TABLE.items():
        for target in row.leads_to:
            arrows.setdefault((state, target), []).append(kind.__name__)
    lines = ["stateDiagram-v2"]
    lines += [f"    {state.name}: {state.name} - {state.value}" for state in State]
    lines += ["    [*] --> FOLLOWING: a voter starts", "    [*] --> PASSIVE: anybody else starts"]
    lines += [
        f"    {source.name} --> {target.name}: {', '.join(kinds)}"
        for (source, target), kinds in arrows.items()
    ]
    return "\n".join(lines)


def matrix() -> str:
    """What is done with each input in each state, as a Markdown table; a dot is nothing."""
    lines = [
        "| input | " + " | ".join(state.name for state in State) + " |",
        "|---" * (len(State) + 1) + "|",
    ]
    for kind in dict.fromkeys(kind for _, kind in TABLE):
        cells = (TABLE[state, kind].action or "." for state in State)
        lines.append(f"| {kind.__name__} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def section() -> str:
    """All that was drawn, between its markers."""
    return f"{BEGIN}\n\n```mermaid\n{mermaid()}\n```\n\n{matrix()}\n\n{END}"


if __name__ == "__main__":
    print(section())
