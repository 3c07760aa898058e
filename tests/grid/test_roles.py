"""A certificate opens what its role may do, and nothing else."""

from __future__ import annotations

from google.protobuf.message import Message

from filegrid.errors import NotPermitted
from filegrid.model import Identity, Role
from filegrid.net.dial import dial, hello_of
from filegrid.net.link import Link
from filegrid.protocol.frames import Plane
from filegrid.protocol.wire import chunk_pb2, election_pb2, head_pb2, replication_pb2, values_pb2
from filegrid.protocol.wire.frame_pb2 import Done
from filegrid.runtime import Runtime
from filegrid.simulation.disk import SimulatedDisk
from tests.grid.case import GridCase


class Roles(GridCase):
    def runtime(self, identity: Identity) -> Runtime:
        return self.grid.runtime(identity, SimulatedDisk(self.grid.random))

    def link(self, identity: Identity, target: str, plane: Plane) -> Link:
        role = Role.HEAD if target.startswith("head") else Role.CHUNK
        address = self.grid.machine(target).settings.node.listen
        hello = hello_of(identity)
        return self.run_(dial(self.runtime(identity), address, plane=plane, role=role, hello=hello))

    def refused(self, link: Link, request: Message) -> None:
        with self.assertRaises(NotPermitted) as raised:
            self.run_(link.call(request, Done, timeout_seconds=2))
        self.assertIn("does not open", str(raised.exception))

    def test_client_at_a_head(self) -> None:
        """A client cannot pose as a chunk server, a head or an operator."""
        identity = Identity("simulated", Role.CLIENT, "mallory")
        link = self.link(identity, "head-1", Plane.CONTROL)
        for request in (
            chunk_pb2.Join(),
            chunk_pb2.Changes(),
            replication_pb2.AppendEntries(),
            replication_pb2.InstallState(),
            replication_pb2.HandOver(head="head-1"),
            election_pb2.ElectionMessage(),
            values_pb2.EmptyTrash(),
        ):
            self.refused(link, request)
        link.close()

    def test_client_at_a_chunk_server(self) -> None:
        """A client writes, reads and inspects chunks, and gives no orders."""
        identity = Identity("simulated", Role.CLIENT, "mallory")
        link = self.link(identity, "chunk-1", Plane.DATA)
        for request in (
            chunk_pb2.DiscardChunks(),
            chunk_pb2.CopyChunks(),
            chunk_pb2.Heartbeat(),
            chunk_pb2.Inventory(),
        ):
            self.refused(link, request)
        link.close()

    def test_chunk_server_at_a_head(self) -> None:
        """A chunk server cannot touch files, nor what only heads may do."""
        identity = Identity("simulated", Role.CHUNK, "chunk-9")
        link = self.link(identity, "head-1", Plane.CONTROL)
        for request in (
            values_pb2.OpenSession(),
            values_pb2.Remove(path="/x"),
            head_pb2.Stat(path="/"),
            head_pb2.List(path="/"),
            replication_pb2.AppendEntries(),
        ):
            self.refused(link, request)
        link.close()

    def test_head_on_the_data_plane(self) -> None:
        """Not even a head's certificate gives orders over the data plane: they come by its link."""
        identity = Identity("simulated", Role.HEAD, "head-9")
        link = self.link(identity, "chunk-1", Plane.DATA)
        self.refused(link, chunk_pb2.DiscardChunks())
        link.close()

    def test_another_grid(self) -> None:
        """A certificate of another grid does not get past the handshake."""
        with self.assertRaises(NotPermitted):
            self.link(Identity("other", Role.CLIENT, "me"), "head-1", Plane.CONTROL)

    def test_session_of_another_client(self) -> None:
        """A session is its opener's alone."""
        opened = self.run_(self.client.access.session.opened())
        link = self.link(Identity("simulated", Role.CLIENT, "mallory"), "head-1", Plane.CONTROL)
        once = values_pb2.Once(session=opened.id, sequence=1)
        request = values_pb2.MakeFolder(path="/stolen")
        with self.assertRaises(NotPermitted):
            self.run_(link.call(request, values_pb2.Node, timeout_seconds=2, once=once))
        link.close()
