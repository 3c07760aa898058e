"""A user of a grid in a storm, who believes what the grid tells, and looks for it in the end."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from filegrid.client.grid import GridClient
from filegrid.errors import DeadlineExceeded, GridError, NoSuchPath, OutcomeUnknown, Unavailable

if TYPE_CHECKING:
    from tests.grid.storm import Storm

TIMEOUT_SECONDS = 10.0

_SURE = (Unavailable, DeadlineExceeded)
"""What says of a change that it was not applied."""


class Broken(AssertionError):
    """A promise was not kept."""


class User:
    """Changes what only this user changes, and reads what anybody wrote."""

    def __init__(self, storm: Storm, name: str) -> None:
        self.name = name
        self.stopping = False
        self._storm = storm
        self._random = storm.misfortune.random
        self._count = 0
        runtime, identity = storm.grid.client_runtime(self.name)
        self._runtime = runtime
        self.client = GridClient(
            runtime, identity, [*storm.grid.head_addresses], timeout_seconds=TIMEOUT_SECONDS
        )
        self.there: dict[str, bytes | None] = {}  # None: a folder
        self.absent: set[str] = set()
        self.maybe: set[str] = set()
        self.register = f"/register-{name}.0"
        self.acknowledged = -1
        self.attempted = -1
        self.doubts: dict[str, set[int]] = {}
        self.longest_pause = 0.0
        self.operations = 0

    async def work(self) -> None:
        rng = self._random
        while not self.stopping:
            act = rng.choice((self._make, self._create, self._rename, self._write, self._read))
            begun = self._runtime.clock.seconds()
            await act()
            self.operations += 1
            pause = self._runtime.clock.seconds() - begun
            self.longest_pause = max(self.longest_pause, pause)
            await self._runtime.sleep(rng.choice((0.0, 0.01, 0.1)))

    def _new_path(self) -> str:
        self._count += 1
        return f"/{self.name}-{self._count}"

    async def _change(
        self, what: str, change: Coroutine[Deferred[Any], Any, object]
    ) -> bool | None:
        """Whether it was done; None where nobody knows.

        Whatever else comes of it is not what the caller deserves: these all have to succeed.
        """
        try:
            await change
        except OutcomeUnknown:
            self._storm.misfortune.note(f"{what}: unknown")
            return None
        except _SURE as error:
            self._storm.misfortune.note(f"{what}: {error}")
            return False
        except GridError as error:
            raise Broken(f"{self.name}: {what}: {type(error).__name__}: {error}") from error
        return True

    def _note(self, path: str, done: bool | None, content: bytes | None) -> None:
        if done:
            self.there[path] = content
        else:
            (self.maybe if done is None else self.absent).add(path)

    async def _make(self) -> None:
        path = self._new_path()
        self._note(path, await self._change(path, self.client.mkdir(path)), None)

    async def _create(self) -> None:
        path = self._new_path()
        content = self._random.randbytes(self._random.choice((0, 50, 3000)))
        done = await self._change(path, self.client.write_bytes(path, content))
        self._note(path, done, content)

    async def _rename(self) -> None:
        """One that was applied twice would find nothing to rename."""
        if not self.there:
            return
        source = self._random.choice(sorted(self.there))
        target = self._new_path()
        what = f"{source} -> {target}"
        done = await self._change(what, self.client.rename(source, target))
        if done is False:
            self.absent.add(target)
            return
        content = self.there.pop(source)
        if done:
            self.absent.add(source)
            self.there[target] = content
        else:
            self.maybe |= {source, target}

    async def _write(self) -> None:
        """A register of which every version is newer than the one before."""
        number = self.attempted = self.attempted + 1
        path = self.register
        change = self.client.write_bytes(path, b"%d" % number, overwrite=True)
        done = await self._change(f"{path} = {number}", change)
        if done:
            self.acknowledged = number
        elif done is None:
            # It may come late, and over whatever is written next: that is what unknown means.
            before = {self.acknowledged} if self.acknowledged >= 0 else set()
            self.doubts[path] = {number} | before
            self.register = f"/register-{self.name}.{self.attempted + 1}"
            self.acknowledged = -1

    async def _read(self) -> None:
        """Somebody's register: never older than what was acknowledged before the question."""
        other = self._random.choice(self._storm.users)
        path, least = other.register, other.acknowledged
        try:
            value = int(await self.client.read_bytes(path))
        except NoSuchPath:
            if least >= 0:
                raise Broken(f"{self.name}: {path} is gone, which was {least}") from None
            return
        except (Unavailable, DeadlineExceeded) as error:
            self._storm.misfortune.note(f"{path}?: {error}")
            return
        if value < least or value > other.attempted:
            raise Broken(f"{self.name}: {path} is {value}, and {least} was acknowledged before")

    async def check(self) -> None:
        """What was acknowledged is there, what surely failed is not."""
        listing = {stat.path: stat async for stat in self.client.listdir("/")}
        for path, content in self.there.items():
            if path not in listing:
                raise Broken(f"{path} was acknowledged and is not there")
            if content is not None and await self.client.read_bytes(path) != content:
                raise Broken(f"{path} has other contents than were acknowledged")
        for path in self.absent - self.maybe:
            if path in listing:
                raise Broken(f"{path} surely failed, or was renamed, and is there")
        ours = {path for path in listing if path.startswith(f"/{self.name}-")}
        if strange := ours - set(self.there) - self.maybe:
            raise Broken(f"nobody made {strange}")
        if self.acknowledged >= 0:
            await self._check_register(self.register, {self.acknowledged})
        for path, allowed in self.doubts.items():
            await self._check_register(path, allowed)

    async def _check_register(self, path: str, allowed: set[int]) -> None:
        try:
            value = int(await self.client.read_bytes(path))
        except NoSuchPath:
            if min(allowed) == max(allowed) and path != self.register:
                return  # a first write that nobody knows of
            raise Broken(f"{path} is gone, which was one of {allowed}") from None
        if value not in allowed:
            raise Broken(f"{path} is {value} in the end, and not one of {allowed}")
