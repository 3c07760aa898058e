"""A file of the grid into a file of this machine."""

from __future__ import annotations

from collections.abc import Callable

from filegrid.client.content import Content
from filegrid.client.local import LocalTarget
from filegrid.client.window import Window
from filegrid.errors import IntegrityError
from filegrid.model import digest_over
from filegrid.runtime import Runtime

CHUNKS_IN_FLIGHT = 3
"""From different servers as a rule, each with a few MiB in memory."""


async def download(
    runtime: Runtime, content: Content, target: LocalTarget, moved: Callable[[int], None]
) -> None:
    """Fetch all of `content`, and give it its name once it is whole and durable.

    :param moved: told how many more bytes were written.
    :raises GridError: why it could not be; nothing is left behind, and the old file is as it was.
    """

    async def fetch(index: int) -> None:
        reader = content.chunk_reader(index)
        offset = index * content.stat.chunk_bytes
        try:
            while piece := await reader.next():
                await runtime.threads.run(target.write, piece, offset)
                offset += len(piece)
                moved(len(piece))
        finally:
            reader.close()

    try:
        async with Window(CHUNKS_IN_FLIGHT) as window:
            for index in range(content.stat.chunk_count):
                await window.add(fetch(index))
        digest = digest_over(await content.manifest.digests(content.stat.chunk_count))
        if digest.hex() != content.stat.digest:
            raise IntegrityError("the chunks are not those of the file", content.stat.path)
        await runtime.threads.run(target.publish)
    finally:
        target.discard()
