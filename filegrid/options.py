"""The command line of a service: a configuration file, and a flag for each of its keys."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from twisted.python import usage

from filegrid.config import Settings, flags, load


class ServiceOptions(usage.Options):
    """``--config FILE`` and every setting of :attr:`role`; a flag wins over the file.

    A subclass names its role, and may have ``optFlags`` and ``optParameters`` of its own.
    """

    role: ClassVar[str] = ""

    optParameters = [["config", "c", None, "TOML file with this node's settings."]]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        own = list(cls.__dict__.get("optParameters", []))
        for dotted, flag, default, text in flags(cls.role):
            shown = f" [default: {default}]" if default not in (None, "") else ""
            own.append([flag, None, None, f"{dotted}: {text}{shown}"])
        cls.optParameters = own

    def settings(self) -> Settings:
        """What the file and the flags say together.

        :raises filegrid.errors.InvalidRequest: one line: where, which key, what is allowed.
        :raises filegrid.errors.NoSuchPath: where there is no such file.
        """
        path = Path(self["config"]) if self["config"] else None
        given = {dotted: self[flag] for dotted, flag, _, _ in flags(self.role)}
        overrides = {dotted: text for dotted, text in given.items() if text is not None}
        return load(path, self.role, overrides)
