"""The bytes of several small chunks, gathered as they come."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from filegrid.errors import DeadlineExceeded, GridError, InvalidRequest
from filegrid.protocol.connection import DataReceived
from filegrid.protocol.wire.frame_pb2 import Data

MOST_BYTES = 4 * 1024 * 1024
"""Of one parcel: it is held in memory until it is on disk."""

MOST_CHUNKS = 256

SILENCE_SECONDS = 30.0
"""A sender that has not sent all of it after so long has left it."""


class Parcel:
    """A :class:`~filegrid.net.link.Sink` of known length.

    :param wanted_bytes: how many are to come.
    """

    def __init__(self, clock: IReactorTime, wanted_bytes: int) -> None:
        self._clock = clock
        self._wanted_bytes = wanted_bytes
        self._received_bytes = 0
        self._pieces: list[memoryview] = []
        self._complete = False
        self._error: GridError | None = None
        self._waiting: Deferred[None] | None = None

    def data_received(self, data: DataReceived) -> None:
        if data.section != Data.SECTION_CONTENT or self._error is not None:
            return
        self._received_bytes += len(data.piece)
        self._pieces.append(data.piece)
        self._complete = data.last
        if self._received_bytes > self._wanted_bytes or (
            data.last and self._received_bytes < self._wanted_bytes
        ):
            self.data_lost(InvalidRequest("the chunks are not as long as was announced"))
        elif data.last:
            self._wake()

    def data_lost(self, error: GridError) -> None:
        self._error = self._error or error
        self._pieces.clear()
        self._wake()

    async def whole(self) -> memoryview:
        """All of it.

        :raises GridError: where it does not come.
        """
        if not self._complete and self._error is None:
            self._waiting = Deferred()
            late = DeadlineExceeded(f"not all came in {SILENCE_SECONDS:g} s")
            timer = self._clock.callLater(SILENCE_SECONDS, self.data_lost, late)
            try:
                await self._waiting
            finally:
                if timer.active():
                    timer.cancel()
        if self._error is not None:
            raise self._error
        return memoryview(b"".join(self._pieces))

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.callback(None)
