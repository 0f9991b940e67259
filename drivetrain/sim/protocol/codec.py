"""Turns structs into what msgpack writes, and what msgpack read into structs, as their type annotations say.

    codec = Codec(release.commands, release.field_order)
    codec.decoder(Transform)([[1, 2, 3], [0, 90, 0]])

Types: bool, int, float, str, bytes, an IntEnum, a frozen dataclass (an array of its fields), `tuple[T, ...]` (a vector),
`tuple[A, B]` (a pair), `T | None` (an optional) and `Command` (a variant). Whatever is not of its type is a `WireError`.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import IntEnum
from typing import Any, NewType, Union, get_args, get_origin, get_type_hints

from drivetrain.sim.errors import SimError
from drivetrain.sim.protocol.structs import Command

Convert = Callable[[Any], Any]


class WireError(SimError):
    """A message that is not what its type says."""


def whole(raw: Any) -> int:
    if type(raw) is not int:
        raise WireError(f"got {raw!r:.60}, expected a whole number")
    return raw


def number(raw: Any) -> float:
    if type(raw) is not float and type(raw) is not int:
        raise WireError(f"got {raw!r:.60}, expected a number")
    if not math.isfinite(raw):
        raise WireError(f"got {raw!r}, expected a finite number")
    return float(raw)


def of_type(kind: type) -> Convert:
    def decode(raw: Any) -> Any:
        if type(raw) is not kind:
            raise WireError(f"got {raw!r:.60}, expected {kind.__name__}")
        return raw

    return decode


def octets(raw: Any) -> bytes:
    if type(raw) is list:  # older msgpack packers send vectors of bytes so
        return bytes(whole(item) & 255 for item in raw)
    return bytes(of_type(bytes)(raw))


def array(raw: Any, least: int = 0, most: float = math.inf) -> list[Any]:
    if type(raw) is not list or not least <= len(raw) <= most:
        raise WireError(f"got {raw!r:.60}, expected an array of {least} or more")
    return raw


PLAIN: dict[Any, Convert] = {
    bool: of_type(bool),
    int: whole,
    float: number,
    str: of_type(str),
    bytes: octets,
}


class Codec:
    """Encoders and decoders, each made once. A release that orders a struct's fields otherwise says so in `field_order`."""

    def __init__(self, commands: Sequence[type[Command]], field_order: Mapping[type, Sequence[str]] | None = None):
        self.commands = tuple(commands)
        self.number_of = {command: index for index, command in enumerate(commands)}
        self.field_order = dict(field_order or {})
        self.decoders: dict[Any, Convert] = dict(PLAIN)
        self.encoders: dict[Any, Convert | None] = dict.fromkeys(PLAIN)  # None: as it is

    def decoder(self, kind: Any) -> Convert:
        if kind not in self.decoders:
            self.decoders[kind] = lambda raw: self.decoders[kind](raw)  # for a struct that holds itself
            self.decoders[kind] = self.make_decoder(kind)
        return self.decoders[kind]

    def encoder(self, kind: Any) -> Convert | None:
        if kind not in self.encoders:
            self.encoders[kind] = self.make_encoder(kind)
        return self.encoders[kind]

    def order(self, kind: Any) -> list[tuple[str, Any]]:
        hints = get_type_hints(kind)
        names = self.field_order.get(kind) or [f.name for f in fields(kind)]
        return [(name, hints[name]) for name in names]

    def make_decoder(self, kind: Any) -> Convert:
        if isinstance(kind, NewType):
            return self.decoder(kind.__supertype__)
        if kind is Command:
            return self.decode_command
        if get_origin(kind) is tuple:
            return self.tuple_decoder(get_args(kind))
        if get_origin(kind) in (types.UnionType, Union):
            return optional_decoder(self.decoder(get_args(kind)[0]))
        if is_dataclass(kind):
            return self.struct_decoder(kind)
        assert issubclass(kind, IntEnum), kind
        return enum_decoder(kind)

    def tuple_decoder(self, args: tuple[Any, ...]) -> Convert:
        if args[1:] == (...,):
            item = self.decoder(args[0])
            return lambda raw: tuple([item(one) for one in array(raw)])
        items = [self.decoder(arg) for arg in args]
        size = len(items)
        return lambda raw: tuple([f(one) for f, one in zip(items, array(raw, size, size), strict=True)])

    def struct_decoder(self, kind: Any) -> Convert:
        order = self.order(kind)
        items = [(name, self.decoder(hint)) for name, hint in order]
        declared = [f.name for f in fields(kind)]
        assert all(f.default is not MISSING for f in fields(kind) if f.name not in dict(order)), kind
        in_order = [name for name, _ in order] == declared[: len(order)]
        size = len(items)

        def decode(raw: Any) -> Any:
            if type(raw) is not list or len(raw) != size:
                raise WireError(f"got {raw!r:.60}, expected {kind.__name__}, an array of {size}")
            if in_order:
                return kind(*[f(one) for (_, f), one in zip(items, raw, strict=True)])
            return kind(**{name: f(one) for (name, f), one in zip(items, raw, strict=True)})

        return decode

    def decode_command(self, raw: Any) -> Command:
        index, payload = array(array(raw, 1, 1)[0], 2, 2)
        if not 0 <= whole(index) < len(self.commands):
            raise WireError(f"got a batch command with index {index}, expected 0 to {len(self.commands) - 1}")
        command: Command = self.decoder(self.commands[index])(payload)
        return command

    def make_encoder(self, kind: Any) -> Convert | None:
        if isinstance(kind, NewType):
            return self.encoder(kind.__supertype__)
        if get_origin(kind) is tuple:
            return self.tuple_encoder(get_args(kind))
        if get_origin(kind) in (types.UnionType, Union):
            inner = self.encoder(get_args(kind)[0])
            return lambda value: [False] if value is None else [True, inner(value) if inner else value]
        if is_dataclass(kind):
            return self.struct_encoder(kind)
        assert issubclass(kind, IntEnum), kind
        return int

    def tuple_encoder(self, args: tuple[Any, ...]) -> Convert:
        if args[1:] == (...,):
            item = self.encoder(args[0])
            return (lambda value: [item(one) for one in value]) if item else list
        items = [self.encoder(arg) for arg in args]
        return lambda value: [f(one) if f else one for f, one in zip(items, value, strict=True)]

    def struct_encoder(self, kind: Any) -> Convert:
        items = [(name, self.encoder(hint)) for name, hint in self.order(kind)]
        return lambda value: [f(getattr(value, name)) if f else getattr(value, name) for name, f in items]


def optional_decoder(inner: Convert) -> Convert:
    def decode(raw: Any) -> Any:
        has = array(raw, 1, 2)
        if len(has) != 1 + bool(has[0]):
            raise WireError(f"got {raw!r:.60}, expected [false] or [true, value]")
        return inner(has[1]) if has[0] else None

    return decode


def enum_decoder(kind: type[IntEnum]) -> Convert:
    known = {int(member): member for member in kind}

    def decode(raw: Any) -> IntEnum:
        if whole(raw) not in known:
            raise WireError(f"got {raw}, expected {kind.__name__}, one of {sorted(known)}")
        return known[raw]

    return decode
