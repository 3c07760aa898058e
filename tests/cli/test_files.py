"""The commands for files, over a simulated grid."""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import filegrid
from filegrid.cli.main import run
from filegrid.client.blocking import Grid
from tests.client.blocking import BlockingCase
from tests.grid.case import CHUNK, content


class CommandCase(BlockingCase):
    """:ivar asked: the timeouts with which commands connected."""

    def setUp(self) -> None:
        super().setUp()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.config = self.folder / "grid.toml"
        self.config.write_text("")
        self.asked: list[float | None] = []
        self.patch(filegrid, "connect", self.connect)

    def connect(self, config: object, *, timeout_seconds: float | None = None) -> Grid:
        self.asked.append(timeout_seconds)
        name = f"command-{len(self.asked)}"
        return Grid(self.new_client(name, timeout_seconds or 30), self.runner)

    def result(self, *arguments: object, stdin: bytes = b"") -> tuple[int, bytes, str]:
        """Exit code, standard output and standard error."""
        out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", err)
        self.patch(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        code = run(["--grid", str(self.config), *map(str, arguments)])
        out.flush()
        printed = out.buffer.getvalue()
        return code, printed, err.getvalue()

    def do(self, *arguments: object, stdin: bytes = b"") -> str:
        """Standard output of a command that ends well and says nothing else."""
        code, out, err = self.result(*arguments, stdin=stdin)
        self.assertEqual((code, err), (0, ""))
        return out.decode()

    def json(self, *arguments: object) -> Any:
        return json.loads(self.do(*arguments, "--json"))

    def fails(self, *arguments: object) -> tuple[int, str]:
        """Exit code and the one line of an error."""
        code, out, err = self.result(*arguments)
        self.assertEqual((out, err.count("\n")), (b"", 1))
        return code, err.rstrip("\n")

    def local(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(data)
        return path


class Transfers(CommandCase):
    def test_put_and_get(self) -> None:
        """A file goes up and comes back; neither command replaces anything unless forced."""
        data = content(2 * CHUNK + 1)
        local = self.local("f", data)
        self.do("put", local, "/f", "--replication", "2")
        self.assertEqual(self.blocking.stat("/f").replication, 2)
        code, _, err = self.result("put", local, "/many", "--replication", "9")
        self.assertEqual(code, 0)
        self.assertIn("5 chunk servers can have replicas, and 9 are asked for", err)
        back = self.folder / "back"
        self.do("get", "/f", back)
        self.assertEqual(back.read_bytes(), data)
        self.assertEqual(self.fails("put", local, "/f")[0], 4)
        self.assertEqual(self.fails("get", "/f", back)[0], 4)
        local.write_bytes(b"new")
        self.do("put", "--force", local, "/f")
        self.do("get", "--force", "/f", back)
        self.assertEqual(back.read_bytes(), b"new")

    def test_into_folders(self) -> None:
        """Where the target is a folder, the file goes into it under its own name."""
        self.do("mkdir", "/d")
        local = self.local("f", b"data")
        self.do("put", local, "/d")
        self.do("put", local, "/", "--force")
        self.assertEqual(self.do("ls", "-R"), "/:\nd\nf\n\n/d:\nf\n")
        target = self.folder / "target"
        target.mkdir()
        self.do("get", "/d/f", target)
        self.assertEqual((target / "f").read_bytes(), b"data")

    def test_streams(self) -> None:
        """A dash is the standard stream."""
        self.do("put", "-", "/f", stdin=b"piped \xff")
        self.assertEqual(self.result("get", "/f", "-"), (0, b"piped \xff", ""))
        code, _, err = self.result("put", "-", "/f", stdin=b"again")
        self.assertEqual((code, err.count("\n")), (4, 1))
        self.do("put", "-", "/f", "--force", stdin=b"again")
        self.assertEqual(self.do("cat", "/f"), "again")

    def test_folders(self) -> None:
        """With -r a folder goes up and comes back; where a file fails the others go on."""
        source = self.folder / "source"
        (source / "sub").mkdir(parents=True)
        (source / "sub" / "f").write_bytes(b"1")
        (source / "g").write_bytes(b"2")
        os.mkfifo(source / "pipe")
        code, out, err = self.result("put", "-r", source, "/copy")
        self.assertEqual((code, out, err.count("\n")), (1, b"", 1))
        self.assertIn("pipe", err)
        self.do("get", "-r", "/copy", self.folder / "back")
        self.assertEqual((self.folder / "back" / "sub" / "f").read_bytes(), b"1")
        code, _, err = self.result("get", "-r", "/copy", self.folder / "back")
        self.assertEqual((code, err.count("\n")), (4, 2))
        self.assertEqual(self.fails("put", source, "/x")[0], 1)
        self.assertIn("-r", self.fails("get", "/copy", self.folder / "x")[1])

    def test_missing(self) -> None:
        """What is not there, on either side, is exit code 3 and named."""
        for arguments in (
            ("put", self.folder / "no-such", "/f"),
            ("get", "/no-such", self.folder / "f"),
            ("put", self.local("f", b""), "/no-such/f"),
        ):
            code, line = self.fails(*arguments)
            self.assertEqual(code, 3)
            self.assertIn("no-such", line)

    def test_timeout(self) -> None:
        """--timeout bounds the waiting for the grid."""
        for machine in self.grid.chunk_servers:
            machine.kill()
        begun = self.grid.clock.seconds()
        code, line = self.fails("put", self.local("f", b"x"), "/f", "--timeout", "3")
        self.assertEqual((code, self.asked), (5, [3.0]))
        self.assertLess(self.grid.clock.seconds() - begun, 10)
        self.assertIn("chunk servers", line)


class Names(CommandCase):
    def setUp(self) -> None:
        super().setUp()
        self.do("mkdir", "-p", "/d/e")
        self.put("/d/f", b"12345")
        self.put("/d/bell\a", b"")

    def test_ls(self) -> None:
        """Names are listed in order, escaped where a terminal would not show them."""
        self.assertEqual(self.do("ls", "/d"), "bell\\x07\ne\nf\n")
        self.assertEqual(self.do("ls", "/d/f"), "/d/f\n")
        self.assertEqual(self.do("ls", "-R", "/d"), "/d:\nbell\\x07\ne\nf\n\n/d/e:\n")
        lines = self.do("ls", "-l", "/d").splitlines()
        self.assertTrue(lines[1].startswith("d "))
        self.assertRegex(lines[2], r"^-  3 +5 \d{4}-\d\d-\d\d \d\d:\d\d:\d\d f$")

    def test_ls_json(self) -> None:
        """With --json there is a list of objects, the names as they are."""
        listed = self.json("ls", "/d")
        self.assertEqual([one["path"] for one in listed], ["/d/bell\a", "/d/e", "/d/f"])
        self.assertEqual((listed[2]["kind"], listed[2]["size"]), ("file", 5))
        self.assertEqual(len(self.json("ls", "-R")), 4)
        self.assertEqual([one["name"] for one in self.json("ls", "/d/f")], ["f"])

    def test_stat(self) -> None:
        """stat shows a file as it is, with --json where each replica lies."""
        self.put("/two", content(CHUNK + 1))
        found = self.json("stat", "/two")
        stat = self.blocking.stat("/two")
        self.assertEqual((found["digest"], found["size"]), (stat.digest, CHUNK + 1))
        self.assertEqual([chunk["length"] for chunk in found["chunks"]], [CHUNK, 1])
        for replica in found["chunks"][0]["replicas"]:
            self.assertEqual(set(replica), {"server", "state", "file", "offset", "verified"})
            disk = self.grid.machine(replica["server"]).disk
            file = disk.open(f"/data/{replica['file']}")
            self.assertEqual(file.pread(CHUNK, replica["offset"]), content(CHUNK + 1)[:CHUNK])
        self.assertIn("digest", self.do("stat", "/two"))
        self.assertIn("folder", self.do("stat", "/d"))
        self.assertEqual(self.json("stat", "/d")["chunks"], [])

    def test_stat_of_a_server_that_is_away(self) -> None:
        """A replica whose server does not answer is shown as suspect, its place unknown."""
        holder = self.holders("/d/f")[0]
        self.grid.machine(holder).kill()
        replicas = self.json("stat", "/d/f")["chunks"][0]["replicas"]
        (away,) = [one for one in replicas if one["server"] == holder]
        self.assertEqual((away["state"], away["file"], away["offset"]), ("suspect", None, None))

    def test_cat(self) -> None:
        """cat prints a file or a part of it."""
        self.assertEqual(self.do("cat", "/d/f"), "12345")
        self.assertEqual(self.do("cat", "/d/f", "--offset", "1", "--length", "2"), "23")
        self.assertEqual(self.fails("cat", "/d")[0], 1)

    def test_mkdir(self) -> None:
        """mkdir makes folders, with -p their parents, and goes on after one that exists."""
        self.assertEqual(self.fails("mkdir", "/x/y")[0], 3)
        code, _, err = self.result("mkdir", "/d", "/new")
        self.assertEqual((code, err.count("\n")), (4, 1))
        self.do("mkdir", "-p", "/d", "/x/y", "/new/")
        self.assertEqual(self.do("ls"), "d\nnew\nx\n")

    def test_mv(self) -> None:
        """mv renames, moves into folders, and replaces a file only when forced."""
        self.do("mv", "/d/f", "/d/e")
        self.put("/g", b"other")
        self.assertEqual(self.fails("mv", "/g", "/d/e/f")[0], 4)
        self.do("mv", "--force", "/g", "/d/e/f")
        self.assertEqual(self.read("/d/e/f"), b"other")
        self.do("mv", "/d", "/moved")
        self.assertEqual(self.do("ls"), "moved\n")
        self.assertEqual(self.fails("mv", "/nothing", "/x")[0], 3)

    def test_rm(self) -> None:
        """rm removes files, folders with -r, and goes on after one that is not there."""
        self.assertEqual(self.fails("rm", "/d")[0], 1)
        code, _, err = self.result("rm", "/nothing", "/d/f")
        self.assertEqual((code, err), (3, "filegrid: /nothing: no such file or folder\n"))
        self.do("rm", "-r", "--now", "/d")
        self.assertEqual(self.do("ls"), "")

    def test_du(self) -> None:
        """du counts bytes and files, at any depth."""
        self.put("/d/e/g", bytes(100))
        self.assertEqual(self.do("du"), "105\t3 files\t/\n")
        self.assertEqual(
            self.json("du", "/d/e"), {"path": "/d/e", "bytes": 100, "files": 1, "folders": 0}
        )

    def test_relative_paths(self) -> None:
        """A grid path is absolute; anything else is wrong usage."""
        for arguments in (("ls", "d"), ("rm", "/ok", "d"), ("mv", "/d", "e"), ("cat", "/a//b")):
            self.assertEqual(self.fails(*arguments)[0], 2)


class Digests(CommandCase):
    def test_digest(self) -> None:
        """digest prints what stat shows of the same file once it is in the grid."""
        data = content(2 * CHUNK + 1)
        self.put("/f", data)
        local = self.local("f", data)
        expected = self.blocking.stat("/f").digest
        self.config.write_text(
            f'[grid]\nid = "g"\nheads = ["h:1"]\nchunk_bytes = {CHUNK}\n'
            '[tls]\ncertificate = "c"\nauthority = "a"\n'
        )
        self.assertEqual(self.do("digest", local), expected + "\n")
        self.assertEqual(self.do("digest", "-", stdin=data), expected + "\n")
        found = self.json("digest", local, "--chunk-bytes", CHUNK)
        self.assertEqual((found["digest"], found["size"]), (expected, len(data)))
        self.assertNotEqual(self.do("digest", local, "--chunk-bytes", CHUNK // 4), expected + "\n")
        self.assertEqual(self.fails("digest", self.folder / "missing")[0], 3)

    def test_without_a_configuration(self) -> None:
        """Where no configuration is found, chunks are taken to be of the usual length."""
        self.patch(os, "environ", {"HOME": str(self.folder)})
        back = Path.cwd()
        self.addCleanup(os.chdir, back)
        local = self.local("f", b"short").resolve()
        empty = self.folder / "empty"
        empty.mkdir()
        os.chdir(empty)
        out = io.TextIOWrapper(io.BytesIO(), "utf-8")
        self.patch(sys, "stdout", out)
        self.assertEqual(run(["digest", str(local)]), 0)


class Condition(CommandCase):
    def test_status(self) -> None:
        """status shows the grid, with --json under the keys that are promised."""
        self.put("/f", content(CHUNK))
        self.grid.advance(5)
        status = self.json("status")
        self.assertEqual((status["leader"], status["files"], status["bytes"]), ("head-1", 1, CHUNK))
        self.assertEqual(
            set(status["chunks"]),
            {"total", "healthy", "under_replicated", "missing", "corrupt", "repairing", "short"},
        )
        self.assertEqual((status["condition"], status["because"]), ("green", []))
        promised = {"name", "address", "rack", "state", "capacity_bytes", "free_bytes", "chunks"}
        promised |= {"cpu_percent", "network_bytes_per_second"}
        for server in status["chunk_servers"]:
            self.assertLessEqual(promised, set(server))
        shown = self.do("status")
        for text in ("head-1", "chunk-5", "dc1/r1", "1 healthy"):
            self.assertIn(text, shown)

    def test_status_without_leader(self) -> None:
        """With no leader, leader is null and the exit code 5, and warnings are for people."""
        from filegrid.client import grid as module
        from filegrid.client.status import status_document
        from filegrid.protocol.wire import head_pb2

        def leaderless(status: head_pb2.Status) -> dict[str, Any]:
            status.leader = ""
            status.warnings.append("the certificate of head-1 expires in 3 days")
            return status_document(status)

        self.patch(module, "status_document", leaderless)
        code, out, err = self.result("status", "--json")
        self.assertEqual((code, json.loads(out)["leader"]), (5, None))
        self.assertIn("warning: the certificate of head-1", err)
        self.assertEqual(self.result("status")[0], 5)

    def test_fsck(self) -> None:
        """fsck ends with 0 where all is well, 6 where something is corrupt, and says what."""
        self.put("/f", content(CHUNK))
        self.assertIn("all is well", self.do("fsck"))
        well = self.json("fsck", "/f", "--verify")
        self.assertEqual((well["ok"], well["checked_replicas"], well["corrupt"]), (True, 3, []))
        self.flip("/f", self.holders("/f")[0])
        code, out, err = self.result("fsck", "--verify", "--json")
        found = json.loads(out)
        self.assertEqual((code, err, found["ok"]), (6, "", False))
        self.assertEqual([one["path"] for one in found["corrupt"]], ["/f"])
        self.grid.advance(5)
        self.until_healthy(30)
        self.flip("/f", self.holders("/f")[0])
        code, out, _ = self.result("fsck", "--verify")
        self.assertEqual(code, 6)
        self.assertIn("/f: chunk 0 is corrupt", out.decode())

    def test_fsck_under_replicated(self) -> None:
        """Where replicas are only too few, fsck ends with 1."""
        self.put("/f", b"x", replication=5)
        self.grid.machine("chunk-1").kill()
        self.grid.advance(8)
        code, out, _ = self.result("fsck")
        self.assertEqual(code, 1)
        self.assertIn("/f: chunk 0 is under-replicated", out.decode())
        self.assertEqual(self.fails("fsck", "/nothing")[0], 3)
