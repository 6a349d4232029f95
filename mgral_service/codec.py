"""JSON <-> the frozen values of the domain: all text is turned into values here.

Strict both ways: a number is not a string, an unknown key is refused, NaN is neither read nor
written, so whatever was encoded can be decoded again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from mgral_service.domain.errors import InvalidInput, Unreadable
from mgral_service.domain.recipes import MOVED_OF_DATASETS, completed, refuse_moved
from mgral_service.domain.specs import CycleSpec, DatasetSpec, ExperimentSpec

T = TypeVar("T")

_adapter: Callable[[Any], TypeAdapter[Any]] = lru_cache(maxsize=256)(TypeAdapter)


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
    data = plain(value)
    try:
        text = json.dumps(data, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    except ValueError:
        where = _non_finite(data, "value") or "value"
        raise InvalidInput(where, "must be a finite number") from None
    _bytes(text)
    return text


def decode(kind: type[T], text: str | bytes) -> T:
    """The value in JSON text; InvalidInput names the first wrong key."""
    try:
        value: T = _adapter(kind).validate_json(_bytes(text), strict=True)
    except ValidationError as error:
        raise _first_fault(error) from None
    return value


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


def cycle_spec(data: Any) -> CycleSpec:
    """A cycle as a user wrote it, in dicts and lists, completed by the recipe of its `method`.

    InvalidInput names the first wrong key; for one of an earlier version also what to write.
    """
    return build(CycleSpec, _cycle_keys(data))


def dataset_spec(data: Any) -> DatasetSpec:
    """A dataset as a user wrote it; InvalidInput as `cycle_spec`."""
    return build(DatasetSpec, _dataset_keys(data))


def experiment_spec(data: Any) -> ExperimentSpec:
    """An experiment as a user wrote it; InvalidInput as `cycle_spec`."""
    keys = dict(data) if isinstance(data, Mapping) else {}
    for part, keys_of in (("dataset", _dataset_keys), ("cycle", _cycle_keys)):
        if part in keys:
            try:
                keys[part] = keys_of(keys[part])
            except InvalidInput as error:
                raise InvalidInput(f"{part}.{error.where}", error.what) from None
    return build(ExperimentSpec, keys)


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


def _cycle_keys(data: Any) -> Any:
    return completed(data) if isinstance(data, Mapping) else data


def _dataset_keys(data: Any) -> Any:
    if isinstance(data, Mapping):
        refuse_moved(data, MOVED_OF_DATASETS)
    return data


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
        path = _non_finite(item, f"{where}.{key}")
        if path:
            return path
    return None


def _first_fault(error: ValidationError) -> InvalidInput:
    fault = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in fault["loc"]) or "value"
    if fault["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return InvalidInput(where, "is no setting: docs/settings.md lists them all")
    return InvalidInput(where, fault["msg"])
