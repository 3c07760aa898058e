"""The grid's certificates: P-256 keys, ECDSA, and the holder's identity in a URI.

A certificate says who its holder is in a URI among its alternative names:
``filegrid://GRID_ID/ROLE/NAME``. Pure functions: the time is passed in.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from filegrid.errors import InvalidRequest, NotPermitted
from filegrid.model import Identity, Role

Key = ec.EllipticCurvePrivateKey

_SKEW = timedelta(days=1)
"""Certificates begin this much before they were made: a machine's clock may be behind."""

_GRID_ID = re.compile(r"[a-z0-9-]{1,64}")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_URI = re.compile(
    rf"filegrid://(?P<grid>{_GRID_ID.pattern})"
    rf"/(?P<role>{'|'.join(role.value for role in Role)})/(?P<name>{_NAME.pattern})"
)
_BAD_X509 = (
    ValueError,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.UnsupportedGeneralNameType,
)
_NO_PATHS = (".", "..")
"""Names become names of files and folders."""


def identity_of(certificate: x509.Certificate) -> Identity:
    """Who the certificate says that its holder is.

    :raises NotPermitted: where it names no role in a grid, or more than one.
    """
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except _BAD_X509:
        raise NotPermitted("the certificate names no role in a grid") from None
    uris = names.value.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise NotPermitted(f"the certificate names {len(uris)} roles in a grid, not one")
    found = _URI.fullmatch(uris[0])
    if found is None or found["name"] in _NO_PATHS:
        raise NotPermitted("the certificate names no role in a grid", uris[0])
    return Identity(found["grid"], Role(found["role"]), found["name"])


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """The host names and addresses that a certificate of ours names beside the identity."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = names.get_values_for_type(x509.IPAddress)
    return [*names.get_values_for_type(x509.DNSName), *map(str, addresses)]


def grid_of(authority: x509.Certificate) -> str:
    """The id of the grid whose authority this is.

    :raises NotPermitted: where it is no grid's authority.
    """
    found = authority.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    if len(found) != 1 or not _GRID_ID.fullmatch(str(found[0].value)):
        raise NotPermitted("not the certificate of a grid's authority")
    return str(found[0].value)


def signed_by(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    """Whether `authority` itself signed `certificate`."""
    try:
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return True


def make_authority(grid_id: str, *, now: datetime, days: int) -> tuple[x509.Certificate, Key]:
    """A self-signed authority for the grid `grid_id`.

    :raises InvalidRequest: where `grid_id` is not 1 to 64 of a-z, 0-9 and ``-``.
    """
    if not _GRID_ID.fullmatch(grid_id):
        raise InvalidRequest("a grid id is 1 to 64 of a-z, 0-9 and -", repr(grid_id))
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, grid_id),
            x509.NameAttribute(NameOID.COMMON_NAME, "FileGrid authority"),
        ]
    )
    builder = _builder(subject, key, now, _after(now, days), issuer=subject, issuer_key=key)
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate, key


def make_certificate(
    authority: x509.Certificate,
    authority_key: Key,
    identity: Identity,
    *,
    now: datetime,
    days: int,
    hosts: Iterable[str] = (),
) -> tuple[x509.Certificate, Key]:
    """A new key and its certificate, which ends with the authority's own at the latest.

    :raises InvalidRequest: for a name that is not 1 to 64 of A-Z, a-z, 0-9, ``.``, ``_`` and
        ``-``, for a malformed host, or for `days` below one.
    """
    name = identity.name
    if not _NAME.fullmatch(name) or name in _NO_PATHS:
        raise InvalidRequest("a name is 1 to 64 of A-Z, a-z, 0-9, ., _ and -", repr(name))
    uri = f"filegrid://{identity.grid_id}/{identity.role.value}/{name}"
    names = [x509.UniformResourceIdentifier(uri), *map(_host, hosts)]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    last = min(_after(now, days), authority.not_valid_after_utc)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(subject, key, now, last, issuer=authority.subject, issuer_key=authority_key)
    purposes = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return certificate, key


def to_pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def key_to_pem(key: Key) -> bytes:
    """Unencrypted: nodes start with nobody there to type a passphrase."""
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _after(now: datetime, days: int) -> datetime:
    try:
        if days < 1:
            raise OverflowError
        return now + timedelta(days=days)
    except OverflowError:
        raise InvalidRequest("a certificate cannot be good for this long", f"{days} days") from None


def _builder(
    subject: x509.Name,
    key: Key,
    now: datetime,
    last: datetime,
    *,
    issuer: x509.Name,
    issuer_key: Key,
) -> x509.CertificateBuilder:
    public = key.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(last)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()),
            critical=False,
        )
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError:
        raise InvalidRequest("a host is a name in ASCII or an address", repr(host)) from None
