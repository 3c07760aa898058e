"""The authority issues, renews and lists; identities are read strictly."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from pathlib import Path

from click.testing import CliRunner, Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from filegrid.cli.ca import ca
from filegrid.errors import AlreadyExists, DiskFailed, InvalidRequest, NotPermitted
from filegrid.model import Identity, Role
from filegrid.net.authority import Authority, State, identity_of
from filegrid.net.certificates import hosts_of, signed_by
from tests.net.papers import DAY, GRID_ID, folder


def _mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def _with_uris(*uris: str) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    plain = folder() / "alice.pem"
    like = x509.load_pem_x509_certificate(plain.read_bytes())
    builder = (
        x509.CertificateBuilder()
        .subject_name(like.subject)
        .issuer_name(like.issuer)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(like.not_valid_before_utc)
        .not_valid_after(like.not_valid_after_utc)
    )
    if uris:
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(u) for u in uris])
        builder = builder.add_extension(names, critical=False)
    return builder.sign(key, hashes.SHA256())


class IssuingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.now = time.time()
        self.authority = Authority.create(
            self.folder, GRID_ID, days=400, wall_seconds=lambda: self.now
        )

    def test_identity_round_trip(self) -> None:
        """A certificate names its holder's grid, role and name, and is signed by the authority."""
        issued = Authority.load(self.folder).issue(Role.CHUNK, "chunk-1.rack_2")
        certificate = x509.load_pem_x509_certificate(issued.pem)
        self.assertEqual(identity_of(certificate), Identity(GRID_ID, Role.CHUNK, "chunk-1.rack_2"))
        self.assertTrue(signed_by(certificate, self.authority.certificate))

    def test_keys_are_private(self) -> None:
        """The authority's key and a holder's file are readable by their owner alone."""
        file = self.folder / "new" / "alice.pem"
        self.authority.issue(Role.CLIENT, "alice").write(file)
        self.assertEqual(_mode(file), 0o600)
        self.assertEqual(_mode(self.folder / "ca.key"), 0o600)

    def test_second_authority(self) -> None:
        """An authority is never overwritten."""
        self.assertRaises(AlreadyExists, Authority.create, self.folder, GRID_ID)

    def test_grid_ids(self) -> None:
        """A grid id that could not stand in a certificate's URI is refused."""
        for bad in ("", "UPPER", "a/b", "x" * 65):
            self.assertRaises(InvalidRequest, Authority.create, Path(self.mktemp()), bad)

    def test_names(self) -> None:
        """A name that could not stand in a URI or a path is refused."""
        for bad in ("", ".", "..", "a/b", "a b", "ä", "x" * 65, "a\n"):
            self.assertRaises(InvalidRequest, self.authority.issue, Role.HEAD, bad)

    def test_days(self) -> None:
        """A certificate for less than a day, or past the end of the calendar, is refused."""
        for bad in (0, -1, 10**9):
            self.assertRaises(InvalidRequest, self.authority.issue, Role.HEAD, "h", days=bad)

    def test_ends_with_authority(self) -> None:
        """No certificate outlives its authority, and an expired authority issues none."""
        issued = self.authority.issue(Role.HEAD, "h", days=4000)
        certificate = x509.load_pem_x509_certificate(issued.pem)
        end = self.authority.certificate.not_valid_after_utc
        self.assertEqual(certificate.not_valid_after_utc, end)
        self.now += 401 * DAY
        self.assertRaises(NotPermitted, self.authority.issue, Role.HEAD, "h")

    def test_load_errors(self) -> None:
        """A missing, damaged or mixed authority is named, not met as a traceback."""
        self.assertRaises(NotPermitted, Authority.load, Path(self.mktemp()))
        other = Authority.create(Path(self.mktemp()), GRID_ID)
        (self.folder / "ca.key").write_bytes((other.folder / "ca.key").read_bytes())
        self.assertRaises(NotPermitted, Authority.load, self.folder)
        (self.folder / "ca.key").write_bytes(b"torn")
        self.assertRaises(NotPermitted, Authority.load, self.folder)

    def test_unwritable(self) -> None:
        """Where the file cannot be written, the error names it."""
        blocker = self.folder / "file"
        blocker.write_bytes(b"")
        issued = self.authority.issue(Role.HEAD, "h")
        self.assertRaises(DiskFailed, issued.write, blocker / "h.pem")


class RenewalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.now = time.time()
        self.authority = Authority.create(self.folder, GRID_ID, wall_seconds=lambda: self.now)
        self.file = self.folder / "alice.pem"

    def test_renew(self) -> None:
        """Renewal keeps holder and hosts, changes the key, and leaves one file and no scraps."""
        hosts = ["files.example", "10.0.0.1", "::1"]
        self.authority.issue(Role.CLIENT, "alice", hosts=hosts).write(self.file)
        before = x509.load_pem_x509_certificate(self.file.read_bytes())
        self.now += 366 * DAY
        renewed = self.authority.renew(self.file)
        after = x509.load_pem_x509_certificate(self.file.read_bytes())
        self.assertEqual(renewed, identity_of(before))
        self.assertEqual(identity_of(after), identity_of(before))
        self.assertEqual(hosts_of(after), hosts)
        self.assertNotEqual(after.public_key(), before.public_key())
        self.assertEqual(_mode(self.file), 0o600)
        self.assertEqual(
            sorted(file.name for file in self.folder.iterdir()),
            ["alice.pem", "ca.key", "ca.pem", "issued"],
        )

    def test_owner(self) -> None:
        """A service's file still belongs to the service after root has renewed it."""
        if os.geteuid() != 0:
            raise SkipTest("only root can give files away")
        self.authority.issue(Role.HEAD, "h").write(self.file)
        os.chown(self.file, 1234, 1234)
        self.authority.renew(self.file)
        self.assertEqual((self.file.stat().st_uid, self.file.stat().st_gid), (1234, 1234))

    def test_not_ours(self) -> None:
        """A certificate of another authority, and what is none, are not renewed."""
        self.assertRaises(NotPermitted, self.authority.renew, folder() / "stranger.pem")
        self.assertRaises(NotPermitted, self.authority.renew, self.folder / "ca.key")
        self.assertRaises(NotPermitted, self.authority.renew, self.folder / "nothing.pem")

    def test_listing(self) -> None:
        """The listing has each holder once, and says which certificates end soon or did."""
        self.authority.issue(Role.HEAD, "h", days=100)
        self.authority.issue(Role.CLIENT, "alice", days=10)
        self.authority.issue(Role.CLIENT, "alice", days=20)
        self.now += 15 * DAY
        found = [(line.role, line.name, line.state) for line in self.authority.listing()]
        self.assertEqual(
            found,
            [(Role.CLIENT, "alice", State.EXPIRES_SOON), (Role.HEAD, "h", State.VALID)],
        )
        self.now += 5 * DAY
        self.assertEqual(self.authority.listing()[0].state, State.EXPIRED)


class IdentityTests(SynchronousTestCase):
    def test_missing(self) -> None:
        """A certificate without an identity, or with two, identifies nobody."""
        one = f"filegrid://{GRID_ID}/head/a"
        self.assertRaises(NotPermitted, identity_of, _with_uris())
        self.assertRaises(NotPermitted, identity_of, _with_uris(one, one))

    def test_malformed(self) -> None:
        """Only a whole, well-formed URI of ours is an identity."""
        for bad in (
            "https://example.org/head/a",
            "filegrid://G/head/a",
            "filegrid://g/king/a",
            "filegrid://g/head/",
            "filegrid://g/head/..",
            "filegrid://g/head/a/b",
            "filegrid://g/head/a\n",
            " filegrid://g/head/a",
        ):
            self.assertRaises(NotPermitted, identity_of, _with_uris(bad))

    @given(st.text(alphabet=st.characters(codec="ascii"), max_size=20))
    @settings(max_examples=25, deadline=None, database=None)
    def test_any_tail(self, tail: str) -> None:
        """Whatever follows the role is either the holder's name as it stands, or refused."""
        certificate = _with_uris(f"filegrid://{GRID_ID}/head/{tail}")
        with contextlib.suppress(NotPermitted):
            self.assertEqual(identity_of(certificate), Identity(GRID_ID, Role.HEAD, tail))


class CommandTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.home = Path(self.mktemp())
        self.run_ca("init")

    def run_ca(self, *words: str) -> Result:
        return CliRunner().invoke(ca, [*words, "--home", str(self.home)])

    def listed(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = json.loads(self.run_ca("list", "--json").stdout)[
            "certificates"
        ]
        return found

    def test_issue_and_renew(self) -> None:
        """What was issued is listed as JSON; --all gives every file in the home a new one."""
        self.assertEqual(self.run_ca("issue", "head", "head-1", "--days", "9").exit_code, 0)
        (before,) = self.listed()
        self.assertEqual((before["name"], before["state"]), ("head-1", "expires soon"))
        self.assertEqual(self.run_ca("renew", "--all").exit_code, 0)
        (after,) = self.listed()
        self.assertEqual((after["name"], after["state"]), ("head-1", "valid"))
        file = self.home / "certificates" / "head-1.pem"
        renewed = x509.load_pem_x509_certificate(file.read_bytes())
        self.assertEqual(f"{renewed.serial_number:x}", after["serial"])

    def test_issue_twice(self) -> None:
        """Issuing does not overwrite a certificate that is in use."""
        self.run_ca("issue", "client", "alice")
        self.assertIsInstance(self.run_ca("issue", "operator", "alice").exception, AlreadyExists)

    def test_usage(self) -> None:
        """Renewing nothing in particular is a mistake of usage."""
        self.assertEqual(self.run_ca("renew").exit_code, 2)
