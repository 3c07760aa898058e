"""What all commands share: the grid that is meant, what they print, how they end."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from filegrid.errors import GridError

INTERRUPTED = 130
"""As shells say of a process that Ctrl-C ended: 128 and the signal's number."""

_BUILT_IN = (
    (FileNotFoundError, 3),
    (FileExistsError, 4),
    (PermissionError, 7),
)


@dataclass(slots=True)
class Invocation:
    """What stands before, or among, the options of every command; click's ``ctx.obj``."""

    grid: str | None = None
    timeout_seconds: float | None = None

    def config_file(self) -> Path:
        """:raises filegrid.errors.NoSuchPath: where no configuration is found."""
        from filegrid.config import find_client_config

        return find_client_config(self.grid, os.environ)


def connect(config: Path, timeout_seconds: float) -> Any:
    """:func:`filegrid.connect`, whose imports only the commands that use a grid shall wait for."""
    return import_module("filegrid").connect(str(config), timeout_seconds=timeout_seconds)


def print_json(document: object) -> None:
    """One JSON document on standard output."""
    click.echo(json.dumps(document, ensure_ascii=False, indent=2))


def note(text: str) -> None:
    """Something for a person, beside what was asked for: on standard error."""
    click.echo(text, err=True)


def human_bytes(count: int) -> str:
    """``1.5 MB``: in powers of 1000, as disks are sold."""
    from rich.filesize import decimal

    return decimal(count)


def exit_code(error: BaseException) -> int:
    """The command's exit code for an error; 1 for one that has no code of its own."""
    if isinstance(error, GridError):
        return error.exit_code
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return 8
    return next((code for kind, code in _BUILT_IN if isinstance(error, kind)), 1)


def error_line(error: BaseException) -> str:
    """An error in one line: what, which path or node, what to do."""
    if isinstance(error, OSError) and not isinstance(error, GridError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = str(error) or type(error).__name__
    return f"filegrid: {' '.join(text.split())}"
