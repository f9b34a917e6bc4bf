"""An Avro encoder made for one schema: the bytes that fastavro writes, in a third of its time.

Alert packets are records of many nullable numbers. Neighbouring numbers of fixed width are packed by one call; numbers
and texts that come again in every packet (of exposures, of nights) are remembered as bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from typing import Any

Encode = Callable[[Any], bytes]

_FIXED = {"float": "f", "double": "d"}
_SMALL = 4096
_REMEMBERED = 1 << 15
_LONGEST_TEXT = 256
MISFITS = (ValueError, TypeError, KeyError, AttributeError, OverflowError, struct.error)
"""What an encoder raises for what does not fit."""
_LIMITS = {"int": 1 << 31, "long": 1 << 63}


class RecordEncoder:
    """Encodes dictionaries as one record of a parsed schema whose parts are all spelled out or named before.

    Unions are of null and one other type. Raises ValueError, TypeError, KeyError, OverflowError or `struct.error` for
    what does not fit: missing, foreign or of the wrong type.
    """

    def __init__(self, schema: Mapping[str, Any], known: dict[str, Encode] | None = None) -> None:
        known = {} if known is None else known
        self._n_fields = len(schema["fields"])
        self._parts = [part for group in _runs(schema["fields"]) for part in _parts_of(group, known)]
        known[schema["name"]] = self

    def __call__(self, record: Mapping[str, Any]) -> bytes:
        """Return the record's bytes, without header."""
        if len(record) != self._n_fields:
            raise ValueError(f"the record has {len(record)} fields, needs {self._n_fields}")
        return b"".join([part(record) for part in self._parts])


def zigzag(value: int) -> bytes:
    """Return an Avro int or long."""
    if 0 <= value < _SMALL:
        return _SMALL_ONES[value]
    return _zigzag(value)


def _plain_zigzag(value: int) -> bytes:
    rest, out = (value << 1) ^ (value >> 63), bytearray()
    while rest > 0x7F:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


_zigzag = lru_cache(maxsize=_REMEMBERED)(_plain_zigzag)
_SMALL_ONES = tuple(map(_plain_zigzag, range(_SMALL)))


def _runs(fields: Sequence[Mapping[str, Any]]) -> Iterator[list[tuple[str, Any, int]]]:
    """Yield the fields (name, type, index of the type in its union or -1), neighbours of fixed width together."""
    plain = [(field["name"], *_branch(field["type"])) for field in fields]
    for is_fixed, group in groupby(plain, key=lambda item: _is_fixed(item[1])):
        if is_fixed:
            yield list(group)
        else:
            yield from ([item] for item in group)


def _branch(declared: Any) -> tuple[Any, int]:
    """Return the type that is not null, and its place in the union; -1 where it may not be null."""
    if not isinstance(declared, list):
        return declared, -1
    kinds = [kind for kind in declared if kind != "null"]
    if len(kinds) != 1 or len(declared) != 2:
        raise TypeError(f"a union must be of null and one other type: {declared}")
    return kinds[0], declared.index(kinds[0])


def _is_fixed(kind: Any) -> bool:
    return isinstance(kind, str) and kind in _FIXED


def _parts_of(group: list[tuple[str, Any, int]], known: dict[str, Encode]) -> list[Encode]:
    if _is_fixed(group[0][1]) and len(group) > 1:
        return [_numbers_together(group)]
    return [_field(name, _encoder(kind, known), branch) for name, kind, branch in group]


def _numbers_together(group: list[tuple[str, Any, int]]) -> Encode:
    """Return the encoder of neighbouring floats: one call where none is null, one by one else."""
    take = itemgetter(*(name for name, _, _ in group))
    layout, template, places = "<", list[Any](), list[int]()
    for _, kind, branch in group:
        if branch >= 0:
            layout += "B"
            template.append(2 * branch)
        places.append(len(template))
        layout += _FIXED[kind]
        template.append(0.0)
    pack = struct.Struct(layout).pack
    is_nullable = [branch >= 0 for _, _, branch in group]
    every_second = all(is_nullable)
    one_by_one = [_maybe(_fixed(kind), branch) for _, kind, branch in group]
    all_null = b"".join(b"\x02" if branch == 0 else b"\0" for _, _, branch in group) if every_second else None

    def encode(record: Mapping[str, Any]) -> bytes:
        """Return the run's bytes."""
        values = take(record)
        if None in values:
            if all_null is not None and values.count(None) == len(values):
                return all_null
            return b"".join([one(value) for one, value in zip(one_by_one, values, strict=True)])
        filled = template.copy()
        if every_second:
            filled[1::2] = values
        else:
            for place, value in zip(places, values, strict=True):
                filled[place] = value
        return pack(*filled)

    return encode


