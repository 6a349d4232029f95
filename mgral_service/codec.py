"""JSON <-> the frozen values of `domain.records`, strict both ways: the one place that turns text into values."""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from mgral_service.domain.errors import InvalidInput

T = TypeVar("T")


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)


def encode(value: Any) -> str:
    """JSON text of a value of `domain.records`."""
    return _adapter(type(value)).dump_json(value).decode()


def plain(value: Any) -> Any:
    """The same as dicts, lists, numbers and strings."""
    return _adapter(type(value)).dump_python(value, mode="json")


def decode(kind: type[T], text: str | bytes) -> T:
    """The value in JSON text; InvalidInput names the first wrong key."""
    try:
        return _adapter(kind).validate_json(text)
    except ValidationError as error:
        raise _first_fault(error) from None


def build(kind: type[T], data: Any) -> T:
    """The value in dicts and lists, as TOML gives them; InvalidInput names the first wrong key."""
    try:
        return _adapter(kind).validate_python(data)
    except ValidationError as error:
        raise _first_fault(error) from None


def _first_fault(error: ValidationError) -> InvalidInput:
    fault = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in fault["loc"]) or "value"
    return InvalidInput(where, fault["msg"])
