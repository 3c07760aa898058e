"""Clients that remember: what the grid told them, and what they may therefore expect of it.

Each client has a folder in which nobody else changes anything, so that it knows what must be
there; and all of them write, read and remove the same few shared files at the same time, whose
histories are judged in the end (:mod:`filegrid.simulation.checkers.linearizable`).
"""

from __future__ import annotations

import random
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from filegrid.errors import AlreadyExists, ContentCollected, NoSuchPath, VersionConflict
from filegrid.simulation.actor import Act, Actor
from filegrid.simulation.linearizability import UNKNOWN, Kind, Operation
from filegrid.simulation.promises import BYTES_PROMISE, ERRORS_PROMISE, KEPT_PROMISE, Broken

if TYPE_CHECKING:
    from filegrid.simulation.campaign import Campaign

SHARED_FILES = 3
MOST_SHARED_OPERATIONS = 40
"""On one shared file, before another takes its place: long histories take long to judge."""

MOST_FILES = 30
"""In the folder of one client."""

SMALL_BYTES = (0, 50, 3000, 40_000)
LARGE_BYTES = 300_000
"""Of two chunks."""

OVERTAKEN = (VersionConflict, AlreadyExists, ContentCollected)
"""What an append ends with where somebody else changed the file meanwhile."""

HELD_SECONDS = (0.05, 0.5, 3.0)
"""For which a file stays open before it is read."""


def parts(value: str) -> list[str]:
    """What was written at once to a shared file, each."""
    return [f"{part};" for part in value.split(";")[:-1]]


class Shared:
    """The files that all clients change, and the histories of all of them.

    :ivar histories: operations by path.
    """

    def __init__(self) -> None:
        self.histories: dict[str, list[Operation]] = {}
        self._generations = [0] * SHARED_FILES

    def choose(self, rng: random.Random) -> str:
        """The path of one of those in use."""
        number = rng.randrange(SHARED_FILES)
        path = f"/shared-{number}.{self._generations[number]}"
        if len(self.histories.setdefault(path, [])) >= MOST_SHARED_OPERATIONS:
            self._generations[number] += 1
            path = f"/shared-{number}.{self._generations[number]}"
            self.histories[path] = []
        return path


