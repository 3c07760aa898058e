"""The state of the grid as the document that `filegrid status --json` prints."""

from __future__ import annotations

from typing import Any

from filegrid.protocol.wire import head_pb2 as wire
from filegrid.protocol.wire.health_pb2 import Event

_KINDS = {
    Event.KIND_ELECTION: "election",
    Event.KIND_VERDICT: "verdict",
    Event.KIND_COORDINATOR: "coordinator",
    Event.KIND_JOINED: "joined",
    Event.KIND_DIED: "died",
    Event.KIND_RETURNED: "returned",
    Event.KIND_LEFT: "left",
    Event.KIND_SUSPECT: "suspect",
    Event.KIND_TRUSTED: "trusted",
    Event.KIND_REPAIR_BEGUN: "repair_begun",
    Event.KIND_REPAIR_ENDED: "repair_ended",
    Event.KIND_ROT_FOUND: "rot_found",
    Event.KIND_ROT_HEALED: "rot_healed",
    Event.KIND_DISK: "disk",
    Event.KIND_BACKUP_FAILED: "backup_failed",
    Event.KIND_BACKUP_KEPT: "backup_kept",
    Event.KIND_TRASH_YIELDED: "trash_yielded",
}


def status_document(status: wire.Status) -> dict[str, Any]:
    """Keys as docs/interface says; `leader` is None while no head leads."""
    return {
        "grid_id": status.grid_id,
        "epoch": status.epoch,
        "leader": status.leader or None,
        "condition": status.condition or "unknown",
        "because": list(status.because),
        "heads": [
            {
                "name": head.name,
                "address": head.address,
                "role": head.role,
                "log_index": head.log_index,
            }
            for head in status.heads
        ],
        "health": [
            {"name": member.name, "address": member.address, "role": member.role}
            for member in status.health
        ],
        "chunk_servers": [_server(server) for server in status.chunk_servers],
        "chunks": {
            "total": status.chunks.total,
            "healthy": status.chunks.healthy,
            "under_replicated": status.chunks.under_replicated,
            "missing": status.chunks.missing,
            "corrupt": status.chunks.corrupt,
            "repairing": status.chunks.repairing,
            "short": [
                {"replicas": one.replicas, "chunks": one.chunks, "since": one.since_ms / 1000}
                for one in status.chunks.short
            ],
        },
        "files": status.files,
        "bytes": status.bytes,
        "warnings": list(status.warnings),
        "work": [work_document(work) for work in status.work],
        "verdicts": [event_document(event) for event in status.verdicts],
        "backups": {
            "interval_seconds": status.backups.interval_seconds,
            "kept": status.backups.kept,
            "last": status.backups.last_ms / 1000 or None,
            "last_bytes": status.backups.last_bytes,
            "failure": status.backups.failure or None,
        },
    }


def event_document(event: Event) -> dict[str, Any]:
    """An election or a verdict; `at` is in seconds since 1970, `evidence` by health node."""
    return {
        "at": event.at_ms / 1000,
        "kind": _KINDS.get(event.kind, "unknown"),
        "node": event.node,
        "epoch": event.epoch,
        "text": event.text,
        "evidence": {one.health_node: one.text for one in event.evidence},
    }


def work_document(work: wire.Work) -> dict[str, Any]:
    """What goes on by itself; `seconds_left` is None where nobody knows."""
    return {
        "kind": work.kind,
        "server": work.server or None,
        "chunks_left": work.chunks_left,
        "bytes_left": work.bytes_left,
        "seconds_left": work.seconds_left or None,
        "waits_for": work.waits_for or None,
    }


def drain_document(server: wire.DrainReport) -> dict[str, Any]:
    return {
        "server": server.server,
        "state": server.state,
        "chunks_left": server.chunks_left,
        "bytes_left": server.bytes_left,
        "open_uploads": server.open_uploads,
        "blockers": list(server.blockers),
    }


def _server(server: wire.ServerStatus) -> dict[str, Any]:
    return {
        "name": server.name,
        "address": server.address,
        "rack": server.rack,
        "state": server.state,
        "reason": server.reason,
        "capacity_bytes": server.capacity_bytes,
        "free_bytes": server.free_bytes,
        "chunks": server.chunks,
        "cpu_percent": server.cpu_percent,
        "network_bytes_per_second": server.network_bytes_per_second,
        "disk_bytes_per_second": server.disk_bytes_per_second,
        "disks": [
            {
                "path": disk.path,
                "state": disk.state,
                "trouble": disk.trouble,
                "capacity_bytes": disk.capacity_bytes,
                "free_bytes": disk.free_bytes,
            }
            for disk in server.disks
        ],
        "scrub": {
            "never_verified": server.scrubbed.never_verified,
            "oldest_verified": server.scrubbed.oldest_verified_ms / 1000 or None,
            "rot_found": server.scrubbed.rot_found,
        },
    }
