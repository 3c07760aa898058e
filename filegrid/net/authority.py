"""The grid's own certificate authority.

An authority is a folder: ``ca.pem``, its key ``ca.key`` (0600), and ``issued/`` with the newest
certificate of every role and name, for the listing.

Certificate and key of a node or user live in one file, so that one rename replaces both and a
reader never sees the one without the other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from enum import Enum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from filegrid.errors import AlreadyExists, DiskFailed, NotPermitted
from filegrid.model import Identity, Role
from filegrid.net.certificates import (
    Key,
    grid_of,
    hosts_of,
    identity_of,
    key_to_pem,
    make_authority,
    make_certificate,
    signed_by,
    to_pem,
)

__all__ = ["Authority", "Certificate", "Issued", "State", "identity_of"]

CA_DAYS = 3650
CERTIFICATE_DAYS = 365
SOON_DAYS = 30
"""A certificate with less than this to run is listed as one that expires soon."""


class State(str, Enum):
    """How a certificate stands towards its last day."""

    VALID = "valid"
    EXPIRES_SOON = "expires soon"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate and its private key, both PEM."""

    pem: bytes
    key_pem: bytes

    def write(self, file: Path) -> None:
        """Put both into `file` (0600), in one atomic and durable step.

        :raises DiskFailed: where that cannot be done; what was there before still is.
        """
        _write_whole(file, self.pem + self.key_pem, mode=0o600)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A line of the authority's record."""

    role: Role
    name: str
    serial: str
    not_after: datetime
    state: State


class Authority:
    """The authority of one grid, kept in `folder`. Its methods block.

    :param wall_seconds: now, in seconds since 1970: certificates speak of calendar days.
    """

    def __init__(
        self,
        folder: Path,
        certificate: x509.Certificate,
        key: Key,
        wall_seconds: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self.certificate = certificate
        self.grid_id = grid_of(certificate)
        self._key = key
        self._wall_seconds = wall_seconds

    @property
    def certificate_file(self) -> Path:
        """What every node and user needs, to know the grid's certificates by."""
        return self.folder / "ca.pem"

    @classmethod
    def create(
        cls,
        folder: Path,
        grid_id: str,
        days: int = CA_DAYS,
        wall_seconds: Callable[[], float] = time.time,
    ) -> Authority:
        """A new authority for the grid `grid_id`.

        :raises AlreadyExists: where the folder holds an authority, or the key of one.
        :raises InvalidRequest: where `grid_id` is not 1 to 64 of a-z, 0-9 and ``-``.
        """
        for taken in (folder / "ca.pem", folder / "ca.key"):
            if taken.exists():
                raise AlreadyExists("there is an authority already", str(taken))
        certificate, key = make_authority(grid_id, now=_date(wall_seconds()), days=days)
        _write_whole(folder / "ca.key", key_to_pem(key), mode=0o600)
        _write_whole(folder / "ca.pem", to_pem(certificate), mode=0o644)
        return cls(folder, certificate, key, wall_seconds)

    @classmethod
    def load(cls, folder: Path, wall_seconds: Callable[[], float] = time.time) -> Authority:
        """:raises NotPermitted: where `folder` holds no authority that can be used."""
        try:
            certificate = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
            key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        except OSError as error:
            raise NotPermitted(
                f"no authority to use here: {error.strerror}",
                str(error.filename),
                advice="make one with: filegrid ca init --home DIR",
            ) from None
        except (TypeError, ValueError) as error:
            raise NotPermitted(f"the authority is damaged: {error}", str(folder)) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise NotPermitted("not the key of a grid's authority", str(folder / "ca.key"))
        if key.public_key() != certificate.public_key():
            raise NotPermitted("ca.key and ca.pem do not belong together", str(folder))
        return cls(folder, certificate, key, wall_seconds)

    def issue(
        self, role: Role, name: str, *, days: int = CERTIFICATE_DAYS, hosts: Iterable[str] = ()
    ) -> Certificate:
        """A new key and its certificate, which ends with the authority's own at the latest.

        :param name: 1 to 64 of A-Z, a-z, 0-9, ``.``, ``_`` and ``-``.
        :param hosts: host names and addresses to name as well; FileGrid itself looks at none.
        :raises InvalidRequest: for another name, or `days` below one.
        :raises NotPermitted: where the authority has expired.
        """
        now = _date(self._wall_seconds())
        last = self.certificate.not_valid_after_utc
        if now >= last:
            raise NotPermitted(
                f"the authority expired on {last:%Y-%m-%d}", str(self.certificate_file)
            )
        certificate, key = make_certificate(
            self.certificate,
            self._key,
            Identity(self.grid_id, role, name),
            now=now,
            days=days,
            hosts=hosts,
        )
        record = self.folder / "issued" / f"{role.value}-{name}.pem"
        _write_whole(record, to_pem(certificate), mode=0o644)
        return Certificate(to_pem(certificate), key_to_pem(key))

    def renew(self, file: Path, *, days: int = CERTIFICATE_DAYS) -> Identity:
        """Replace the certificate and the key in `file` by new ones for the same holder.

        :raises NotPermitted: where `file` holds no certificate of this authority.
        """
        old = _read(file)
        if not signed_by(old, self.certificate):
            raise NotPermitted(
                f"not a certificate of the authority in {self.certificate_file}", str(file)
            )
        identity = identity_of(old)
        self.issue(identity.role, identity.name, days=days, hosts=hosts_of(old)).write(file)
        return identity

    def listing(self) -> list[Issued]:
        """The newest certificate of every role and name, in that order."""
        return [self._line(_read(file)) for file in sorted((self.folder / "issued").glob("*.pem"))]

    def _line(self, certificate: x509.Certificate) -> Issued:
        identity = identity_of(certificate)
        return Issued(
            role=identity.role,
            name=identity.name,
            serial=f"{certificate.serial_number:x}",
            not_after=certificate.not_valid_after_utc,
            state=_state(certificate.not_valid_after_utc - _date(self._wall_seconds())),
        )


def _state(left: timedelta) -> State:
    if left <= timedelta(0):
        return State.EXPIRED
    return State.EXPIRES_SOON if left < timedelta(days=SOON_DAYS) else State.VALID


def _date(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc).replace(microsecond=0)


def _read(file: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(file.read_bytes())
    except OSError as error:
        raise NotPermitted(f"cannot be read: {error.strerror}", str(file)) from None
    except ValueError:
        raise NotPermitted("holds no certificate", str(file)) from None


def _write_whole(file: Path, contents: bytes, *, mode: int) -> None:
    """Make or replace `file` so that a reader sees the old contents or the new, never less."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with open(os.open(temporary, flags, mode), "wb") as out:
                _keep_owner(file, out.fileno())
                out.write(contents)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(file)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(file.parent)
    except OSError as error:
        raise DiskFailed(f"cannot be written: {error.strerror}", str(file)) from None


def _keep_owner(file: Path, descriptor: int) -> None:
    """Renewed by root, a file must stay readable for the service that it belongs to."""
    if file.exists() and file.stat().st_uid != os.geteuid():
        os.fchown(descriptor, file.stat().st_uid, file.stat().st_gid)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