class User(Actor):
    """One client with files of its own, which also changes those that all share.

    :ivar contents: what each file in its folder must hold, one of several where that is not known;
        None for a folder.
    :ivar absent: paths of which it is known that nothing is there; :ivar maybe: of which it is not.
    """

    def __init__(self, campaign: Campaign, name: str, rng: random.Random) -> None:
        super().__init__(campaign, name, rng)
        self.contents: dict[str, set[bytes] | None] = {}
        self.absent: set[str] = set()
        self.maybe: set[str] = set()
        self._acts: list[Act] = [
            *(self._create, self._create, self._replace, self._rename, self._remove, self._make),
            *(self._append, self._read, self._read, self._list),
            *(self._shared_write, self._shared_write, self._shared_read, self._shared_read),
            *(self._shared_append, self._shared_hold, self._shared_remove),
        ]

    def choose(self) -> Act:
        act = self._random.choice(self._acts)
        if len(self.contents) >= MOST_FILES and act in (self._create, self._make):
            return self._remove
        return act

    def _new_path(self) -> str:
        self._count += 1
        return f"{self.folder}/{self._count}"

    def _some_content(self) -> bytes:
        length = self._random.choice(SMALL_BYTES)
        if self._random.random() < 0.03:
            length = LARGE_BYTES
        return self._new_content(length)

    def _some_file(self) -> str | None:
        files = [path for path, contents in self.contents.items() if contents is not None]
        return self._random.choice(files) if files else None

    async def _make(self) -> None:
        path = self._new_path()
        self._note(path, await self._done(f"mkdir {path}", self._mkdir(path)), None)

    async def _create(self) -> None:
        path, content = self._new_path(), self._some_content()
        writing = self.client.write_bytes(path, content)
        self._note(path, await self._done(f"create {path} {len(content)}", writing), {content})

    def _note(self, path: str, done: bool | None, contents: set[bytes] | None) -> None:
        if done:
            self.contents[path] = contents
        else:
            (self.maybe if done is None else self.absent).add(path)

    async def _replace(self) -> None:
        path = self._some_file()
        if path is None:
            return
        content = self._some_content()
        writing = self.client.write_bytes(path, content, overwrite=True)
        done = await self._done(f"replace {path} {len(content)}", writing)
        contents = self.contents[path]
        assert contents is not None
        if done:
            # What is not known of an earlier change may still come, and over this one.
            self.contents[path] = {content} if len(contents) == 1 else contents | {content}
        elif done is None:
            self.contents[path] = contents | {content}

    async def _append(self) -> None:
        """One that were applied twice would be there twice."""
        path = self._some_file()
        contents = self.contents[path] if path is not None else None
        if path is None or contents is None or len(contents) != 1:
            return
        [content] = contents
        tail = self._some_content()
        appending = self.client.append(path, tail)
        done = await self._done(f"append {path} {len(tail)}", appending)
        if done is not False:
            self.contents[path] = {content + tail} if done else {content, content + tail}

    async def _rename(self) -> None:
        """One that were applied twice would find nothing to rename."""
        source = self._some_file()
        if source is None or len(self.contents[source] or ()) != 1:
            return
        target = self._new_path()
        done = await self._done(f"rename {source} {target}", self.client.rename(source, target))
        if done is False:
            self.absent.add(target)
            return
        contents = self.contents.pop(source)
        if done:
            self.absent.add(source)
            self.contents[target] = contents
        else:
            self.maybe |= {source, target}

    async def _remove(self) -> None:
        sure = [path for path, contents in self.contents.items() if len(contents or "1") == 1]
        if len(sure) < 4:
            return
        path = self._random.choice(sure)
        done = await self._done(f"remove {path}", self.client.remove(path))
        if done is not False:
            del self.contents[path]
            (self.absent if done else self.maybe).add(path)

    async def _read(self) -> None:
        path = self._some_file()
        if path is not None:
            await self._read_file(path, whole=self._random.random() < 0.5)

    async def _read_file(self, path: str, *, whole: bool) -> bool:
        contents = self.contents[path]
        assert contents is not None
        least = min(len(one) for one in contents)
        offset = 0 if whole else self._random.randrange(least)
        length = None if whole else self._random.randrange(1, least - offset + 1)
        try:
            data = await self._ask(f"read {path}", self.client.read_bytes(path, offset, length))
        except NoSuchPath:
            raise Broken(KEPT_PROMISE, f"{path} was acknowledged and is gone") from None
        if data is None:
            return False
        end = None if length is None else offset + length
        if data not in [one[offset:end] for one in contents]:
            raise Broken(BYTES_PROMISE, f"{path} has other contents than were acknowledged")
        return True

    async def _list(self) -> None:
        await self._list_folder()

    async def _list_folder(self) -> bool:
        try:
            listed = await self._ask("list", self._names())
        except NoSuchPath:
            raise Broken(KEPT_PROMISE, f"{self.folder} is gone") from None
        if listed is None:
            return False
        if missing := self.contents.keys() - listed:
            raise Broken(KEPT_PROMISE, f"{sorted(missing)} were acknowledged and are not there")
        if back := listed & (self.absent - self.maybe):
            raise Broken(KEPT_PROMISE, f"{sorted(back)} surely failed, or left, and are there")
        if strange := listed - self.contents.keys() - self.maybe:
            raise Broken(KEPT_PROMISE, f"nobody made {sorted(strange)}")
        return True

    async def _names(self) -> set[str]:
        return {stat.path async for stat in self.client.listdir(self.folder)}

    # What all change.

    async def _shared_write(self) -> None:
        path = self._campaign.shared.choose(self._random)
        value = self._new_value()
        writing = self.client.write_bytes(path, value.encode(), overwrite=True)
        await self._shared_change(path, f"write {path} {value}", Kind.WRITE, writing, value)

    async def _shared_append(self) -> None:
        path = self._campaign.shared.choose(self._random)
        value = self._new_value()
        appending = self.client.append(path, value.encode())
        try:
            await self._shared_change(path, f"append {path} {value}", Kind.APPEND, appending, value)
        except Broken as broken:
            if not isinstance(broken.__cause__, OVERTAKEN):
                raise

    async def _shared_remove(self) -> None:
        path = self._campaign.shared.choose(self._random)
        began = self._campaign.seconds
        try:
            removing = self.client.remove(path)
            await self._shared_change(path, f"remove {path}", Kind.WRITE, removing, None)
        except Broken as broken:
            if not isinstance(broken.__cause__, NoSuchPath):
                raise
            self._record(path, began, kind=Kind.READ, value=None)

    async def _shared_change(
        self,
        path: str,
        what: str,
        kind: Kind,
        change: Coroutine[Deferred[Any], Any, object],
        value: str | None,
    ) -> None:
        began = self._campaign.seconds
        done = await self._done(what, change)
        if done is not False:
            ended = self._campaign.seconds if done else UNKNOWN
            self._record(path, began, kind=kind, value=value, ended=ended)

    async def _shared_read(self) -> None:
        path = self._campaign.shared.choose(self._random)
        began = self._campaign.seconds
        value: str | None = None
        try:
            data = await self._ask(f"read {path}", self.client.read_bytes(path))
            if data is None:
                return
            value = data.decode()
        except NoSuchPath:
            pass
        self._campaign.trace.note(f"{self.name} read {path}: {value}")
        self._record(path, began, kind=Kind.READ, value=value)

    async def _shared_hold(self) -> None:
        """What is read later is what was there when the file was opened (S19)."""
        path = self._campaign.shared.choose(self._random)
        began = self._campaign.seconds
        try:
            content = await self._ask(f"open {path}", self.client.open_read(path))
        except NoSuchPath:
            self._record(path, began, kind=Kind.READ, value=None)
            return
        ended = self._campaign.seconds
        if content is None:
            return
        await self._rest(self._random.choice(HELD_SECONDS))
        data = await self._ask(f"read {path} as it was", content.pread(0, content.stat.size))
        if data is not None:
            value = data.decode()
            self._campaign.trace.note(f"{self.name} read {path} as it was at {ended:.4f}: {value}")
            self._record(path, began, kind=Kind.READ, value=value, ended=ended)

    def _new_value(self) -> str:
        """That nobody wrote before."""
        self._count += 1
        return f"{self.name}:{self._count};"

    def _record(
        self, path: str, began: float, *, kind: Kind, value: str | None, ended: float | None = None
    ) -> None:
        """:param ended: now, where it is not said."""
        self._campaign.shared.histories[path].append(
            Operation(
                client=self.name,
                began=began,
                ended=self._campaign.seconds if ended is None else ended,
                kind=kind,
                value=value,
            )
        )

    # In the end.

    async def check(self) -> None:
        """All that was acknowledged is there, whole; what surely failed is not.

        :raises Broken: where it is not so, or where the grid does not answer.
        """
        if self.contents and not await self._list_folder():
            raise Broken(ERRORS_PROMISE, f"{self.folder} cannot be listed after all was mended")
        for path, contents in self.contents.items():
            if contents is not None and not await self._read_file(path, whole=True):
                raise Broken(ERRORS_PROMISE, f"{path} cannot be read after all was mended")
