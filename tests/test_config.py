"""Settings: what files and flags may say, and how a mistake is answered."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from filegrid import config
from filegrid.config import ClientConfig, Settings, find_client_config, load, load_client
from filegrid.errors import InvalidRequest, NoSuchPath
from filegrid.model import Address
from filegrid.options import ServiceOptions
from filegrid.schema import keys, read_toml, write_toml

TAP = Path(__file__).resolve().parent.parent / "tap"

HEAD = """
[node]
name = "head-1"
data = "data"
listen = "127.0.0.1:7000"
heads = ["127.0.0.1:7000"]
[tls]
certificate = "certificates/head-1.pem"
authority = "/etc/ca.pem"
"""


class FolderTest(SynchronousTestCase):
    """With a folder of its own."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir(parents=True)

    def write(self, text: str, name: str = "node.toml") -> Path:
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path


class LoadTests(FolderTest):
    """What a service reads."""

    def refused(self, text: str, role: str = "head") -> str:
        """The line with which `text`, after the required keys, is refused."""
        path = self.write(HEAD + text)
        error = self.assertRaises(InvalidRequest, load, path, role)
        line = str(error)
        self.assertNotIn("\n", line)
        self.assertTrue(line.startswith(f"{path}: "), line)
        return line.removeprefix(f"{path}: ")

    def test_defaults(self) -> None:
        """A file with the required keys alone gives the documented defaults."""
        made = load(self.write(HEAD), "head")
        self.assertEqual(made.grid, config.Grid())
        self.assertEqual(made.grid.chunk_bytes, 64 * 1024 * 1024)
        self.assertEqual(made.node.listen, Address("127.0.0.1", 7000))
        self.assertEqual(made.node.heads, (Address("127.0.0.1", 7000),))
        self.assertEqual(made.address, made.node.listen)

    def test_relative_paths(self) -> None:
        """Relative paths start from the file's folder, absolute ones stay."""
        made = load(self.write(HEAD), "head")
        self.assertEqual(made.node.data, self.folder / "data")
        self.assertEqual(made.tls.certificate, self.folder / "certificates" / "head-1.pem")
        self.assertEqual(made.tls.authority, Path("/etc/ca.pem"))

    def test_lists_of_paths(self) -> None:
        """So do those of a list; on a command line they stand with commas between them."""
        text = HEAD.replace("heads =", 'disks = ["d2", "/mnt/d3"]\nheads =')
        made = load(self.write(text), "chunk")
        self.assertEqual(made.node.disks, (self.folder / "d2", Path("/mnt/d3")))
        made = load(self.write(HEAD), "chunk", {"node.disks": "/mnt/d2,/mnt/d3"})
        self.assertEqual(made.node.disks, (Path("/mnt/d2"), Path("/mnt/d3")))

    def test_overrides_win(self) -> None:
        """What the command line says wins over the file, and its paths start from here."""
        path = self.write(HEAD + "[grid]\nreplication = 2\n")
        made = load(path, "head", {"grid.replication": "4", "node.data": "there"})
        self.assertEqual(made.grid.replication, 4)
        self.assertEqual(made.node.data, Path.cwd() / "there")

    def test_whole_numbers_serve_as_numbers(self) -> None:
        """A key that takes any number takes a whole one."""
        made = load(self.write(HEAD + "[election]\nlease_seconds = 2\n"), "head")
        self.assertEqual(made.election.lease_seconds, 2.0)
        self.assertIsInstance(made.election.lease_seconds, float)

    def test_unknown_key(self) -> None:
        """A misspelt key is named, with the one that was meant."""
        self.assertEqual(
            self.refused("[grid]\nreplicaton = 3\n"),
            "grid.replicaton: there is no such setting; did you mean grid.replication?",
        )

    def test_key_in_wrong_section(self) -> None:
        """A key in another's section is answered with where it belongs."""
        self.assertEqual(
            self.refused("[grid]\nlease_seconds = 3\n"),
            "grid.lease_seconds: there is no such setting; did you mean election.lease_seconds?",
        )

    def test_unknown_section(self) -> None:
        """A section that nobody reads is refused, also when it is empty."""
        self.assertEqual(self.refused("[gird]\n"), "gird: there is no such section")

    def test_key_of_another_role(self) -> None:
        """A head's file has no chunk server's keys."""
        self.assertEqual(
            self.refused("[scrub]\ndays = 3\n"), "scrub.days: a head has no such setting; remove it"
        )

    def test_out_of_range(self) -> None:
        """A number out of range is told with the range."""
        self.assertEqual(
            self.refused("[grid]\nreplication = 0\n"),
            "grid.replication: 0 is not allowed; give a whole number from 1 to 10",
        )

    def test_wrong_types(self) -> None:
        """A text, a truth value, a fraction or not-a-number is no whole number."""
        for value in ('"3"', "true", "2.5", "nan", "[3]"):
            self.assertIn(
                "is not allowed; give a", self.refused(f"[grid]\nreplication = {value}\n")
            )
        self.assertIn("inf", self.refused("[election]\nlease_seconds = inf\n").lower())

    def test_chunk_bytes(self) -> None:
        """Chunks consist of whole blocks of 64 KiB."""
        self.assertIn(
            "a multiple of 65536 from 65536 to 1073741824",
            self.refused("[grid]\nchunk_bytes = 100000\n"),
        )

    def test_order_of_silences(self) -> None:
        """A server that is dead before it is suspect makes no sense."""
        self.assertIn("too rare", self.refused("[chunk]\ndead_seconds = 1.0\n"))

    def test_lost_probe(self) -> None:
        """A silence in which no probe could be lost is too short."""
        text = HEAD.replace("heads =", 'health = ["health-1=h:1"]\nheads =')
        path = self.write(text + "[health]\nsilent_seconds = 0.3\n")
        error = self.assertRaises(InvalidRequest, load, path, "health")
        self.assertIn("health.silent_seconds: with a probe every 0.2 s", str(error))

    def test_health_nodes(self) -> None:
        """Health nodes are NAME=HOST:PORT, an odd number of them."""

        def said(peers: str) -> Settings:
            return load(self.write(HEAD), "head", {"node.health": peers})

        made = said("a=h:1, b=h:2,c=[::1]:3")
        self.assertEqual([peer.name for peer in made.node.health], ["a", "b", "c"])
        self.assertEqual(made.node.health[2].address, Address("::1", 3))
        for wrong in ("a=h:1,b=h:2", "a=h:1,a=h:2,a=h:3"):
            error = self.assertRaises(InvalidRequest, said, wrong)
            self.assertIn("name an odd number of health nodes, each once", str(error))
        error = self.assertRaises(InvalidRequest, said, "h:1")
        self.assertIn("give a list of NAME=HOST:PORT", str(error))

    def test_addresses(self) -> None:
        """Addresses are HOST:PORT; a server on all addresses says which one others use."""
        text = HEAD.replace('listen = "127.0.0.1:7000"', 'listen = "here"')
        error = self.assertRaises(InvalidRequest, load, self.write(text), "head")
        self.assertIn('node.listen: "here" is not allowed; give HOST:PORT', str(error))
        everywhere = HEAD.replace('listen = "127', 'listen = "0.0.0.0:7000" #')
        error = self.assertRaises(InvalidRequest, load, self.write(everywhere), "head")
        self.assertIn("node.advertise: is missing", str(error))
        said = load(self.write(everywhere), "head", {"node.advertise": "h1.example:7000"})
        self.assertEqual(said.address, Address("h1.example", 7000))

    def test_missing(self) -> None:
        """A required key that is not there is named."""
        path = self.write(HEAD.replace('name = "head-1"', ""))
        error = self.assertRaises(InvalidRequest, load, path, "head")
        self.assertIn("node.name: is missing; give a name of up to 64", str(error))

    def test_not_toml(self) -> None:
        """A file that is not TOML, or has keys outside of sections, is refused in a line."""
        self.assertRaises(InvalidRequest, load, self.write("a = = b"), "head")
        error = self.assertRaises(InvalidRequest, load, self.write("a = 1"), "head")
        self.assertIn("stands outside of any section", str(error))
        self.assertRaises(NoSuchPath, load, self.folder / "none.toml", "head")

    def test_few_and_documented(self) -> None:
        """There are fewer than 50 settings in all, each with a line of help."""
        every = [*keys(Settings), *keys(ClientConfig)]
        self.assertLess(len(every), 50)
        for key in every:
            self.assertGreater(len(key.rule.help), 10, key.dotted)

    def test_samples(self) -> None:
        """Each sample under tap/ loads, has every key of its role, and gives the defaults."""
        for role in ("head", "chunk", "health"):
            path = TAP / f"{role}.toml"
            made = load(path, role)
            there = {f"{s}.{name}" for s, table in read_toml(path).items() for name in table}
            self.assertEqual(there, {key.dotted for key in keys(Settings, role)})
            for key in keys(Settings, role):
                if not key.required and (role, key.dotted) != ("health", "node.health"):
                    value = getattr(getattr(made, key.section), key.name)
                    self.assertEqual(value, key.default, key.dotted)


