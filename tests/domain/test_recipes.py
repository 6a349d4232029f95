"""A method is a whole recipe of defaults, and keys of earlier versions are refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from mgral_service import codec
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.recipes import MOVED, completed
from mgral_service.domain.specs import CycleSpec

GIVEN = {"dataset": "d", "budget": 5}


def spec_of(given: dict[str, Any]) -> CycleSpec:
    return codec.build(CycleSpec, completed(GIVEN | given))


def test_without_a_method_the_defaults_are_those_of_the_specs() -> None:
    assert spec_of({}) == CycleSpec("d", 5)
    assert spec_of({"method": "default"}) == CycleSpec("d", 5)


def test_the_paper_s_method_fills_what_was_not_given() -> None:
    spec = spec_of({"method": "paper", "table": {"records": 12}, "detector": {"steps": 30}})
    assert spec.choice == "agent"
    assert spec.table.records == 12
    assert spec.table.steps == 30
    assert spec.table.advanced.value_model == "idw"
    assert spec.agent.iterations == 2200


def test_retinanet_takes_the_paper_s_values_on_coco() -> None:
    detector = {"name": "retinanet", "freeze_backbone": False, "size": 320}
    spec = spec_of({"method": "paper", "detector": detector})
    assert (spec.table.records, spec.table.objective) == (30, "sed")
    assert spec.agent.iterations == 800


@pytest.mark.parametrize("key", sorted(MOVED))
def test_a_key_of_an_earlier_version_is_refused_with_what_to_write(key: str) -> None:
    outer, _, inner = key.rpartition(".")
    given = {outer: {inner: 1}} if outer else {inner: 1}
    with pytest.raises(InvalidInput, match=MOVED[key].split(":")[0]) as caught:
        completed(GIVEN | given)
    assert caught.value.where == key


def test_a_choice_of_an_earlier_version_is_refused_with_what_to_write() -> None:
    with pytest.raises(InvalidInput, match='choice: "portfolio" was removed: set "posterior"'):
        completed({"dataset": "a", "budget": 1, "choice": "portfolio"})
