"""Credentials refuse bad files in one line, and take up renewed ones."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from twisted.logger import capturedLogs
from twisted.trial.unittest import SynchronousTestCase

from filegrid.errors import NotPermitted
from filegrid.model import Identity, Role
from filegrid.net.authority import Authority
from filegrid.net.credentials import Credentials
from tests.net.papers import DAY, GRID_ID, folder, last_year


class CredentialsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp())
        self.authority_file = folder() / "ours" / "ca.pem"
        self.use("alice")

    def use(self, name: str) -> None:
        shutil.copyfile(folder() / f"{name}.pem", self.file)

    def load(self) -> Credentials:
        return Credentials(self.file, self.authority_file)

    def refusal(self) -> str:
        text = str(self.assertRaises(NotPermitted, self.load))
        self.assertNotIn("\n", text)
        self.assertIn(str(self.file), text)
        return text

    def test_good(self) -> None:
        """Good files say who we are and until when."""
        credentials = self.load()
        self.assertEqual(credentials.identity, Identity(GRID_ID, Role.CLIENT, "alice"))
        left = credentials.expires_at.timestamp() - time.time()
        self.assertTrue(364 * DAY < left <= 365 * DAY)

    def test_missing(self) -> None:
        """A missing file is named, with the command that makes one."""
        self.file.unlink()
        self.assertIn("does not exist; issue one with: filegrid ca issue", self.refusal())

    def test_damaged(self) -> None:
        """A file without a certificate, or without a key, says which is missing."""
        whole = self.file.read_bytes()
        self.file.write_bytes(whole[:100])
        self.assertIn("no certificate", self.refusal())
        self.file.write_bytes(whole[: whole.index(b"-----BEGIN PRIVATE")])
        self.assertIn("no private key", self.refusal())

    def test_expired(self) -> None:
        """An expired certificate says when it ended and how to renew it."""
        self.use("old")
        text = self.refusal()
        self.assertIn("expired on 20", text)
        self.assertIn(f"filegrid ca renew {self.file}", text)

    def test_not_yet(self) -> None:
        """A certificate that is good only later points at the machine's clock."""
        error = self.assertRaises(
            NotPermitted, Credentials, self.file, self.authority_file, last_year
        )
        self.assertIn("clock", str(error))

    def test_other_authority(self) -> None:
        """A certificate of another authority is refused before any connection is made."""
        self.use("stranger")
        self.assertIn("not a certificate of the authority", self.refusal())

    def test_other_key(self) -> None:
        """A certificate with somebody else's key is refused."""
        pem, _, _ = self.file.read_bytes().partition(b"-----BEGIN PRIVATE")
        _, dashes, key = (folder() / "head-1.pem").read_bytes().partition(b"-----BEGIN PRIVATE")
        self.file.write_bytes(pem + dashes + key)
        self.assertIn("its key does not belong", self.refusal())

    def test_authority_is_no_identity(self) -> None:
        """The authority's own certificate opens nothing."""
        ours = folder() / "ours"
        self.file.write_bytes((ours / "ca.pem").read_bytes() + (ours / "ca.key").read_bytes())
        self.assertRaises(NotPermitted, self.load)


class ReloadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp())
        shutil.copyfile(folder() / "alice.pem", self.file)
        self.authority = Authority.load(folder() / "ours")
        self.credentials = Credentials(self.file, folder() / "ours" / "ca.pem")
        self.first = self.credentials.context(0.0)

    def test_unchanged(self) -> None:
        """While the files stay, so does the context."""
        self.assertIs(self.credentials.context(100.0), self.first)

    def test_renewed(self) -> None:
        """A renewed file is taken up within a second, and not looked for more often."""
        before = self.credentials.expires_at
        self.authority.renew(self.file, days=30)
        self.assertIs(self.credentials.context(0.9), self.first)
        self.assertIsNot(self.credentials.context(1.0), self.first)
        self.assertLess(self.credentials.expires_at, before)

    def test_renewed_while_idle(self) -> None:
        """Asking how long the certificate is good takes up a renewed one, as connecting does."""
        before = self.credentials.expires_ms(1.0)
        self.authority.renew(self.file, days=30)
        self.assertLess(self.credentials.expires_ms(2.0), before)

    def test_broken(self) -> None:
        """While the new file cannot be used the old one stays, and the log says why, once."""
        whole = self.file.read_bytes()
        self.file.write_bytes(whole[:50])
        with capturedLogs() as events:
            self.assertIs(self.credentials.context(1.0), self.first)
            self.assertIs(self.credentials.context(2.0), self.first)
        (event,) = events
        self.assertIn("holds no certificate", event["reason"])
        self.authority.issue(Role.CLIENT, "alice").write(self.file)
        self.assertIsNot(self.credentials.context(3.0), self.first)

    def test_removed(self) -> None:
        """A removed file does not stop a running service."""
        self.file.unlink()
        self.assertIs(self.credentials.context(1.0), self.first)

    def test_other_holder(self) -> None:
        """A file that turned into somebody else's is not taken up: a node does not change names."""
        self.authority.issue(Role.CLIENT, "mallory").write(self.file)
        with capturedLogs() as events:
            self.assertIs(self.credentials.context(1.0), self.first)
        self.assertIn("is for client mallory", events[0]["reason"])
