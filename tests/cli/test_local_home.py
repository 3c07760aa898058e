"""The folder of a grid on one machine."""

from __future__ import annotations

import socket
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from filegrid.cli.local_grid import LocalGrid
from filegrid.cli.local_home import Home, Shape, check_same, load_home, save_home
from filegrid.cli.local_make import free_ports, make_home
from filegrid.config import load, load_client
from filegrid.errors import (
    AlreadyExists,
    InvalidRequest,
    NoSuchPath,
    Unavailable,
    UnsupportedVersion,
)
from filegrid.model import Role
from filegrid.net.credentials import Credentials

SHAPE = Shape(
    heads=1,
    health=0,
    chunk_servers=4,
    racks=3,
    base_port=7100,
    settings={"grid.chunk_bytes": "65536", "scrub.days": "7", "election.lease_seconds": "1"},
)


class HomeTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()


class MakeTests(HomeTest):
    """What make_home leaves in the folder."""

    def test_configurations(self) -> None:
        """Each node's file loads, with its own port, rack and certificate, and the settings."""
        make_home(self.folder, SHAPE)
        head = load(self.folder / "etc" / "head-1.toml", "head")
        self.assertEqual(head.grid.chunk_bytes, 65536)
        self.assertEqual(head.election.lease_seconds, 1.0)
        racks = []
        for number in range(1, 5):
            made = load(self.folder / "etc" / f"chunk-{number}.toml", "chunk")
            racks.append(made.node.rack)
            self.assertEqual(made.node.heads, (head.node.listen,))
            self.assertEqual(made.node.listen.port, 7100 + number)
            self.assertEqual(made.node.data, self.folder / "nodes" / f"chunk-{number}")
            self.assertEqual((made.scrub.days, made.grid.chunk_bytes), (7.0, 65536))
            identity = Credentials(made.tls.certificate, made.tls.authority).identity
            self.assertEqual((identity.role, identity.name), (Role.CHUNK, f"chunk-{number}"))
        self.assertEqual(racks, ["dc1/r1", "dc1/r2", "dc1/r3", "dc1/r1"])

    def test_users(self) -> None:
        """There is a configuration for clients and one for the operator."""
        make_home(self.folder, SHAPE)
        for file, role in (("grid.toml", Role.CLIENT), ("operator.toml", Role.OPERATOR)):
            made = load_client(self.folder / file)
            self.assertEqual([str(head) for head in made.grid.heads], ["127.0.0.1:7100"])
            self.assertEqual(made.grid.chunk_bytes, 65536)
            identity = Credentials(made.tls.certificate, made.tls.authority).identity
            self.assertEqual((identity.role, identity.grid_id), (role, made.grid.id))

    def test_layout(self) -> None:
        """The folder holds what its description says, and home.json says what was made."""
        made = make_home(self.folder, SHAPE)
        self.assertEqual(
            sorted(path.name for path in self.folder.iterdir()),
            [
                "ca",
                "certificates",
                "etc",
                "grid.toml",
                "home.json",
                "log",
                "nodes",
                "operator.toml",
                "run",
            ],
        )
        self.assertEqual(load_home(self.folder), made)
        self.assertFalse(made.created)

    def test_movable(self) -> None:
        """A grid's folder can be moved as a whole."""
        make_home(self.folder, SHAPE)
        moved = self.folder.rename(self.folder.with_name("moved"))
        made = load(moved / "etc" / "chunk-1.toml", "chunk")
        self.assertTrue(made.tls.certificate.exists() and made.tls.authority.exists())

    def test_occupied(self) -> None:
        """A folder that holds anything is left alone."""
        self.folder.mkdir(parents=True)
        (self.folder / "thesis.txt").touch()
        error = self.assertRaises(AlreadyExists, make_home, self.folder, SHAPE)
        self.assertIn("thesis.txt", str(error))
        self.assertEqual([path.name for path in self.folder.iterdir()], ["thesis.txt"])

    def test_interrupted(self) -> None:
        """What an interrupted run left behind is no obstacle."""
        (self.folder / ".making" / "ca").mkdir(parents=True)
        (self.folder / ".making" / "ca" / "ca.key").touch()
        make_home(self.folder, SHAPE)
        self.assertFalse((self.folder / ".making").exists())

    def test_refused_before_anything_is_made(self) -> None:
        """A shape that cannot be is refused while the folder does not exist yet."""
        for shape in (
            Shape(heads=2),
            Shape(heads=0),
            Shape(health=2),
            Shape(chunk_servers=0),
            Shape(racks=0),
            Shape(base_port=65535),
            Shape(settings={"grid.replication": "0"}),
            Shape(settings={"grid.nonsense": "0"}),
            Shape(settings={"node.name": "all"}),
        ):
            self.assertRaises(InvalidRequest, make_home, self.folder, shape)
            self.assertFalse(self.folder.exists())

    def test_free_ports(self) -> None:
        """Ports are different, and not of those that outgoing connections get."""
        ports = free_ports(20)
        self.assertEqual(len(set(ports)), 20)
        self.assertTrue(all(1024 < port < 32768 for port in ports))

    def test_taken_port(self) -> None:
        """A port that is taken is found before anything is made, so that another can be given."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            shape = Shape(heads=1, health=0, chunk_servers=1, base_port=port - 1)
            error = self.assertRaises(Unavailable, LocalGrid(self.folder).make, shape)
        self.assertIn("--base-port", str(error))
        self.assertFalse(self.folder.exists())


class SameTests(HomeTest):
    """Flags of `up` on a grid that exists."""

    home = Home(shape=SHAPE, ports={})

    def test_same_or_left_out(self) -> None:
        """Flags that are left out, or say the same again, are fine."""
        check_same(self.home, {"heads": None, "racks": None}, {})
        check_same(self.home, {"heads": 1, "base_port": 7100}, {"scrub.days": "7"})

    def test_contradiction(self) -> None:
        """A flag that says something else is refused with what the grid was made with."""
        error = self.assertRaises(InvalidRequest, check_same, self.home, {"chunk_servers": 5}, {})
        self.assertIn("--chunk-servers 5: this grid was made with 4", str(error))
        for settings in ({"scrub.days": "8"}, {"grid.replication": "2"}):
            self.assertRaises(InvalidRequest, check_same, self.home, {}, settings)


class LoadTests(HomeTest):
    """home.json."""

    def test_no_home(self) -> None:
        """A folder without home.json is no grid."""
        error = self.assertRaises(NoSuchPath, load_home, self.folder)
        self.assertIn("filegrid up", str(error))

    def test_newer(self) -> None:
        """A format of a newer release is refused by name (S24)."""
        self.folder.mkdir(parents=True)
        save_home(self.folder, Home(shape=SHAPE, ports={}))
        file = self.folder / "home.json"
        file.write_text(file.read_text().replace('"format": 1', '"format": 2'))
        self.assertRaises(UnsupportedVersion, load_home, self.folder)
        file.write_text("{")
        self.assertRaises(InvalidRequest, load_home, self.folder)
