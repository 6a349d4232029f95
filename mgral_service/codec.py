"""JSON <-> the frozen values of `domain.records`: the one place that turns text into values.

Strict both ways: a number is not a string, an unknown key is refused, NaN is neither read nor
written, so whatever was encoded can be decoded again.
"""

from __future__ import annotations

import json
import math
from functools import lru_cache
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from mgral_service.domain.errors import InvalidInput, Unreadable

T = TypeVar("T")


@lru_cache(maxsize=256)
def _cached(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    known: Any = kind  # a type is hashable, which mypy does not take from type[T]
    return cast("TypeAdapter[T]", _cached(known))


def _bytes(text: str | bytes) -> bytes:
    try:
        return text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError:
        raise InvalidInput("value", "holds a lone surrogate: not valid Unicode") from None


def plain(value: Any) -> Any:
    """A value of `domain.records` as dicts, lists, numbers and strings."""
    return _adapter(type(value)).dump_python(value, mode="json")


def encode(value: Any) -> str:
    """JSON text of a value of `domain.records`; InvalidInput for NaN, infinity, lone surrogates."""
    return _text(plain(value))


def decode(kind: type[T], text: str | bytes) -> T:
    """The value in JSON text; InvalidInput names the first wrong key."""
    try:
        return _adapter(kind).validate_json(_bytes(text), strict=True)
    except ValidationError as error:
        raise _first_fault(error) from None


def stored(kind: type[T], text: str | bytes, what: str, name: str) -> T:
    """`decode` of what a store holds; Unreadable if that is damaged, or of a version with other
    limits. what, name: of the thing it is, for the error.
    """
    try:
        return decode(kind, text)
    except InvalidInput as error:
        raise Unreadable(what, name, str(error)) from None


def build(kind: type[T], data: Any) -> T:
    """The value in dicts and lists, as TOML gives them; InvalidInput names the first wrong key."""
    try:
        text = json.dumps(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput("value", f"cannot be written as JSON: {error}") from None
    return decode(kind, text)


def encode_loose(data: Any) -> str:
    """JSON text of any dicts and lists, for people to look at: NaN and infinity become null."""
    try:
        return to_json(data, inf_nan_mode="null").decode()
    except PydanticSerializationError as error:
        raise InvalidInput("value", f"cannot be written as JSON: {error}") from None


def decode_loose(text: str | bytes) -> Any:
    """What any JSON text holds; InvalidInput if it is not JSON, NaN and infinity included."""
    try:
        data = from_json(_bytes(text), allow_inf_nan=False)
    except ValueError as error:
        raise InvalidInput("body", f"is not valid JSON: {error}") from None
    where = _non_finite(data, "body")
    if where:  # 1e999 is JSON by its grammar, and no number
        raise InvalidInput(where, "must be a finite number")
    return data


def _text(data: Any) -> str:
    try:
        text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except ValueError:
        where = _non_finite(data, "value") or "value"
        raise InvalidInput(where, "must be a finite number") from None
    _bytes(text)
    return text


def _non_finite(data: Any, where: str) -> str | None:
    """Path of the first number that is not finite."""
    if isinstance(data, float):
        return None if math.isfinite(data) else where
    items: Any = ()
    if isinstance(data, dict):
        items = data.items()
    elif isinstance(data, list | tuple):
        items = enumerate(data)
    for key, item in items:
        found = _non_finite(item, f"{where}.{key}")
        if found:
            return found
    return None


def _first_fault(error: ValidationError) -> InvalidInput:
    fault = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in fault["loc"]) or "value"
    return InvalidInput(where, fault["msg"])