class Head(ServiceOptions):
    """A service with a flag of its own."""

    role = "head"
    optFlags = [["create", None, "Make a new grid."]]


class OptionsTests(FolderTest):
    """The command line of a service."""

    def test_flags(self) -> None:
        """Each key is a flag that wins over the file, beside the service's own flags."""
        options = Head()
        arguments = ["--config", str(self.write(HEAD)), "--grid-replication", "2", "--create"]
        options.parseOptions(arguments)
        self.assertEqual(options.settings().grid.replication, 2)
        self.assertTrue(options["create"])

    def test_without_file(self) -> None:
        """The command line can say it all."""
        options = Head()
        flags = ["--node-name=h", "--node-data=d", "--node-listen=[::1]:7", "--node-heads=a:1,b:2"]
        options.parseOptions([*flags, "--tls-certificate=c", "--tls-authority=a"])
        self.assertEqual(options.settings().node.heads, (Address("a", 1), Address("b", 2)))

    def test_wrong_flag(self) -> None:
        """A flag's error says that the command line has it, in one line."""
        options = Head()
        options.parseOptions(["--config", str(self.write(HEAD)), "--grid-replication", "many"])
        error = self.assertRaises(InvalidRequest, options.settings)
        self.assertEqual(
            str(error),
            'command line: grid.replication: "many" is not allowed;'
            " give a whole number from 1 to 10",
        )
        self.assertRaises(usage.UsageError, Head().parseOptions, ["--scrub-days", "3"])

    def test_help(self) -> None:
        """--help lists every key with its default."""
        text = " ".join(str(Head()).split())
        for key in keys(Settings, "head"):
            self.assertIn(f"--{key.flag}=", text)
        self.assertIn("[default: 67108864]", text)


