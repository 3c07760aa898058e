"""Settings as frozen dataclasses: read from TOML and from the command line, checked, written.

A *form* is a dataclass of sections, each itself a dataclass whose fields are made by
:func:`setting`. The form is the only description of its settings: the flags, the checks and the
messages all come from it.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, TypeVar, get_type_hints

from filegrid.errors import InvalidRequest, NoSuchPath, NotPermitted
from filegrid.model import Address, Peer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

F = TypeVar("F")

Toml: TypeAlias = str | int | float | list[str]
Addresses: TypeAlias = tuple[Address, ...]
Peers: TypeAlias = tuple[Peer, ...]
Paths: TypeAlias = tuple[Path, ...]

_LISTS: dict[Any, tuple[Any, str]] = {
    Addresses: (Address, "HOST:PORT"),
    Peers: (Peer, "NAME=HOST:PORT"),
    Paths: (Path, "FOLDER"),
}
"""What each is a list of, and how that is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What a setting may be, and what it is for."""

    help: str
    minimum: float = -math.inf
    maximum: float = math.inf
    multiple_of: int = 1
    pattern: str = ""
    allowed: str = ""
    """What the pattern asks for, in words."""
    roles: tuple[str, ...] = ()
    """The services that read it; all of them where empty."""


def setting(help: str, *, default: object = dataclasses.MISSING, **rule: Any) -> Any:
    """A field of a section; without a default it has to be given."""
    made: Any = dataclasses.field(default=default, metadata={"rule": Rule(help=help, **rule)})
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One setting of a form."""

    section: str
    name: str
    kind: Any
    default: object
    rule: Rule

    @property
    def dotted(self) -> str:
        return f"{self.section}.{self.name}"

    @property
    def flag(self) -> str:
        """``grid.chunk_bytes`` on a command line: ``grid-chunk-bytes``."""
        return self.dotted.replace(".", "-").replace("_", "-")

    @property
    def required(self) -> bool:
        return self.default is dataclasses.MISSING

    @property
    def allowed(self) -> str:
        """What may be given, in words."""
        rule = self.rule
        if self.kind is Path:
            return "a path"
        if self.kind is Address:
            return "HOST:PORT"
        if self.kind in _LISTS:
            return f"a list of {_LISTS[self.kind][1]}"
        if self.kind is str:
            return rule.allowed or "a text"
        text = "a whole number" if self.kind is int else "a number"
        if rule.multiple_of != 1:
            text += f" that is a multiple of {rule.multiple_of}"
        if rule.maximum < math.inf:
            return f"{text} from {_number(rule.minimum)} to {_number(rule.maximum)}"
        return text if rule.minimum == -math.inf else f"{text} of {_number(rule.minimum)} or more"


def keys(form: type[Any], role: str = "") -> Iterator[Key]:
    """Every setting of `form` that `role` reads, in order."""
    for section, kind in get_type_hints(form).items():
        hints = get_type_hints(kind)
        for field in dataclasses.fields(kind):
            rule: Rule = field.metadata["rule"]
            if not role or not rule.roles or role in rule.roles:
                yield Key(
                    section=section,
                    name=field.name,
                    kind=hints[field.name],
                    default=field.default,
                    rule=rule,
                )


