"""A file of the grid into a file of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from filegrid.client.content import Content
from filegrid.client.local import LocalTarget, local_errors, open_target, write_whole
from filegrid.client.window import Window
from filegrid.errors import IntegrityError
from filegrid.model import BLOCK_BYTES, digest_over
from filegrid.runtime import Runtime

CHUNKS_IN_FLIGHT = 3
"""From different servers as a rule, each with a few MiB in memory."""

SMALL_BYTES = BLOCK_BYTES
"""A file up to this length is written by one call of a thread: each costs as much as its bytes."""

Moved = Callable[[int], None]


async def to_path(
    runtime: Runtime, content: Content, path: Path, *, overwrite: bool, moved: Moved
) -> None:
    """Fetch all of `content` into the file `path`, which appears whole or not at all.

    :param overwrite: whether a file that is there may be replaced.
    :param moved: told how many more bytes were written.
    :raises GridError: why it could not be; nothing is left behind, and the old file is as it was.
    """
    token = f"{runtime.random.getrandbits(32):08x}"
    if content.stat.size <= SMALL_BYTES:
        data = await content.pread(0, content.stat.size)
        await _check(content)
        await runtime.threads.run(lambda: write_whole(path, data, overwrite=overwrite, token=token))
        moved(len(data))
        return
    target = await runtime.threads.run(lambda: open_target(path, overwrite=overwrite, token=token))
    if isinstance(target, LocalTarget):
        try:
            await _fill(runtime, content, target, moved)
            await runtime.threads.run(target.publish)
        finally:
            target.discard()
    else:
        try:
            await to_stream(runtime, content, target, moved)
        finally:
            target.close()


async def to_stream(runtime: Runtime, content: Content, stream: BinaryIO, moved: Moved) -> None:
    """Write all of `content` to a file object, in order, in a thread."""
    reader = content.reader()
    try:
        while pieces := await reader.batch():
            await runtime.threads.run(_write, stream, pieces)
            moved(sum(len(piece) for piece in pieces))
    except Exception:
        reader.close()
        raise


async def _fill(runtime: Runtime, content: Content, target: LocalTarget, moved: Moved) -> None:
    async def fetch(index: int) -> None:
        reader = content.chunk_reader(index)
        offset = index * content.stat.chunk_bytes
        try:
            while pieces := await reader.batch():
                await runtime.threads.run(target.write, pieces, offset)
                length = sum(len(piece) for piece in pieces)
                offset += length
                moved(length)
        except Exception:
            reader.close()
            raise

    async with Window(CHUNKS_IN_FLIGHT) as window:
        for index in range(content.stat.chunk_count):
            await window.add(fetch(index))
    await _check(content)


async def _check(content: Content) -> None:
    """:raises IntegrityError: where the manifest is not that of the file."""
    digest = digest_over(await content.manifest.digests(content.stat.chunk_count))
    if digest.hex() != content.stat.digest:
        raise IntegrityError("its chunks do not make up its digest", content.stat.path)


def _write(stream: BinaryIO, pieces: list[memoryview]) -> None:
    with local_errors(getattr(stream, "name", "the stream")):
        for view in pieces:
            while view:
                view = view[stream.write(view) :]
