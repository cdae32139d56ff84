"""attrs classes <-> plain data (what JSON holds), by their type hints.

Used for everything that qlaunch saves itself: plans, cached facts, leases. Profiles are written by
people and read by `qlaunch.profile`, which explains mistakes; here one is a damaged file.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, Union

import attrs

T = TypeVar("T")


class RecordError(ValueError):
    """The data does not have the shape of the class: a damaged or foreign file."""


def to_plain(value: object) -> Any:
    """`value` as dicts, lists, strings, numbers, booleans and None."""
    if attrs.has(type(value)):
        return {name: to_plain(getattr(value, name)) for name in _hints(type(value))}
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list | frozenset | set):
        items = sorted(value) if isinstance(value, frozenset | set) else value
        return [to_plain(item) for item in items]
    return value


def from_plain(cls: type[T], data: object, where: str = "") -> T:
    """The `cls` that `to_plain` wrote as `data`; unknown keys are ignored, missing ones take
    their default.

    Raises: RecordError naming the place.
    """
    return typing.cast(T, _read(cls, data, where or cls.__name__))


_HINTS: dict[type, dict[str, Any]] = {}


def _hints(cls: type) -> dict[str, Any]:
    if cls not in _HINTS:
        hints = typing.get_type_hints(cls)
        _HINTS[cls] = {field.name: hints[field.name] for field in attrs.fields(cls)}
    return _HINTS[cls]


def _read(hint: Any, data: object, where: str) -> object:
    if hint is Any or hint is object:
        return data
    origin = typing.get_origin(hint)
    if origin is Union or origin is types.UnionType:
        return _read_union(typing.get_args(hint), data, where)
    if origin is typing.Literal:
        return _checked(data in typing.get_args(hint), data, where, hint)
    if origin in (tuple, list, frozenset):
        return _read_items(origin, typing.get_args(hint), data, where)
    if origin is not None and issubclass(origin, Mapping):
        _checked(isinstance(data, dict), data, where, "a table")
        value_hint = typing.get_args(hint)[1]
        return {key: _read(value_hint, item, f"{where}.{key}") for key, item in dict(data).items()}  # type: ignore[call-overload]
    if isinstance(hint, type) and attrs.has(hint):
        return _read_class(hint, data, where)
    if hint is float:
        _checked(type(data) in (int, float), data, where, hint)
        try:
            return float(typing.cast(float, data))
        except OverflowError as error:
            raise RecordError(f"{where}: the number is too large") from error
    return _checked(type(data) is hint, data, where, hint)


def _read_union(options: tuple[Any, ...], data: object, where: str) -> object:
    if data is None and type(None) in options:
        return None
    problem: RecordError | None = None
    for option in options:
        if option is type(None):
            continue
        try:
            return _read(option, data, where)
        except RecordError as error:
            problem = error
    raise problem or RecordError(f"{where}: must not be null")


def _read_items(origin: Any, options: tuple[Any, ...], data: object, where: str) -> object:
    _checked(isinstance(data, list), data, where, "a list")
    items = list(typing.cast("list[object]", data))
    if origin is tuple and options[-1] is not Ellipsis:
        _checked(len(items) == len(options), data, where, f"{len(options)} items")
        return tuple(
            _read(hint, item, f"{where}[{at}]")
            for at, (hint, item) in enumerate(zip(options, items, strict=True))
        )
    return origin(_read(options[0], item, f"{where}[{at}]") for at, item in enumerate(items))


def _read_class(cls: type, data: object, where: str) -> object:
    _checked(isinstance(data, dict), data, where, "a table")
    table = typing.cast("dict[str, object]", data)
    given = {
        name: _read(hint, table[name], f"{where}.{name}")
        for name, hint in _hints(cls).items()
        if name in table
    }
    try:
        return cls(**given)
    except TypeError as error:
        raise RecordError(f"{where}: {error}") from error


def _checked(good: bool, data: object, where: str, wanted: object) -> object:
    if not good:
        said = type(data).__name__ if isinstance(data, list | dict) else repr(str(data)[:40])
        raise RecordError(f"{where}: {said} is not {getattr(wanted, '__name__', wanted)}")
    return data
