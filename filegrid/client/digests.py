"""Block digests of chunks that were read lately."""

from __future__ import annotations

from collections import OrderedDict

from filegrid.hashing import BlockVerifier
from filegrid.model import ChunkId

MOST_CHUNKS = 64
"""A chunk of 64 MiB has 32 KiB of block digests: 2 MiB in all."""


class DigestCache:
    """Keeps the verifiers of chunks, so that random reads need not fetch the digests again."""

    def __init__(self) -> None:
        self._verifiers: OrderedDict[ChunkId, BlockVerifier] = OrderedDict()

    def get(self, chunk_id: ChunkId) -> BlockVerifier | None:
        if chunk_id in self._verifiers:
            self._verifiers.move_to_end(chunk_id)
        return self._verifiers.get(chunk_id)

    def put(self, chunk_id: ChunkId, verifier: BlockVerifier) -> None:
        self._verifiers[chunk_id] = verifier
        if len(self._verifiers) > MOST_CHUNKS:
            self._verifiers.popitem(last=False)
