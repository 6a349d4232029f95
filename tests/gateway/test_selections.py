from __future__ import annotations

import threading
from typing import Any

import pytest
from starlette.testclient import TestClient

from mgral_service.domain.records import Status
from mgral_service.gateway import selections
from mgral_service.gateway.app import GatewayPorts
from tests.fakes import boxes_in
from tests.gateway.conftest import FakeLauncher, reach


@pytest.fixture
def cycle(http: TestClient, ports: GatewayPorts) -> str:
    """A cycle that selected img_0 and img_1."""
    name = str(http.post("/cycles", json={"dataset": "digits", "budget": 2}).json()["id"])
    reach(ports, name, Status.SELECTED)
    return name


def ids(page: dict[str, Any]) -> list[str]:
    return [image["image_id"] for image in page["images"]]


def test_a_selection_comes_with_scores_and_reasons(http: TestClient, cycle: str) -> None:
    page = http.get(f"/selections/{cycle}").json()
    assert ids(page) == ["img_0", "img_1"]
    assert page["images"][0]["reason"]
    assert (page["requested"], page["strategy"], page["total"]) == ("mgral", "entropy", 2)
    assert page["next_page_token"] == ""


def test_another_budget_ranks_again_in_pages(http: TestClient, cycle: str) -> None:
    ranked: list[str] = []
    query: dict[str, Any] = {"budget": 5, "page_size": 2}
    while True:
        page = http.get(f"/selections/{cycle}", params=query).json()
        ranked += ids(page)
        if not page["next_page_token"]:
            break
        query["page_token"] = page["next_page_token"]
    assert ranked == ["img_5", "img_4", "img_3", "img_2", "img_1"]
    answer = http.get(f"/selections/{cycle}", params=query | {"budget": 4})
    assert answer.status_code == 400


def test_a_selection_as_csv_and_coco(http: TestClient, cycle: str) -> None:
    answer = http.get(f"/selections/{cycle}?format=csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert answer.text.split("\r\n")[:2] == [
        "rank,image_id,score,reason",
        '1,img_0,1.0,"""img_0"" is best"',
    ]
    answer = http.get(f"/selections/{cycle}?format=coco&budget=1")
    assert answer.json() == {"images": ["img_5"]}


def test_a_selection_that_did_not_change_is_not_sent_again(http: TestClient, cycle: str) -> None:
    answer = http.get(f"/selections/{cycle}")
    weak = {"If-None-Match": f'"other", W/{answer.headers["etag"]}'}  # as a proxy that packs it has
    assert http.get(f"/selections/{cycle}", headers=weak).status_code == 304
    headers = {"If-None-Match": answer.headers["etag"]}
    again = http.get(f"/selections/{cycle}", headers=headers)
    assert (again.status_code, again.content) == (304, b"")
    assert http.get(f"/selections/{cycle}?budget=1", headers=headers).status_code == 200


def test_a_selection_that_is_not_ready_says_when_to_ask(
    http: TestClient, ports: GatewayPorts
) -> None:
    name = http.post("/cycles", json={"dataset": "digits", "budget": 2}).json()["id"]
    answer = http.get(f"/selections/{name}")
    assert (answer.status_code, answer.json()["code"]) == (409, "CYCLE_NOT_READY")
    assert answer.headers["retry-after"] == "5"
    reach(ports, name, Status.CANCELLED)
    answer = http.get(f"/selections/{name}")
    assert answer.status_code == 409
    assert "retry-after" not in answer.headers
    assert http.get("/selections/nothing").status_code == 404


def test_annotations_go_to_the_dataset_and_a_driver(
    http: TestClient, ports: GatewayPorts, launcher: FakeLauncher, cycle: str
) -> None:
    answer = http.post(f"/cycles/{cycle}/annotations", json={"images": ["img_1", "img_0"]})
    assert answer.status_code == 202
    body = answer.json()
    assert (body["status"], body["matched"], body["boxes"]) == ("ANNOTATED", ["img_0", "img_1"], 2)
    ((name, labels),) = ports.stores.datasets.labels("digits")
    assert (name, labels.ids) == (cycle, ("img_0", "img_1"))
    assert launcher.launched == [(cycle, 1), (cycle, 2)]
    assert ports.stores.cycles.get(cycle).attempts == 2
    assert ports.stores.cycles.holder(cycle) is None
    again = http.post(f"/cycles/{cycle}/annotations", json={"images": ["img_1", "img_0"]})
    assert (again.status_code, "no more" in again.json()["detail"]) == (409, True)