def read_toml(path: Path) -> dict[str, dict[str, object]]:
    """The sections of a TOML file.

    :raises NoSuchPath: where there is no such file.
    :raises NotPermitted: where it cannot be read.
    :raises InvalidRequest: where it is not TOML, or has a key outside of any section.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NoSuchPath("there is no such configuration file", str(path)) from None
    except OSError as error:
        raise NotPermitted(f"cannot be read: {error.strerror}", str(path)) from None
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError
        raise InvalidRequest(f"is not TOML: {error}", str(path)) from None
    for name, table in document.items():
        if not isinstance(table, dict):
            raise InvalidRequest(
                "stands outside of any section", f"{path}: {name}", advice="begin with [section]"
            )
    return document


def write_toml(sections: Mapping[str, Mapping[str, Toml]]) -> str:
    """The text of a TOML file. Names of sections and keys are those of a form: bare."""
    parts = []
    for section, table in sections.items():
        lines = [f"{name} = {_literal(value)}" for name, value in table.items()]
        parts.append("\n".join([f"[{section}]", *lines, ""]))
    return "\n".join(parts)


def fill(
    form: type[F],
    document: Mapping[str, Mapping[str, object]],
    *,
    source: str,
    base: Path,
    overrides: Mapping[str, str] | None = None,
    overrides_source: str = "command line",
    role: str = "",
) -> F:
    """Make a `form` of what a file and a command line say.

    :param document: the file's sections.
    :param source: what errors call the file.
    :param base: the folder that relative paths in the document start from; those of the overrides
        start from the working folder.
    :param overrides: texts by ``section.key``; they win.
    :raises InvalidRequest: in one line: where, which setting, what it is, what is allowed.
    """
    known = {key.dotted: key for key in keys(form, role)}
    everywhere = {key.dotted for key in keys(form)}
    values: dict[str, dict[str, object]] = {section: {} for section in get_type_hints(form)}
    for section, table in document.items():
        if section not in values and not table:
            raise InvalidRequest("there is no such section", f"{source}: {section}")
        for name, value in table.items():
            subject = f"{source}: {section}.{name}"
            key = _known(f"{section}.{name}", known, everywhere, subject, role)
            values[section][name] = convert(key, value, subject, base)
    for dotted, text in (overrides or {}).items():
        subject = f"{overrides_source}: {dotted}"
        key = _known(dotted, known, everywhere, subject, role)
        values[key.section][key.name] = convert(key, parse_text(key, text), subject, Path.cwd())
    for key in known.values():
        if key.required and key.name not in values[key.section]:
            raise InvalidRequest("is missing", f"{source}: {key.dotted}", advice=_give(key))
    kinds = get_type_hints(form)
    return form(**{section: kinds[section](**given) for section, given in values.items()})


def parse_text(key: Key, text: str) -> Toml:
    """What `text`, from a command line, says; the text itself where it is no number."""
    if key.kind in _LISTS:
        return [part.strip() for part in text.split(",") if part.strip()]
    for number in (int, float):
        if key.kind in (int, float):
            try:
                return number(text)
            except ValueError:
                continue
    return text


def _path(text: str, base: Path) -> Path:
    return Path(os.path.normpath(base.absolute() / Path(text).expanduser()))


def convert(key: Key, value: object, subject: str, base: Path) -> object:
    """`value`, as TOML or :func:`parse_text` gave it, as the field's type.

    :raises InvalidRequest: where it has the wrong type or is not allowed.
    """
    wrong = InvalidRequest(f"{_shown(value)} is not allowed", subject, advice=_give(key))
    if key.kind in (int, float):
        return _converted_number(key, value, wrong)
    if key.kind in _LISTS:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise wrong
        if key.kind == Paths:
            return tuple(_path(item, base) for item in value)
        return tuple(_parsed(_LISTS[key.kind][0], item, wrong) for item in value)
    if not isinstance(value, str) or (not value and key.required):
        raise wrong
    if key.kind is Address:
        return _parsed(Address, value, wrong)
    if key.kind is Path:
        return _path(value, base)
    if key.rule.pattern and not re.fullmatch(key.rule.pattern, value):
        raise wrong
    return value


def _converted_number(key: Key, value: object, wrong: InvalidRequest) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise wrong
    if key.kind is int and not isinstance(value, int):
        raise wrong
    rule = key.rule
    if not rule.minimum <= value <= rule.maximum:
        raise wrong
    if key.kind is int and value % rule.multiple_of:
        raise wrong
    return float(value) if key.kind is float else value


def _parsed(kind: Any, text: str, wrong: InvalidRequest) -> object:
    try:
        made: object = kind.parse(text)
        return made
    except InvalidRequest:
        raise wrong from None


def _known(
    dotted: str, known: Mapping[str, Key], everywhere: set[str], subject: str, role: str
) -> Key:
    if dotted in known:
        return known[dotted]
    if dotted in everywhere:
        raise InvalidRequest(f"a {role} has no such setting", subject, advice="remove it")
    name = dotted.rpartition(".")[2]
    elsewhere = [key.dotted for key in known.values() if key.name == name]
    near = elsewhere or difflib.get_close_matches(dotted, known, n=1)
    advice = f"did you mean {near[0]}?" if near else "remove it"
    raise InvalidRequest("there is no such setting", subject, advice=advice)


def _give(key: Key) -> str:
    return f"give {key.allowed}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else str(value)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _literal(value: Toml) -> str:
    # A JSON string is a TOML basic string but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