class ClientConfigTests(FolderTest):
    """grid.toml, and where it is looked for."""

    def test_round_trip(self) -> None:
        """What the writer wrote is what a client reads."""
        text = write_toml(
            {
                "grid": {"id": "g-1", "heads": ["a:1", "[::1]:2"], "chunk_bytes": 65536},
                "tls": {"certificate": "client.pem", "authority": "ca/ca.pem"},
            }
        )
        made = load_client(self.write(text, "grid.toml"))
        self.assertEqual(made.grid.heads, (Address("a", 1), Address("::1", 2)))
        self.assertEqual(made.grid.chunk_bytes, 65536)
        self.assertEqual(made.tls.authority, self.folder / "ca" / "ca.pem")
        self.assertEqual(made.client.timeout_seconds, 30.0)

    def test_no_heads(self) -> None:
        """A client without heads has nobody to ask."""
        text = '[grid]\nid = "g"\nheads = []\n[tls]\ncertificate = "c"\nauthority = "a"\n'
        error = self.assertRaises(InvalidRequest, load_client, self.write(text))
        self.assertIn("grid.heads: names no head", str(error))

    def test_order(self) -> None:
        """What was said comes first, then FILEGRID_GRID, ./grid.toml and the home folder."""
        home = self.folder / "home"
        (home / ".config" / "filegrid").mkdir(parents=True)
        environ = {"HOME": str(home)}
        error = self.assertRaises(NoSuchPath, find_client_config, None, environ)
        self.assertIn("--grid FILE", str(error))
        in_home = home / ".config" / "filegrid" / "grid.toml"
        in_home.touch()
        self.assertEqual(find_client_config(None, environ), in_home)
        here = Path("grid.toml")
        here.touch()
        self.addCleanup(here.unlink)
        self.assertEqual(find_client_config(None, environ), here)
        environ["FILEGRID_GRID"] = str(self.write("", "variable.toml"))
        self.assertEqual(find_client_config(None, environ), self.folder / "variable.toml")
        said = str(self.write("", "said.toml"))
        self.assertEqual(find_client_config(said, environ), self.folder / "said.toml")

    def test_said_and_missing(self) -> None:
        """A file that was named and is not there is an error; no other is taken for it."""
        missing = str(self.folder / "none.toml")
        self.assertRaises(NoSuchPath, find_client_config, missing, {})
        self.assertRaises(NoSuchPath, find_client_config, None, {"FILEGRID_GRID": missing})


class WriterTests(SynchronousTestCase):
    """The small TOML writer."""

    @settings(max_examples=50, deadline=None, database=None)
    @given(
        st.dictionaries(
            st.from_regex(r"[a-z_]{1,8}", fullmatch=True),
            st.text(st.characters(exclude_categories=["Cs"]))
            | st.integers(-(2**63), 2**63 - 1)
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
        )
    )
    def test_any_value(self, table: dict[str, str | int | float | list[str]]) -> None:
        """Any text, number or list of texts is read back as it was written."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.toml"
            path.write_bytes(write_toml({"section": table}).encode())
            self.assertEqual(read_toml(path), {"section": table})
