"""A user sees few settings; the rest stands under `advanced`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints

from mgral_service.domain.specs import ExperimentSpec

MOST = 34


def settings_of(spec: type[Any], path: str = "") -> Iterator[str]:
    """Paths of the leaves that are not advanced."""
    kinds = get_type_hints(spec)
    for field in fields(spec):
        kind = kinds[field.name]
        if field.name == "advanced":
            continue
        if is_dataclass(kind):
            assert isinstance(kind, type)
            yield from settings_of(kind, f"{path}{field.name}.")
        else:
            yield path + field.name


def test_a_user_sees_few_settings() -> None:
    settings = list(settings_of(ExperimentSpec))
    assert "cycle.table.records" in settings
    assert "cycle.detector.warmup" not in settings
    assert len(settings) <= MOST, settings
