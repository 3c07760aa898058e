"""A client whose folders say what holds in them: replication, quotas, and a trash.

It always knows exactly what must be there, in the trash, and counted. Once an answer stays out it
would not, and goes on with a new folder.
"""

from __future__ import annotations

import random
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred

from filegrid.client.stat import FolderPolicy, Trashed
from filegrid.errors import AlreadyExists, GridError, NoSpace, NoSuchPath
from filegrid.simulation.actor import Act, Actor
from filegrid.simulation.governed import Governed, Thrown
from filegrid.simulation.promises import (
    BYTES_PROMISE,
    ERRORS_PROMISE,
    KEPT_PROMISE,
    POLICY_PROMISE,
    Broken,
)

if TYPE_CHECKING:
    from filegrid.simulation.campaign import Campaign

MOST_BYTES = 9000
MOST_FOLDERS = 2
SHORT_SECONDS, LONG_SECONDS = 6, 3600
"""In the trash: what is to go within the run, and what is to stay."""

MOST_QUOTA_FILES = 8
MOST_QUOTA_BYTES = 40_000

FASTEST_RATE = 1.05
"""Of a head's clock: what is kept for a while is kept for so much less at most."""


class Steward(Actor):
    """One client, and the operator's orders for its folders."""

    def __init__(self, campaign: Campaign, name: str, rng: random.Random) -> None:
        super().__init__(campaign, name, rng)
        self._governed: Governed | None = None
        self._outside: dict[str, bytes] = {}  # taken from a trash to where no policy holds
        most = campaign.scenario.chunk_servers
        # Of few replicas the disks that may be lost are few as well: not in every run.
        few = rng.random() < 0.3
        choices = (None, None, *((2, 2) if few else ()), 4)
        self._replications = [one for one in choices if one is None or one <= most]

    def choose(self) -> Act:
        governed = self._governed
        if governed is None:
            return self._begin
        acts = [
            *(self._write, self._write, self._write, self._replace, self._remove, self._remove),
            *(self._restore, self._restore, self._look, self._change_quota, self._empty_trash),
            *(self._change_replication, self._remove_folder),
        ]
        return self._random.choice(acts)

    # Changes.

    async def _begin(self) -> None:
        governed = Governed(
            path=f"{self.folder}/{self._new_name()}",
            keep_seconds=self._random.choice((SHORT_SECONDS, LONG_SECONDS)),
            quota_files=self._random.randint(2, MOST_QUOTA_FILES),
            quota_bytes=self._random.randint(9500, MOST_QUOTA_BYTES),
            replication=self._random.choice(self._replications),
        )
        path = governed.path
        if not await self._done(f"mkdir {path}", self._mkdir(path)):
            return
        values = {
            "trash_seconds": governed.keep_seconds,
            "quota_files": governed.quota_files,
            "quota_bytes": governed.quota_bytes,
        }
        if governed.replication is not None:
            values["replication"] = governed.replication
        if await self._done(f"policy of {path} {values}", self._order(path, **values)):
            self._governed = governed

    def _order(self, path: str, **values: int) -> Coroutine[Deferred[Any], Any, object]:
        return self._campaign.operators.client.set_policy(path, unset=(), **values)

    async def _changed(
        self,
        what: str,
        change: Coroutine[Deferred[Any], Any, object],
        *,
        over_quota: bool = False,
        refusal: type[GridError] | None = None,
    ) -> bool:
        """Whether it was done; where nobody knows, the folder is left alone from now on.

        :param over_quota: its quota must refuse it; :param refusal: or this must come.
        """
        refused = False

        async def watched() -> None:
            nonlocal refused
            try:
                await change
            except GridError as error:
                is_quota = isinstance(error, NoSpace) and "quota" in str(error)
                if is_quota and not over_quota:
                    raise Broken(POLICY_PROMISE, f"{what}: {error}; it has room") from error
                refused = is_quota or (refusal is not None and isinstance(error, refusal))
                if not refused:
                    raise

        done = await self._done(what, watched())
        if refused:
            return False
        if done and (over_quota or refusal):
            raise Broken(POLICY_PROMISE, f"{what} was done, and must be refused")
        if done is None:
            self._governed = None
        return bool(done)

    async def _write(self) -> None:
        governed = self._needed()
        path = f"{governed.path}/{self._new_name()}"
        if self._random.random() < 0.3:
            if len(governed.folders) < MOST_FOLDERS:
                if await self._changed(f"mkdir {path}", self._mkdir(path)):
                    governed.folders.add(path)
                return
            path = f"{self._random.choice(sorted(governed.folders))}/{self._new_name()}"
        content = self._content_for(governed)
        over = governed.is_over(files=1, size=len(content))
        writing = self.client.write_bytes(path, content)
        if await self._changed(f"create {path} {len(content)}", writing, over_quota=over):
            governed.files[path] = content

    async def _replace(self) -> None:
        governed = self._needed()
        if not governed.files:
            return
        path = self._random.choice(list(governed.files))
        content = self._content_for(governed)
        old = governed.files[path]
        over = governed.is_over(files=0, size=len(content) - len(old))
        began = self._campaign.seconds
        writing = self.client.write_bytes(path, content, overwrite=True)
        if await self._changed(f"replace {path} {len(content)}", writing, over_quota=over):
            self._throw(governed, path, {"": old}, began)
            governed.files[path] = content

    async def _remove(self) -> None:
        governed = self._needed()
        if not governed.files:
            return
        path, now = self._random.choice(list(governed.files)), self._random.random() < 0.2
        began = self._campaign.seconds
        what = f"remove {path}{' now' if now else ''}"
        if await self._changed(what, self.client.remove(path, now=now)):
            content = governed.files.pop(path)
            if not now:
                self._throw(governed, path, {"": content}, began)

    async def _remove_folder(self) -> None:
        """With all that is in it."""
        governed = self._needed()
        if not governed.folders:
            return
        path, began = self._random.choice(sorted(governed.folders)), self._campaign.seconds
        if await self._changed(f"remove {path}", self.client.remove(path, recursive=True)):
            governed.folders.discard(path)
            inside = [one for one in governed.files if one.startswith(f"{path}/")]
            files = {one[len(path) :]: governed.files.pop(one) for one in inside}
            self._throw(governed, path, files, began)

    def _throw(self, governed: Governed, path: str, files: dict[str, bytes], began: float) -> None:
        kept_until = began + governed.keep_seconds / FASTEST_RATE
        governed.trash.append(Thrown(path=path, files=files, kept_until=kept_until))

    async def _restore(self) -> None:
        """To where it was, or to where no policy holds."""
        governed = self._needed()
        listed = await self._look_at_trash(governed)
        if not listed:
            return
        one = self._random.choice(listed)
        if one.kind == "file" and governed.steady and self._random.random() < 0.3:
            target = f"{self.folder}/{self._new_name()}"
            taken = await self._restored(one, target)
            if taken is not None:
                self._outside[target] = taken.files[""]
            return
        over = False
        refusal: type[GridError] | None = None
        if one.path in governed.files or one.path in governed.folders:
            refusal = AlreadyExists
        elif one.path.rpartition("/")[0] not in (governed.path, *governed.folders):
            refusal = NoSuchPath
        else:
            over = governed.is_over(files=one.files, size=one.bytes)
        taken = await self._restored(one, one.path, over_quota=over, refusal=refusal)
        if taken is not None:
            if one.kind == "folder":
                governed.folders.add(one.path)
            governed.files.update({one.path + below: data for below, data in taken.files.items()})

    async def _restored(
        self,
        one: Trashed,
        target: str,
        *,
        over_quota: bool = False,
        refusal: type[GridError] | None = None,
    ) -> Thrown | None:
        """What came back, if it did."""
        governed = self._needed()
        thrown = governed.thrown(one)
        what = f"restore {one.id} to {target}"
        restoring = self.client.restore(one.id, target)
        try:
            done = await self._changed(what, restoring, over_quota=over_quota, refusal=refusal)
        except Broken as broken:
            if not isinstance(broken.__cause__, NoSuchPath):
                raise
            listed = await self._look_at_trash(governed)
            if listed is not None and one.id in [each.id for each in listed]:
                raise
            return None  # it went meanwhile, with good reason
        if not done:
            return None
        governed.trash.remove(thrown)
        for below, data in thrown.files.items():
            await self._check_file(target + below, data)
        return thrown

    async def _empty_trash(self) -> None:
        """Of one thing in it."""
        governed = self._needed()
        listed = await self._look_at_trash(governed)
        if listed:
            one = self._random.choice(listed)
            thrown = governed.thrown(one)
            emptying = self._campaign.operators.client.empty_trash(one.id)
            if await self._changed(f"empty {one.id} {one.path}", emptying):
                thrown.kept_until = 0.0

    async def _change_quota(self) -> None:
        governed = self._needed()
        files = self._random.randint(2, MOST_QUOTA_FILES)
        order = self._order(governed.path, quota_files=files)
        if await self._changed(f"quota of {governed.path} {files}", order):
            governed.quota_files = files

    async def _change_replication(self) -> None:
        """Once in a folder: of replicas that go and come nobody can say how many were there."""
        governed = self._needed()
        replication = self._random.choice(self._replications)
        if replication is None or not governed.steady or governed.replication is not None:
            return
        order = self._order(governed.path, replication=replication)
        governed.steady = False
        if await self._changed(f"policy of {governed.path} {replication}", order):
            governed.replication = replication

    # Looks.

    def _needed(self) -> Governed:
        assert self._governed is not None
        return self._governed

    def _content_for(self, governed: Governed) -> bytes:
        """Its length tells it from all else that is there, or in the trash."""
        lengths = {len(data) for one in governed.trash for data in one.files.values()}
        lengths.update(map(len, governed.files.values()))
        while True:
            content = self._new_content(self._random.randrange(MOST_BYTES))
            if len(content) not in lengths:
                return content

    def _new_name(self) -> str:
        self._count += 1
        return str(self._count)

    async def _look(self) -> bool:
        """Whether there was an answer.

        :raises Broken: where anything is not as it must be.
        """
        governed = self._needed()
        try:
            found = await self._ask("walk", self._walk(governed.path))
            folders = await self._ask("policies", self.client.policies())
        except NoSuchPath:
            raise Broken(KEPT_PROMISE, f"something in {governed.path} is gone") from None
        if found is None or folders is None:
            return False
        if found != governed.files.keys() | governed.folders:
            differ = sorted(found ^ (governed.files.keys() | governed.folders))
            raise Broken(KEPT_PROMISE, f"{differ} are there, or not, as they must not be")
        said = {one.path: one for one in folders}
        self._check_policy(governed, said.get(governed.path))
        return await self._look_at_trash(governed) is not None

    async def _walk(self, path: str) -> set[str]:
        return {stat.path async for stat in self.client.walk(path)}

    def _check_policy(self, governed: Governed, said: FolderPolicy | None) -> None:
        wanted = (
            *(governed.replication, governed.keep_seconds),
            *(governed.quota_files, governed.quota_bytes, len(governed.files), governed.size),
        )
        found = said and (
            *(said.replication, said.trash_seconds),
            *(said.quota_files, said.quota_bytes, said.used_files, said.used_bytes),
        )
        if found != wanted:
            raise Broken(POLICY_PROMISE, f"{governed.path} says {found}, and should {wanted}")

    async def _look_at_trash(self, governed: Governed) -> list[Trashed] | None:
        """What is listed of it; None where there was no answer.

        :raises Broken: where something is missing, or strange.
        """
        listed = await self._ask("list the trash", self._list_trash(governed.path))
        if listed is None:
            return None
        there = [governed.thrown(one) for one in listed]
        left = [one for one in governed.trash if one not in there]
        lost = [one.path for one in left if self._campaign.seconds < one.kept_until]
        if lost:
            told = await self._ask("events", self.client.events())
            if told is None:
                return None
            if all(one["kind"] != "trash_yielded" for one in told["events"]):
                raise Broken(POLICY_PROMISE, f"the trash lost {lost} before their time")
        governed.trash = there
        return listed

    async def _list_trash(self, path: str) -> list[Trashed]:
        return [one async for one in self.client.list_trash() if one.path.startswith(f"{path}/")]

    # In the end.

    async def check(self) -> None:
        governed = self._governed
        if governed is not None and not await self._look():
            raise Broken(ERRORS_PROMISE, f"{governed.path} cannot be looked at")
        for path, content in (self._outside | (governed.files if governed else {})).items():
            if not await self._check_file(path, content):
                raise Broken(ERRORS_PROMISE, f"{path} cannot be read after all was mended")
        if governed is None:
            return
        becomes = self._campaign.becomes
        await becomes("files do not follow their folders", self._are_followed)
        if governed.keep_seconds == SHORT_SECONDS:
            await becomes("the trash keeps what is over its time", self._is_trash_empty)

    async def _check_file(self, path: str, content: bytes) -> bool:
        """Whether there was an answer.

        :raises Broken: where it is not there, or another one.
        """
        try:
            found = await self._ask(f"read {path}", self.client.read_bytes(path))
        except NoSuchPath:
            raise Broken(KEPT_PROMISE, f"{path} was acknowledged and is gone") from None
        if found not in (None, content):
            raise Broken(BYTES_PROMISE, f"{path} has other contents than were acknowledged")
        return found is not None

    async def _are_followed(self) -> bool:
        """Whether all files have the replication that they must have."""
        usual = self._campaign.scenario.replication
        wanted = dict.fromkeys(self._outside, usual)
        governed = self._needed()
        wanted |= dict.fromkeys(governed.files, governed.replication or usual)
        return all([await self._replication(path) == each for path, each in wanted.items()])

    async def _replication(self, path: str) -> int:
        return (await self.client.stat(path)).replication

    async def _is_trash_empty(self) -> bool:
        return await self._look_at_trash(self._needed()) == []
