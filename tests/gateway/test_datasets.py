from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from mgral_service.domain.errors import DatasetRefused
from mgral_service.domain.records import DatasetImages, DatasetRecord
from mgral_service.domain.specs import DatasetSpec
from mgral_service.gateway.app import GatewayPorts
from tests.fakes import boxes_in
from tests.gateway.conftest import local, ports_over
from tests.memory_stores import memory_stores

SPEC = {"name": "cars", "root": "/data"}


def test_a_dataset_is_registered_with_its_report(http: TestClient) -> None:
    answer = http.post("/datasets", json=SPEC)
    assert (answer.status_code, answer.headers["location"]) == (201, "/datasets/cars")
    body = answer.json()
    assert (body["labelled"], body["unlabelled"], body["scoring"], body["test"]) == (2, 6, 1, 0)
    assert body["report"]["accepted_images"] == 9
    assert body["spec"]["format"] == "coco"
    assert http.get("/datasets/cars").json() == body


def test_the_same_again_is_the_same_and_another_is_refused(http: TestClient) -> None:
    first = http.post("/datasets", json=SPEC)
    again = http.post("/datasets", json=SPEC)
    assert (again.status_code, again.json()) == (200, first.json())
    other = http.post("/datasets", json=SPEC | {"root": "/other"})
    assert (other.status_code, other.json()["code"]) == (409, "ALREADY_EXISTS")


def test_a_dataset_that_cannot_be_used_says_why() -> None:
    def refuse(spec: DatasetSpec) -> tuple[DatasetRecord, DatasetImages]:
        raise DatasetRefused("train.json: annotations[3].bbox", "is not four numbers")

    with local(ports_over(memory_stores(), ingest=refuse)) as http:
        answer = http.post("/datasets", json=SPEC)
        assert (answer.status_code, answer.json()["code"]) == (422, "DATASET_REFUSED")
        assert "annotations[3].bbox: is not four numbers" in answer.json()["detail"]
        assert http.get("/datasets/cars").status_code == 404


def test_names_are_checked(http: TestClient) -> None:
    for name in ("", "../x", "a/b", "x" * 64, "ü"):
        assert http.post("/datasets", json=SPEC | {"name": name}).status_code == 422


@pytest.mark.parametrize(("key", "advice"), [("seed", "removed"), ("scoring_share", "advanced")])
def test_a_key_of_an_earlier_version_is_refused(http: TestClient, key: str, advice: str) -> None:
    answer = http.post("/datasets", json=SPEC | {key: 1})
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_INPUT")
    (error,) = answer.json()["errors"]
    assert error["pointer"] == f"#/{key}"
    assert advice in error["detail"]


def test_datasets_are_paged_by_name(http: TestClient) -> None:
    for name in ("b", "a"):
        http.post("/datasets", json=SPEC | {"name": name})
    page = http.get("/datasets", params={"page_size": 2}).json()
    assert [dataset["name"] for dataset in page["datasets"]] == ["a", "b"]
    token = page["next_page_token"]
    page = http.get("/datasets", params={"page_size": 2, "page_token": token}).json()
    assert [dataset["name"] for dataset in page["datasets"]] == ["digits"]
    assert page["next_page_token"] == ""


def test_counts_follow_the_annotations(http: TestClient, ports: GatewayPorts) -> None:
    ports.stores.datasets.add_labels("digits", "cyc_1", boxes_in("img_0", "img_3"))
    body = http.get("/datasets/digits").json()
    assert (body["labelled"], body["unlabelled"]) == (4, 4)
