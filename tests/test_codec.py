from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from mgral_service import codec
from mgral_service.domain.errors import InvalidInput, Unreadable
from mgral_service.domain.records import CycleRecord, Event, Problem, Selection, Status
from mgral_service.domain.report import CycleReport, PhaseTime, RewardPoint
from mgral_service.domain.specs import AgentAdvanced, AgentSpec, CycleSpec, DatasetSpec
from tests.fakes import cycle_record, dataset_images, dataset_record, lookup_record

VALUES: list[Any] = [
    cycle_record(),
    replace(cycle_record(), status=Status.FAILED, problem=Problem("X", "ünïcode \U0001f600")),
    dataset_record(),
    dataset_images(),
    lookup_record(3),
    CycleSpec("digits", 3, agent=AgentSpec(advanced=AgentAdvanced(temperature=(1.0, 0.1)))),
    Selection("cyc_1", "digits", "mgral", "mgral", ()),
    CycleReport("c", CycleSpec("d", 1), 1, 2, 3, 4, (PhaseTime("FITTING", 0.1 + 0.2, "x"),)),
    Event("1-0", "progress", {"done": 1, "list": [1, 2.5, None]}),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_value_comes_back(value: Any) -> None:
    assert codec.decode(type(value), codec.encode(value)) == value
    assert codec.decode(type(value), codec.encode(value).encode()) == value
    assert codec.build(type(value), codec.plain(value)) == value


def test_what_a_store_holds_is_named_where_it_cannot_be_read() -> None:
    value = VALUES[0]
    assert codec.stored(type(value), codec.encode(value), "cycle", "c1") == value
    with pytest.raises(Unreadable, match=r"report of cycle 'c1' .* \(budget: Field required\)"):
        codec.stored(CycleSpec, '{"dataset":"a"}', "report of cycle", "c1")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ('{"dataset":"a","budget":"3"}', "budget"),
        ('{"dataset":"a","budget":true}', "budget"),
        ('{"dataset":"a","budget":3.0}', "budget"),
        ('{"dataset":"a","budget":NaN}', "budget"),
        (
            '{"dataset":"a","budget":3,"agent":{"advanced":{"memory":1e999}}}',
            "agent.advanced.memory",
        ),
        (
            '{"dataset":"a","budget":3,"agent":{"advanced":{"temperature":[1]}}}',
            "agent.advanced.temperature.1",
        ),
        ('{"dataset":"a","budget":3,"agent":{"speed":1}}', "agent.speed"),
        ('{"dataset":"a","budget":3,"detector":{"size":10}}', "detector.size"),
        ('{"dataset":"a","budget":0}', "budget"),
        ('{"dataset":"a"}', "budget"),
        ('{"dataset":"\\ud800","budget":3}', "value"),
        ('{"dataset":"\ud800","budget":3}', "value"),
        ('{"dataset":"a","budget":' + "9" * 5000 + "}", "value"),
        ("[" * 200_000, "value"),
        (b"\xff", "value"),
        ("", "value"),
        ("[]", "value"),
    ],
)
def test_what_is_wrong_is_named(text: str | bytes, where: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        codec.decode(CycleSpec, text)
    assert caught.value.where == where


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_number_that_json_has_not_is_not_written(number: float) -> None:
    with pytest.raises(InvalidInput, match=r"value\.loss: must be a finite number"):
        codec.encode(RewardPoint(1, 0.5, 0.5, number))


def test_a_text_that_unicode_has_not_is_not_written() -> None:
    with pytest.raises(InvalidInput, match="surrogate"):
        codec.encode(DatasetSpec("a", "\udcff"))


def test_toml_is_held_to_the_same() -> None:
    assert (
        codec.build(CycleSpec, {"dataset": "a", "budget": 2, "agent": {"iterations": 9}}).budget
        == 2
    )
    for data in ({"dataset": "a", "budget": "2"}, {"dataset": "a", "budget": {1}}, {1: 2}, None):
        with pytest.raises(InvalidInput):
            codec.build(CycleSpec, data)


def test_a_cycle_is_completed_by_its_method() -> None:
    cycle = codec.cycle_spec({"dataset": "a", "budget": 2, "method": "paper", "agent": {}})
    assert (cycle.choice, cycle.table.advanced.value_model) == ("agent", "idw")
    assert codec.cycle_spec(codec.plain(cycle)) == cycle
    assert codec.cycle_spec({"dataset": "a", "budget": 2}) == CycleSpec("a", 2)


@pytest.mark.parametrize(
    ("data", "where", "advice"),
    [
        ({"cycle": {"reward": "ap"}}, "cycle.reward", "advanced.reward"),
        ({"cycle": {"table": {"views": 4}}}, "cycle.table.views", "table.advanced.augmentations"),
        ({"dataset": {"seed": 1}}, "dataset.seed", "removed"),
        ({"dataset": [], "cycle": 1}, "dataset", "object"),
        ([], "dataset", "required"),
    ],
)
def test_a_key_of_an_earlier_version_is_named_with_the_new_one(
    data: Any, where: str, advice: str
) -> None:
    with pytest.raises(InvalidInput, match=advice) as caught:
        codec.experiment_spec(data)
    assert caught.value.where == where
    if isinstance(data, dict) and len(data) == 1:
        ((part, keys),) = data.items()
        read = {"cycle": codec.cycle_spec, "dataset": codec.dataset_spec}[part]
        with pytest.raises(InvalidInput, match=advice) as caught:
            read(keys)
        assert f"{part}.{caught.value.where}" == where


def test_loose_json_is_json_still() -> None:
    data = {"a": [1, 2.5, None, "ü"], "b": {"c": True}}
    assert codec.decode_loose(codec.encode_loose(data)) == data
    assert codec.encode_loose({"a": math.nan, "b": Status.QUEUED}) == '{"a":null,"b":"QUEUED"}'
    for text in ("NaN", "[1e999]", '{"a":{"b":-1e999}}', "", "{", '"\\ud800"', "[" * 100_000):
        with pytest.raises(InvalidInput):
            codec.decode_loose(text)
    with pytest.raises(InvalidInput, match=r"body\.a\.1"):
        codec.decode_loose('{"a": [0, 1e999]}')


def test_a_stored_record_of_an_older_day_needs_all_its_fields() -> None:
    with pytest.raises(InvalidInput, match="status"):
        codec.decode(CycleRecord, codec.encode(cycle_record()).replace("QUEUED", "DREAMING"))
