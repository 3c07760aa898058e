"""The histories of the shared files."""

from __future__ import annotations

from filegrid.simulation.checkers.checker import Checker
from filegrid.simulation.linearizability import Kind, TooLong, is_linearizable
from filegrid.simulation.promises import BYTES_PROMISE, Broken
from filegrid.simulation.workload import parts


class Linearizable(Checker):
    """What all clients together saw of a file can be explained by one order of what they did."""

    promise = "the namespace is linearizable"

    async def finish(self) -> None:
        for path, history in self.campaign.shared.histories.items():
            written = {one.value for one in history if one.kind is not Kind.READ}
            found = {part for one in history for part in parts(one.value or "")}
            if strange := found - written:
                raise Broken(BYTES_PROMISE, f"nobody wrote {strange} to {path}")
            try:
                explained = is_linearizable(history)
            except TooLong as error:
                self.campaign.note(f"{path} is not judged: {error}")
                continue
            if not explained:
                told = "\n".join(str(one) for one in sorted(history, key=lambda one: one.began))
                raise self.broken(f"no order explains what was seen of {path}:\n{told}")
