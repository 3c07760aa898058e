"""The settings of the services and of clients: what there is, what it may be, what it is for.

A service reads a TOML file, in which each section below is a table; each key is also a flag of
its command line (:class:`filegrid.options.ServiceOptions`), and a flag wins over the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path

from filegrid.errors import InvalidRequest, NoSuchPath
from filegrid.model import BLOCK_BYTES, DEFAULT_CHUNK_BYTES, Address, Peer
from filegrid.schema import fill, keys, read_toml, setting

DAY_SECONDS = 86400
_MIB = 1024 * 1024

_MOST_CHUNK_BYTES = 1024 * _MIB
"""Above this, the list of a chunk's block digests (32 bytes for 64 KiB) passes half a mebibyte,
and every random read of a new chunk begins with fetching it."""

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
NAME_ALLOWED = "a name of up to 64 letters, digits, '.', '_' and '-'"

HEAD = ("head",)
CHUNK = ("chunk",)
HEALTH = ("health",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """What holds for the files of the whole grid."""

    chunk_bytes: int = setting(
        "length of a chunk; files are cut into chunks of this length",
        default=DEFAULT_CHUNK_BYTES,
        minimum=BLOCK_BYTES,
        maximum=_MOST_CHUNK_BYTES,
        multiple_of=BLOCK_BYTES,
        roles=HEAD + CHUNK,
    )
    replication: int = setting(
        "replicas of each chunk, where a file asks for no other number",
        default=3,
        minimum=1,
        maximum=10,
        roles=HEAD,
    )
    min_replicas: int = setting(
        "replicas that must be on disk before a write is acknowledged where a server failed"
        " meanwhile (never more than the file's replication)",
        default=2,
        minimum=1,
        maximum=10,
        roles=HEAD,
    )
    trash_seconds: int = setting(
        "how long a removed or replaced file can be restored; 0: not at all",
        default=DAY_SECONDS,
        minimum=0,
        maximum=3650 * DAY_SECONDS,
        roles=HEAD,
    )
    collection_grace_seconds: int = setting(
        "how long chunks that no file needs stay on the servers; below an hour, readers of a"
        " replaced file may be cut off",
        default=3600,
        minimum=0,
        maximum=365 * DAY_SECONDS,
        roles=HEAD,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Election:
    """How heads settle who leads, and health nodes who coordinates."""

    lease_seconds: float = setting(
        "how long a head leads without renewal: about the pause when a leader dies",
        default=1.0,
        minimum=0.5,
        maximum=60,
        roles=HEAD + HEALTH,
    )
    priority: int = setting(
        "a head with a higher priority than the leader's takes over calmly, once it has caught up",
        default=0,
        minimum=0,
        maximum=1000,
        roles=HEAD,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How health nodes judge the head that leads."""

    probe_seconds: float = setting(
        "time between two probes of a head",
        default=0.2,
        minimum=0.05,
        maximum=1,
        roles=HEALTH,
    )
    silent_seconds: float = setting(
        "silence after which the leader is found unfit: some probes long, so that one may be lost",
        default=0.7,
        minimum=0.1,
        maximum=60,
        roles=HEALTH,
    )
    stuck_seconds: float = setting(
        "how long the leader's disk may hang, or its log stand still, before it is found unfit",
        default=3.0,
        minimum=0.5,
        maximum=600,
        roles=HEALTH,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """How heads judge chunk servers."""

    heartbeat_seconds: float = setting(
        "time between two heartbeats of a chunk server",
        default=1.0,
        minimum=0.05,
        maximum=60,
        roles=HEAD + CHUNK,
    )
    suspect_seconds: float = setting(
        "silence after which a chunk server gets no new chunks",
        default=2.0,
        minimum=0.1,
        maximum=600,
        roles=HEAD + CHUNK,
    )
    dead_seconds: float = setting(
        "silence after which a chunk server's replicas are made anew elsewhere",
        default=5.0,
        minimum=0.2,
        maximum=DAY_SECONDS,
        roles=HEAD + CHUNK,
    )
    maintenance_seconds: float = setting(
        "how long a chunk server that was stopped in good order may be away before its replicas"
        " are made anew",
        default=60.0,
        minimum=0,
        maximum=DAY_SECONDS,
        roles=HEAD + CHUNK,
    )


CRITICAL_FACTOR = 4
"""How much faster chunks on their last replica are made anew than others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """How replicas are made anew."""

    mib_per_second: float = setting(
        "MiB a second that each chunk server reads, and as many that it writes, for repair and"
        " balance, but 64 at most while it serves clients; four times as many of chunks on their"
        " last replica; 0: no limit",
        default=200.0,
        minimum=0,
        maximum=1_000_000,
        roles=HEAD + CHUNK,
    )
    restraint_seconds: float = setting(
        "how long to wait where more than a third of the chunk servers, or a rack, vanish together,"
        " before more is repaired than chunks on their last replica",
        default=15.0,
        minimum=0,
        maximum=DAY_SECONDS,
        roles=HEAD,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrub:
    """How disks are read back."""

    days: float = setting(
        "days in which a chunk server reads and checks everything that it holds; 0: never",
        default=14.0,
        minimum=0,
        maximum=365,
        roles=CHUNK,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """How evenly chunk servers are filled."""

    band_percent: float = setting(
        "how far from the mean, in percent of its capacity, a chunk server's use may be before"
        " replicas move",
        default=5.0,
        minimum=0.1,
        maximum=100,
        roles=HEAD,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """How often the grid keeps a copy of its metadata on its own chunk servers."""

    interval_seconds: int = setting(
        "time between two backups of the metadata that the grid keeps in its own chunk servers"
        " (the last 24 stay); 0: none",
        default=3600,
        minimum=0,
        maximum=30 * DAY_SECONDS,
        roles=HEAD,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """This one node."""

    name: str = setting(
        "name of this node, as in its certificate", pattern=NAME_PATTERN, allowed=NAME_ALLOWED
    )
    data: Path = setting("folder of this node's data")
    listen: Address = setting("where it listens: HOST:PORT; [::]:PORT or 0.0.0.0:PORT for all")
    advertise: str = setting(
        "HOST:PORT where others reach it; left empty, as it listens",
        default="",
        pattern=r"(.+:\d+)?",
        allowed="HOST:PORT",
    )
    heads: tuple[Address, ...] = setting("HOST:PORT of every head of the grid")
    health: tuple[Peer, ...] = setting(
        "NAME=HOST:PORT of every health node of the grid: an odd number, or none",
        default=(),
        roles=HEAD + HEALTH,
    )
    disks: tuple[Path, ...] = setting(
        "further folders for chunks, each on a disk of its own; when one fails, only what is on it"
        " is made anew",
        default=(),
        roles=CHUNK,
    )
    rack: str = setting(
        "what it shares its fate with, from the largest down: room/rack; replicas are spread",
        default="default/r1",
        pattern=r"[A-Za-z0-9._-]{1,64}(/[A-Za-z0-9._-]{1,64}){0,7}",
        allowed="names of letters, digits, '.', '_' and '-' with / between them",
        roles=CHUNK,
    )
    reserve_bytes: int = setting(
        "bytes of the disk left free: below this no new chunk is taken",
        default=256 * _MIB,
        minimum=0,
        roles=CHUNK,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Who this node is, and whom it trusts."""

    certificate: Path = setting("PEM file with this node's certificate and its key")
    authority: Path = setting("PEM file with the certificate of the grid's authority")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All that a service is told. Keys that its role does not read have their defaults."""

    grid: Grid = field(default_factory=Grid)
    election: Election = field(default_factory=Election)
    health: Health = field(default_factory=Health)
    chunk: Chunk = field(default_factory=Chunk)
    repair: Repair = field(default_factory=Repair)
    scrub: Scrub = field(default_factory=Scrub)
    balance: Balance = field(default_factory=Balance)
    backup: Backup = field(default_factory=Backup)
    node: Node
    tls: Tls

    @property
    def address(self) -> Address:
        """Where others reach this node."""
        return Address.parse(self.node.advertise) if self.node.advertise else self.node.listen


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientGrid:
    """The grid that a client uses."""

    id: str = setting(
        "the grid's id, as in its certificates", pattern=r"[a-z0-9-]{1,64}", allowed="a grid id"
    )
    heads: tuple[Address, ...] = setting("HOST:PORT of every head of the grid")
    chunk_bytes: int = setting(
        "length of the grid's chunks, for digests of local files",
        default=DEFAULT_CHUNK_BYTES,
        minimum=BLOCK_BYTES,
        maximum=_MOST_CHUNK_BYTES,
        multiple_of=BLOCK_BYTES,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """How a client behaves."""

    timeout_seconds: float = setting(
        "how long each operation waits for the grid", default=30.0, minimum=0.1, maximum=DAY_SECONDS
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientConfig:
    """All that a client is told: grid.toml."""

    grid: ClientGrid
    tls: Tls
    client: Client = field(default_factory=Client)


def load(path: Path | None, role: str, overrides: Mapping[str, str] | None = None) -> Settings:
    """The settings of a service.

    :param path: its TOML file; None where the command line says it all.
    :param role: ``head``, ``chunk`` or ``health``.
    :param overrides: texts by ``section.key``.
    :raises InvalidRequest: one line: file, key, what it is and what is allowed.
    :raises NoSuchPath: where there is no such file.
    """
    document = read_toml(path) if path else {}
    base = path.parent if path else Path.cwd()
    source = str(path) if path else "command line"
    settings = fill(Settings, document, source=source, base=base, overrides=overrides, role=role)
    _check_together(settings, source)
    return settings


def check_overrides(overrides: Mapping[str, str], source: str) -> Settings:
    """What `overrides` (texts by ``section.key``, of any role) make of the defaults.

    :param source: what errors call them.
    :raises InvalidRequest: as :func:`load` does.
    """
    anything: dict[str, dict[str, object]] = {
        "node": {"name": "node", "data": "data", "listen": "localhost:1", "heads": ["localhost:1"]},
        "tls": {"certificate": "node.pem", "authority": "ca.pem"},
    }
    settings = fill(
        Settings,
        anything,
        source=source,
        base=Path.cwd(),
        overrides=overrides,
        overrides_source=source,
    )
    _check_together(settings, source)
    return settings


def load_client(path: Path) -> ClientConfig:
    """A client's configuration; raises as :func:`load` does."""
    config = fill(ClientConfig, read_toml(path), source=str(path), base=path.parent)
    if not config.grid.heads:
        raise InvalidRequest("names no head", f"{path}: grid.heads", advice="give their addresses")
    return config


def find_client_config(explicit: str | None, environ: Mapping[str, str]) -> Path:
    """Where a client's configuration is: as told, or FILEGRID_GRID, or ./grid.toml, or
    ~/.config/filegrid/grid.toml, the first that is said or exists.

    :raises NoSuchPath: where there is none.
    """
    told = explicit or environ.get("FILEGRID_GRID")
    if told:
        path = Path(told).expanduser()
        if not path.exists():
            raise NoSuchPath("there is no such configuration file", told)
        return path
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    for path in (Path("grid.toml"), home / ".config" / "filegrid" / "grid.toml"):
        if path.exists():
            return path
    raise NoSuchPath(
        "no grid.toml here, nor in ~/.config/filegrid",
        advice="name it with --grid FILE or the variable FILEGRID_GRID",
    )


def flags(role: str) -> Iterator[tuple[str, str, object, str]]:
    """Each setting of `role`: its dotted name, its flag, its default (None: required), its help."""
    for key in keys(Settings, role):
        default = None if key.default is MISSING else key.default
        yield key.dotted, key.flag, default, key.rule.help


def _check_together(settings: Settings, source: str) -> None:
    """Refuse what no single key shows to be wrong."""
    chunk = settings.chunk
    # Where dead_seconds is the shorter one, a silent server is simply never suspect before.
    silence_seconds = min(chunk.suspect_seconds, chunk.dead_seconds)
    if chunk.heartbeat_seconds >= silence_seconds:
        raise InvalidRequest(
            f"a heartbeat every {chunk.heartbeat_seconds:g} s is too rare where"
            f" {silence_seconds:g} s of silence count",
            f"{source}: chunk.heartbeat_seconds",
            advice="make it shorter than suspect_seconds and dead_seconds",
        )
    if settings.health.silent_seconds < 2 * settings.health.probe_seconds:
        raise InvalidRequest(
            f"with a probe every {settings.health.probe_seconds:g} s, one that is lost would do",
            f"{source}: health.silent_seconds",
            advice="make it twice probe_seconds at least",
        )
    names = {peer.name for peer in settings.node.health}
    if len(names) != len(settings.node.health) or (names and len(names) % 2 == 0):
        raise InvalidRequest(
            "a majority decides: name an odd number of health nodes, each once",
            f"{source}: node.health",
        )
    if settings.node.advertise:
        try:
            Address.parse(settings.node.advertise)
        except InvalidRequest as error:
            raise InvalidRequest(str(error), f"{source}: node.advertise") from None
    elif settings.node.listen.host in ("0.0.0.0", "::"):
        raise InvalidRequest(
            "is missing", f"{source}: node.advertise", advice="say where others reach this node"
        )
    if not settings.node.heads:
        raise InvalidRequest("names no head", f"{source}: node.heads", advice="give addresses")
