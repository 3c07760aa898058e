"""Two authorities and what they issued, made once for all tests."""

from __future__ import annotations

import tempfile
import time
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from OpenSSL import SSL

from filegrid.model import Role
from filegrid.net.authority import Authority
from filegrid.net.credentials import Credentials, make_context

GRID_ID = "0123abcd"
DAY = 86400.0


def long_ago() -> float:
    """When the authority was made."""
    return time.time() - 500 * DAY


def last_year() -> float:
    """When the expired certificate was still good."""
    return time.time() - 390 * DAY


@cache
def folder() -> Path:
    """Holds ours/ and theirs/, authorities of one grid id, and NAME.pem of each certificate."""
    root = Path(tempfile.mkdtemp(dir="."))
    Authority.create(root / "ours", GRID_ID, wall_seconds=long_ago)
    Authority.create(root / "theirs", GRID_ID)
    ours = Authority.load(root / "ours")
    ours.issue(Role.HEAD, "head-1").write(root / "head-1.pem")
    ours.issue(Role.CLIENT, "alice").write(root / "alice.pem")
    Authority.load(root / "theirs").issue(Role.HEAD, "stranger").write(root / "stranger.pem")
    past = Authority.load(root / "ours", long_ago)
    past.issue(Role.HEAD, "old").write(root / "old.pem")
    return root


def credentials(name: str) -> Credentials:
    """Of head-1, alice, stranger (of the other authority) or old (expired)."""
    root = folder()
    authority = root / ("theirs" if name == "stranger" else "ours") / "ca.pem"
    wall_seconds = last_year if name == "old" else time.time
    return Credentials(root / f"{name}.pem", authority, wall_seconds)


@cache
def nameless() -> SSL.Context:
    """For a peer whose certificate is of our authority and names nobody."""
    ours = folder() / "ours"
    authority = x509.load_pem_x509_certificate((ours / "ca.pem").read_bytes())
    authority_key = load_pem_private_key((ours / "ca.key").read_bytes(), None)
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
    like = x509.load_pem_x509_certificate((folder() / "alice.pem").read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateBuilder(
        like.issuer,
        like.subject,
        key.public_key(),
        1,
        like.not_valid_before_utc,
        like.not_valid_after_utc,
    )
    return make_context(builder.sign(authority_key, hashes.SHA256()), key, authority)


@cache
def credulous_stranger() -> SSL.Context:
    """For a peer with a certificate of the other authority that trusts everybody."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate_file(str(folder() / "stranger.pem"))
    context.use_privatekey_file(str(folder() / "stranger.pem"))
    return context