@pytest.mark.parametrize("posted", [[], ["img_0"], ["img_0", "img_1", "img_4"]])
def test_an_incomplete_answer_is_refused_whole(
    http: TestClient, ports: GatewayPorts, cycle: str, posted: list[str]
) -> None:
    answer = http.post(f"/cycles/{cycle}/annotations", json={"images": posted})
    assert (answer.status_code, answer.json()["code"]) == (422, "INCOMPLETE_ANSWERS")
    answers = answer.json()["reconciliation"]
    assert answers["matched"] == [name for name in ("img_0", "img_1") if name in posted]
    assert answers["unknown"] == [name for name in posted if name == "img_4"]
    assert ports.stores.datasets.labels("digits") == ()
    assert ports.stores.cycles.get(cycle).status is Status.SELECTED


def test_a_part_is_kept_on_request(http: TestClient, ports: GatewayPorts, cycle: str) -> None:
    answer = http.post(f"/cycles/{cycle}/annotations?partial=true", json={"images": []})
    assert answer.status_code == 422
    answer = http.post(f"/cycles/{cycle}/annotations?partial=true", json={"images": ["img_1", "x"]})
    assert (answer.status_code, answer.json()["missing"]) == (202, ["img_0"])
    assert ports.stores.datasets.labels("digits")[0][1].ids == ("img_1",)


def test_an_image_is_labelled_once(http: TestClient, ports: GatewayPorts, cycle: str) -> None:
    ports.stores.datasets.add_labels("digits", "cyc_other", boxes_in("img_0"))
    both = {"images": ["img_0", "img_1"]}
    answer = http.post(f"/cycles/{cycle}/annotations", json=both)
    assert answer.status_code == 422
    (finding,) = answer.json()["reconciliation"]["refused"]
    assert (finding["record"], "cyc_other" in finding["problem"]) == ("img_0", True)
    answer = http.post(f"/cycles/{cycle}/annotations?partial=true", json=both)
    assert (answer.status_code, answer.json()["matched"]) == (202, ["img_1"])
    assert ports.stores.datasets.labels("digits")[1][1].ids == ("img_1",)


def test_annotations_before_the_selection_are_too_early(
    http: TestClient, ports: GatewayPorts
) -> None:
    name = http.post("/cycles", json={"dataset": "digits", "budget": 2}).json()["id"]
    answer = http.post(f"/cycles/{name}/annotations", json={"images": []})
    assert (answer.status_code, answer.json()["code"]) == (409, "CYCLE_NOT_READY")


@pytest.mark.parametrize("body", [b"NaN", b"[1e999]", b'{"a": "\\ud800"}', b"[" * 99_999, b"[]"])
def test_annotations_that_are_no_json_are_refused(
    http: TestClient, cycle: str, body: bytes
) -> None:
    headers = {"Content-Type": "application/json"}
    answer = http.post(f"/cycles/{cycle}/annotations", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_INPUT")


def test_of_two_answers_at_once_one_is_taken(
    http: TestClient, ports: GatewayPorts, launcher: FakeLauncher, cycle: str
) -> None:
    barrier, statuses = threading.Barrier(8), []

    def post() -> None:
        barrier.wait()
        answer = http.post(f"/cycles/{cycle}/annotations", json={"images": ["img_0", "img_1"]})
        statuses.append(answer.status_code)

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [202] + [409] * 7
    assert launcher.launched == [(cycle, 1), (cycle, 2)]


def test_a_driver_that_is_leaving_is_waited_for(
    http: TestClient, ports: GatewayPorts, cycle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = ports.stores.cycles.acquire(cycle, "driver", 60)
    answers = {"images": ["img_0", "img_1"]}
    monkeypatch.setattr(selections, "DRIVER_LEAVES_S", 0.1)
    answer = http.post(f"/cycles/{cycle}/annotations", json=answers)
    assert (answer.status_code, answer.json()["code"]) == (409, "LEASE_HELD")
    monkeypatch.setattr(selections, "DRIVER_LEAVES_S", 30.0)
    leaving = threading.Timer(0.2, ports.stores.cycles.release, (cycle, lease))
    leaving.start()
    assert http.post(f"/cycles/{cycle}/annotations", json=answers).status_code == 202
    leaving.join()


def test_kept_annotations_outlive_a_launch_that_fails(
    http: TestClient, ports: GatewayPorts, launcher: FakeLauncher, cycle: str
) -> None:
    launcher.down = True
    answer = http.post(f"/cycles/{cycle}/annotations", json={"images": ["img_0", "img_1"]})
    assert (answer.status_code, answer.json()["status"]) == (202, "ANNOTATED")
    problem = ports.stores.cycles.get(cycle).problem
    assert problem is not None
    assert problem.code == "Unavailable"
