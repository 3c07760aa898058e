"""Who we are, and by which authority we know the others: the files behind every TLS context."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.logger import Logger

from filegrid.errors import NotPermitted
from filegrid.model import Identity
from filegrid.net.certificates import Key, grid_of, identity_of, signed_by

LOOK_SECONDS = 1.0
"""Files are looked at for changes once in this time at most, however many connections are made."""

CIPHERS = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""All three are beyond breaking; the first costs the least."""

VERIFY_BOTH = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT

_Stamp = tuple[int, int, int] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    identity: Identity
    expires_at: datetime
    context: SSL.Context


class Credentials:
    """Our certificate, its key, and the authority of the grid; read again when renewed.

    :param certificate_file: our certificate and its key, PEM, in one file.
    :param authority_file: the certificate of the grid's authority, PEM.
    :param wall_seconds: now, in seconds since 1970: certificates speak of calendar days.
    :raises filegrid.errors.NotPermitted: where a file is missing, damaged or expired, the
        certificate is not of this authority, or the key is not the certificate's.
    """

    _log = Logger()

    def __init__(
        self,
        certificate_file: str | Path,
        authority_file: str | Path,
        wall_seconds: Callable[[], float] = time.time,
    ) -> None:
        self.certificate_file = Path(certificate_file)
        self.authority_file = Path(authority_file)
        self._wall_seconds = wall_seconds
        self._look_at = float("-inf")
        self._stamps = self._look()
        self._loaded = self._load()

    @property
    def identity(self) -> Identity:
        return self._loaded.identity

    @property
    def expires_at(self) -> datetime:
        """When our certificate ends, in UTC."""
        return self._loaded.expires_at

    def context(self, now: float) -> SSL.Context:
        """TLS 1.3 with our certificate, for peers with a certificate of our authority only.

        Renewed files are taken up here; while they cannot be used, the old ones stay, and the
        log says why.

        :param now: the runtime clock's seconds.
        """
        self._renew(now)
        return self._loaded.context

    def expires_ms(self, now: float) -> int:
        """When our certificate ends, in milliseconds since 1970; renewed files are taken up.

        :param now: the runtime clock's seconds.
        """
        self._renew(now)
        return round(self.expires_at.timestamp() * 1000)

    def _renew(self, now: float) -> None:
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            stamps = self._look()
            if stamps != self._stamps:
                self._stamps = stamps
                self._reload()

    def _reload(self) -> None:
        try:
            loaded = self._load()
            if loaded.identity != self.identity:
                raise NotPermitted(
                    f"is for {loaded.identity}, and this is {self.identity}",
                    str(self.certificate_file),
                )
        except NotPermitted as error:
            self._log.error("renewed certificate not taken up: {reason}", reason=str(error))
        else:
            self._loaded = loaded
            self._log.info(
                "renewed certificate taken up, good until {expires}", expires=loaded.expires_at
            )

    def _look(self) -> tuple[_Stamp, _Stamp]:
        return _stamp(self.certificate_file), _stamp(self.authority_file)

    def _load(self) -> _Loaded:
        pem = _read(self.certificate_file, "issue one with: filegrid ca issue")
        certificate = _certificate(pem, self.certificate_file)
        authority = _certificate(
            _read(self.authority_file, "copy ca.pem from the machine that holds the authority"),
            self.authority_file,
        )
        key = self._key(pem, certificate)
        if not signed_by(certificate, authority):
            raise NotPermitted(
                f"is not a certificate of the authority in {self.authority_file}",
                str(self.certificate_file),
                advice="take both files from the same grid",
            )
        self._refuse_expired(authority, self.authority_file, "make the grid a new authority")
        self._refuse_expired(
            certificate,
            self.certificate_file,
            f"renew it with: filegrid ca renew {self.certificate_file} --home DIR",
        )
        identity = identity_of(certificate)
        if identity.grid_id != grid_of(authority):
            raise NotPermitted("is of another grid", str(self.certificate_file))
        return _Loaded(
            identity=identity,
            expires_at=min(certificate.not_valid_after_utc, authority.not_valid_after_utc),
            context=make_context(certificate, key, authority),
        )

    def _key(self, pem: bytes, certificate: x509.Certificate) -> Key:
        try:
            key = load_pem_private_key(pem, None)
        except (TypeError, ValueError):
            raise NotPermitted(
                "holds no private key that can be read",
                str(self.certificate_file),
                advice="it has the certificate and its unencrypted key in one file",
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or (
            key.public_key() != certificate.public_key()
        ):
            raise NotPermitted(
                "its key does not belong to its certificate",
                str(self.certificate_file),
                advice="put back the file as it was issued, or renew it",
            )
        return key

    def _refuse_expired(self, certificate: x509.Certificate, file: Path, advice: str) -> None:
        now = datetime.fromtimestamp(self._wall_seconds(), timezone.utc)
        if now >= certificate.not_valid_after_utc:
            when = f"{certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
            raise NotPermitted(f"expired on {when}", str(file), advice=advice)
        if now < certificate.not_valid_before_utc:
            when = f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
            raise NotPermitted(
                f"is good only from {when} on", str(file), advice="set this machine's clock"
            )


def make_context(
    certificate: x509.Certificate, key: Key, authority: x509.Certificate
) -> SSL.Context:
    """For either side: TLS 1.3 alone, `authority` alone, and never a peer without certificate.

    Sessions are not resumed, so every connection shows a certificate that is good today.
    """
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_tls13_ciphersuites(CIPHERS)
    context.set_options(SSL.OP_NO_TICKET)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.use_certificate(certificate)
    context.use_privatekey(key)
    store = context.get_cert_store()
    assert store is not None  # OpenSSL makes one with every context
    store.add_cert(X509.from_cryptography(authority))
    context.set_verify(VERIFY_BOTH)
    return context


def _stamp(file: Path) -> _Stamp:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _read(file: Path, advice: str) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise NotPermitted("does not exist", str(file), advice=advice) from None
    except OSError as error:
        raise NotPermitted(f"cannot be read: {error.strerror}", str(file)) from None


def _certificate(pem: bytes, file: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem)
    except ValueError:
        raise NotPermitted("holds no certificate", str(file)) from None