def _field(name: str, encode: Encode, branch: int) -> Encode:
    whole = _maybe(encode, branch)
    return lambda record: whole(record[name])


def _maybe(encode: Encode, branch: int) -> Encode:
    """Return the encoder of a value that may be null."""
    if branch < 0:
        return encode
    head, null = zigzag(branch), zigzag(1 - branch)
    return lambda value: null if value is None else head + encode(value)


def _encoder(kind: Any, known: dict[str, Encode]) -> Encode:
    if isinstance(kind, Mapping):
        if kind["type"] == "array":
            return _array(_encoder(kind["items"], known))
        return RecordEncoder(kind, known) if kind["type"] == "record" else _encoder(kind["type"], known)
    if kind in known:
        return known[kind]
    if kind in _FIXED:
        return _fixed(kind)
    if kind in _LIMITS:
        return _whole(_LIMITS[kind])
    return {"string": _text, "bytes": _bytes, "boolean": _boolean}[kind]


def _fixed(kind: str) -> Encode:
    return struct.Struct("<" + _FIXED[kind]).pack


def _whole(limit: int) -> Encode:
    def encode(value: Any) -> bytes:
        """Return an int or long; a bool is none."""
        if type(value) is not int:
            raise TypeError(f"{value!r} is not an integer")
        if 0 <= value < _SMALL:
            return _SMALL_ONES[value]
        if not -limit <= value < limit:
            raise OverflowError(f"{value} does not fit")
        return _zigzag(value)

    return encode


def _text(value: Any) -> bytes:
    if type(value) is not str:
        raise TypeError(f"{value!r} is not text")
    return _remembered_text(value) if len(value) < _LONGEST_TEXT else _plain_text(value)


def _plain_text(value: str) -> bytes:
    data = value.encode()
    return zigzag(len(data)) + data


_remembered_text = lru_cache(maxsize=_REMEMBERED)(_plain_text)


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"{type(value)} is not bytes")
    return zigzag(len(value)) + value


def _boolean(value: Any) -> bytes:
    if type(value) is not bool:
        raise TypeError(f"{value!r} is not true or false")
    return b"\x01" if value else b"\0"


def _array(item: Encode) -> Encode:
    def encode(values: Sequence[Any]) -> bytes:
        """Return one block of items and the end."""
        if not isinstance(values, list | tuple):
            raise TypeError(f"{type(values)} is no list")
        if not values:
            return b"\0"
        return b"".join([zigzag(len(values)), *map(item, values), b"\0"])

    return encode


def misfit(schema: Any, value: Any, *, path: str = "", known: dict[str, Mapping[str, Any]] | None = None) -> str | None:
    """Return the first field that does not fit a schema and why, None if all do: to explain, not to encode."""
    known = {} if known is None else known
    if isinstance(schema, list):
        if value is None and "null" in schema:
            return None
        kind, _ = _branch(schema)
        return misfit(kind, value, path=path, known=known)
    if isinstance(schema, str) and schema in known:
        schema = known[schema]
    if isinstance(schema, Mapping) and schema["type"] == "record":
        known[schema["name"]] = schema
        return _misfit_of_record(schema, value, path, known)
    if isinstance(schema, Mapping) and schema["type"] == "array":
        if not isinstance(value, list | tuple):
            return f"{path} is {value!r:.60}, needs a list"
        found = (misfit(schema["items"], v, path=f"{path}[{k}]", known=known) for k, v in enumerate(value))
        return next((fault for fault in found if fault), None)
    try:
        _encoder(schema, {})(value)
    except MISFITS:
        return f"{path} is {value!r:.60}, needs {schema}"
    return None


def _misfit_of_record(
    schema: Mapping[str, Any], value: Any, path: str, known: dict[str, Mapping[str, Any]]
) -> str | None:
    if not isinstance(value, Mapping):
        return f"{path or 'the record'} is {value!r:.60}, needs a record"
    names = [field["name"] for field in schema["fields"]]
    if lacking := [name for name in names if name not in value]:
        return f"{path}.{lacking[0]} is missing".lstrip(".")
    if foreign := [name for name in value if name not in names]:
        return f"{path}.{foreign[0]} is no field".lstrip(".")
    found = (
        misfit(field["type"], value[field["name"]], path=f"{path}.{field['name']}".lstrip("."), known=known)
        for field in schema["fields"]
    )
    return next((fault for fault in found if fault), None)
