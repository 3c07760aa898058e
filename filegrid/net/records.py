"""TLS records: ciphertext in, plaintext out, and back, in as few copies and calls as can be.

OpenSSL works on memory here, whole batches at a time: one large read of the socket is decrypted
in a tight loop into one buffer, and a large piece is encrypted by one call into another. The
public methods of pyOpenSSL would copy every record of 16 KiB twice more and make an object of it,
which costs as much as the cipher; so the two inner loops call the functions beneath them.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Iterator
from typing import Any

from cryptography.hazmat.bindings._rust import _openssl
from OpenSSL import SSL

from filegrid.runtime import Bytes

_ffi, _lib = SSL._ffi, SSL._lib  # type: ignore[attr-defined]  # what pyOpenSSL itself calls

_read = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)(
    int(_ffi.cast("uintptr_t", _ffi.addressof(_openssl.lib, "SSL_read")))
)
"""SSL_read, keeping Python's lock: it takes microseconds, and whoever gives the lock away for each
record of 16 KiB waits for it, where other threads work, longer than for the record."""

BATCH_BYTES = 512 * 1024
"""Read from a socket at once, and decrypted at once: less, and what Python does for each batch
costs more than the bytes; more, and they fall out of the processor's cache."""

SLAB_BYTES = BATCH_BYTES + 32 * 1024
"""Holds a batch with what TLS adds to it, or takes from it."""

SEND_BYTES = 256 * 1024
"""Encrypted at once; more only waits for the socket."""

VIEW_BYTES = SLAB_BYTES // 2
"""Less than this is copied out, so that what is kept takes at most twice its size."""

MOST_SPARE_SLABS = 32
"""Kept to be used again; what is taken above that number is made and dropped."""


class Slabs:
    """Buffers that are used again once nobody holds a view of them.

    A bytearray refuses to change its length while a view of it is alive, and that tells.
    """

    def __init__(self) -> None:
        self._slabs: deque[bytearray] = deque()
        self.raw = bytearray(BATCH_BYTES)  # what one read of a socket fills, and is used up at once

    def take(self) -> bytearray:
        """A slab of which nobody has a view; whoever takes no view leaves it to the next."""
        slabs = self._slabs
        if slabs and _is_free(slabs[-1]):
            return slabs[-1]  # used last, and still in the processor's cache
        if slabs and _is_free(slabs[0]):
            slabs.rotate(-1)
            return slabs[-1]
        slab = bytearray(SLAB_BYTES)
        slabs.append(slab)
        if len(slabs) > MOST_SPARE_SLABS:
            slabs.popleft()
        return slab


def _is_free(slab: bytearray) -> bool:
    try:
        slab.append(slab.pop())
    except BufferError:
        return False
    return True


class Records:
    """OpenSSL's part of one connection.

    :param connection: made without a socket, its side set.
    :ivar ended: whether the peer has said that nothing more comes (close_notify).
    """

    def __init__(self, connection: SSL.Connection, slabs: Slabs) -> None:
        self.connection = connection
        self.ended = False
        self._ssl = connection._ssl
        self._outgoing = connection._from_ssl
        self._slabs = slabs
        self._fed: Any = None  # what OpenSSL reads now
        # Otherwise each call of SSL_write ends after one record.
        _lib.SSL_clear_mode(self._ssl, _lib.SSL_MODE_ENABLE_PARTIAL_WRITE)

    def feed(self, ciphertext: Bytes) -> None:
        """Let the handshake or :meth:`decrypt` use up what came from the peer.

        OpenSSL reads it where it lies, until :meth:`fed`, which has to follow in every case.
        """
        self._fed = _ffi.from_buffer(ciphertext)
        self._read_from(_lib.BIO_new_mem_buf(self._fed, len(ciphertext)))

    def fed(self) -> None:
        """The ciphertext is used up; its buffer is its owner's again."""
        self._read_from(_lib.BIO_new(_lib.BIO_s_mem()))
        fed, self._fed = self._fed, None
        _ffi.release(fed)

    def decrypt(self) -> Iterator[Bytes]:
        """Plaintext of all that was fed, in pieces of up to a slab.

        :raises OpenSSL.SSL.Error: after the last good byte, where the peer breaks TLS.
        """
        ssl = int(_ffi.cast("uintptr_t", self._ssl))
        error: SSL.Error | None = None
        full = True
        while full and error is None:
            slab = self._slabs.take()
            filled = 0
            with _ffi.from_buffer(slab) as data:
                target = int(_ffi.cast("uintptr_t", data))
                while (count := _read(ssl, target + filled, SLAB_BYTES - filled)) > 0:
                    filled += count
                    if filled == SLAB_BYTES:
                        break
            full = count > 0
            if not full:  # ask why at once: OpenSSL's error queue is the whole thread's
                error = self._reason(count)
            if filled >= VIEW_BYTES:
                yield memoryview(slab)[:filled].toreadonly()
            elif filled:
                yield bytes(memoryview(slab)[:filled])
        if error is not None:
            raise error

    def encrypt(self, plaintext: memoryview) -> None:
        """Add to the outgoing ciphertext; after the handshake, and not empty."""
        with _ffi.from_buffer(plaintext) as data:
            written = 0
            while written < len(plaintext):
                count = _lib.SSL_write(self._ssl, data + written, len(plaintext) - written)
                if count <= 0:
                    self.connection._raise_ssl_error(self._ssl, count)
                written += count

    def take_outgoing(self) -> memoryview:
        """Ciphertext for the peer; call it again until it is empty."""
        slab = self._slabs.take()
        with _ffi.from_buffer(slab) as target:
            count = _lib.BIO_read(self._outgoing, target, SLAB_BYTES)
        return memoryview(slab)[: max(0, count)]

    def _read_from(self, incoming: Any) -> None:
        if incoming == _ffi.NULL:
            raise MemoryError("OpenSSL has no memory")
        _lib.BIO_set_mem_eof_return(incoming, -1)  # at its end there is more to come
        _lib.SSL_set_bio(self._ssl, incoming, self._outgoing)  # which frees the one before

    def _reason(self, count: int) -> SSL.Error | None:
        """Why there is no more plaintext; None where there may be some later."""
        try:
            self.connection._raise_ssl_error(self._ssl, count)
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.ended = True
        except SSL.Error as error:
            return error
        return None
