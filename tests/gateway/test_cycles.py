from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from mgral_service.domain.records import Problem, Status
from mgral_service.gateway.app import GatewayPorts
from mgral_service.gateway.supervision import relaunch_orphans
from mgral_service.store.embedded import EmbeddedValkey
from mgral_service.store.redis import redis_stores
from tests.fakes import boxes_in, cycle_record, lookup_record
from tests.gateway.conftest import Clock, FakeLauncher, ports_over, reach, served

SPEC: dict[str, Any] = {"dataset": "digits", "budget": 2}


def start(http: TestClient, **more: Any) -> str:
    answer = http.post("/cycles", json=SPEC | more)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def test_a_cycle_starts_a_driver(http: TestClient, launcher: FakeLauncher) -> None:
    answer = http.post("/cycles", json=SPEC)
    assert answer.status_code == 202
    assert answer.headers["location"] == "/cycles/cyc_1"
    assert answer.headers["retry-after"] == "5"
    assert launcher.launched == [("cyc_1", 1)]
    body = answer.json()
    assert (body["status"], body["done"], body["attempts"]) == ("QUEUED", False, 1)
    assert body["job"] == "job-cyc_1-1"
    assert http.get("/cycles/cyc_1").json() == body


def test_a_key_is_honoured(http: TestClient, launcher: FakeLauncher) -> None:
    headers = {"Idempotency-Key": '"key 1"'}
    first = http.post("/cycles", json=SPEC, headers=headers)
    again = http.post("/cycles", json=SPEC | {"seed": 0}, headers={"Idempotency-Key": "key 1"})
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert (again.status_code, again.json()) == (202, first.json())
    assert again.headers["location"] == first.headers["location"]
    assert launcher.launched == [("cyc_1", 1)]
    other = http.post("/cycles", json=SPEC | {"seed": 1}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "IDEMPOTENCY_MISMATCH")


@pytest.mark.parametrize("key", ["", '""', "x" * 256, "tab\tinside", b"caf\xc3\xa9"])
def test_a_wrong_key_is_a_bad_request(http: TestClient, key: str) -> None:
    answer = http.post("/cycles", json=SPEC, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["code"]) == (400, "BAD_REQUEST")


def test_fifty_at_once_with_one_key_make_one_cycle(valkey: EmbeddedValkey, prefix: str) -> None:
    ports = ports_over(redis_stores(valkey.url, prefix, patience_s=2.0))
    barrier, answers = threading.Barrier(50), []
    with served(ports) as client:

        def post() -> None:
            barrier.wait()
            headers = {"Idempotency-Key": "one"}
            answers.append(client.post("/cycles", json=SPEC, headers=headers, timeout=60))

        threads = [threading.Thread(target=post) for _ in range(50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [answer.status_code for answer in answers] == [202] * 50
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotency-replayed" in answer.headers for answer in answers) == 49
    (cycle,) = ports.stores.cycles.page(None, 10)
    assert isinstance(ports.launcher, FakeLauncher)
    assert ports.launcher.launched == [(cycle.id, 1)]
    assert (cycle.attempts, cycle.number) == (1, 1)


@pytest.mark.parametrize(
    ("change", "status", "pointer"),
    [
        ({"dataset": "nothing"}, 404, None),
        ({"budget": 7}, 422, "#/budget"),
        ({"budget": 0}, 422, "#/budget"),
        ({"budget": "2"}, 422, "#/budget"),
        ({"strategy": "magic"}, 422, "#/strategy"),
        ({"choice": "magic"}, 422, "#/choice"),
        ({"agent": {"advanced": {"baseline": "magic"}}}, 422, "#/agent/advanced/baseline"),
        ({"table": {"record": 3}}, 422, "#/table/record"),
        ({"budgets": 7}, 422, "#/budgets"),
    ],
)
def test_a_spec_that_cannot_run_is_refused(
    http: TestClient, change: dict[str, Any], status: int, pointer: str | None
) -> None:
    answer = http.post("/cycles", json=SPEC | change)
    assert answer.status_code == status, answer.text
    if pointer:
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert http.get("/cycles").json()["cycles"] == []


@pytest.mark.parametrize(
    ("change", "pointer", "advice"),
    [
        ({"when_uninformed": "best"}, "#/when_uninformed", "removed"),
        ({"agent": {"baseline": "ema"}}, "#/agent/baseline", "agent.advanced.baseline"),
        ({"table": {"rotations": 4}}, "#/table/rotations", "table.folds"),
    ],
)
def test_a_key_of_an_earlier_version_is_refused(
    http: TestClient, change: dict[str, Any], pointer: str, advice: str
) -> None:
    answer = http.post("/cycles", json=SPEC | change)
    assert (answer.status_code, answer.json()["code"]) == (422, "INVALID_INPUT")
    (error,) = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert advice in error["detail"]


def test_a_method_completes_the_spec(http: TestClient) -> None:
    paper = SPEC | {"method": "paper", "agent": {"iterations": 7}}
    headers = {"Idempotency-Key": "key"}
    answer = http.post("/cycles", json=paper, headers=headers)
    assert answer.status_code == 202
    spec = answer.json()["spec"]
    assert (spec["choice"], spec["table"]["advanced"]["value_model"]) == ("agent", "idw")
    assert spec["agent"]["iterations"] == 7
    again = http.post("/cycles", json=spec, headers=headers)
    assert (again.status_code, again.json()["id"]) == (202, answer.json()["id"])


def test_the_budget_counts_what_is_left(http: TestClient, ports: GatewayPorts) -> None:
    ports.stores.datasets.add_labels("digits", "cyc_0", boxes_in("img_0", "img_1"))
    assert http.post("/cycles", json=SPEC | {"budget": 5}).status_code == 422
    start(http, budget=4)


def test_what_was_started_once_is_not_refused_later(http: TestClient, ports: GatewayPorts) -> None:
    headers = {"Idempotency-Key": "key"}
    assert http.post("/cycles", json=SPEC | {"budget": 5}, headers=headers).status_code == 202
    ports.stores.datasets.add_labels("digits", "cyc_0", boxes_in("img_0", "img_1"))
    again = http.post("/cycles", json=SPEC | {"budget": 5}, headers=headers)
    assert (again.status_code, again.json()["id"]) == (202, "cyc_1")


def test_an_experiment_s_cycle_is_left_to_it(
    http: TestClient, ports: GatewayPorts, launcher: FakeLauncher
) -> None:
    record = replace(cycle_record("cyc_9"), experiment=True, updated=0.0)
    ports.stores.cycles.create(record, None, "")
    assert relaunch_orphans(ports, grace_s=0) == ()
    assert http.get("/cycles/cyc_9").json()["experiment"]
    answer = http.post("/cycles/cyc_9/resume")
    assert (answer.status_code, "run its file again" in answer.json()["detail"]) == (409, True)
    assert http.post("/cycles/cyc_9/cancel").json()["status"] == "CANCELLED"
    assert (launcher.launched, launcher.cancelled) == ([], [])


def test_a_launch_that_fails_is_made_up_for(http: TestClient, launcher: FakeLauncher) -> None:
    headers = {"Idempotency-Key": "key"}
    launcher.down = True
    answer = http.post("/cycles", json=SPEC, headers=headers)
    assert (answer.status_code, answer.json()["problem"]["code"]) == (202, "Unavailable")
    assert answer.headers["location"] == "/cycles/cyc_1"
    body = http.get("/cycles/cyc_1").json()
    assert (body["status"], body["problem"]["code"]) == ("QUEUED", "Unavailable")
    launcher.down = False
    answer = http.post("/cycles", json=SPEC, headers=headers)
    assert (answer.status_code, answer.json()["problem"]) == (202, None)
    assert launcher.launched == [("cyc_1", 1)]


def test_cycles_are_paged_newest_first(http: TestClient) -> None:
    made = [start(http) for _ in range(5)]
    ids, token = [], ""
    while True:
        page = http.get("/cycles", params={"page_size": 2, "page_token": token}).json()
        ids += [cycle["id"] for cycle in page["cycles"]]
        token = page["next_page_token"]
        if not token:
            break
    assert ids == made[::-1]
    for size in (0, 10**9):
        assert len(http.get("/cycles", params={"page_size": size}).json()["cycles"]) == 5
    assert http.get("/cycles?page_size=-1").status_code == 422
    assert http.get("/cycles?page_size=" + "9" * 5000).status_code == 422


@pytest.mark.parametrize(
    "token",
    ["x", "e30", "WyJkYXRhc2V0cyIsICJhIl0", "WyJjeWNsZXMiLCAiY3ljXzk5Il0", "é", "[[", "%00"],
)
def test_a_made_up_page_token_is_a_bad_request(http: TestClient, token: str) -> None:
    assert http.get("/cycles", params={"page_token": token}).status_code == 400


def test_progress_counts_records(http: TestClient, ports: GatewayPorts) -> None:
    cycle = start(http, table={"records": 32})
    assert http.get(f"/cycles/{cycle}").json()["progress"] is None
    reach(ports, cycle, Status.TRAINING_PROXIES)
    lease = ports.stores.cycles.acquire(cycle, "driver", 60)
    for index in range(4):
        ports.stores.table.put(lookup_record(index, cycle), lease)
    assert isinstance(ports.clock, Clock)
    ports.clock.now += 8.0
    body = http.get(f"/cycles/{cycle}").json()
    want = {"phase": "TRAINING_PROXIES", "done": 4, "total": 32, "figures": {}}
    assert body["progress"] == want
    assert body["eta_s"] == 56.0


def test_progress_of_other_phases_is_the_last_event(http: TestClient, ports: GatewayPorts) -> None:
    cycle = start(http)
    reach(ports, cycle, Status.FITTING)
    progress = {"phase": "FITTING", "done": 3, "total": 4, "figures": {"loss": 0.5}}
    ports.stores.events.append(cycle, "progress", progress | {"time": 5.0})
    assert http.get(f"/cycles/{cycle}").json()["progress"] == progress
    reach(ports, cycle, Status.PREDICTING)
    assert http.get(f"/cycles/{cycle}").json()["progress"] is None


def test_cancelling_stops_the_job_and_may_be_repeated(
    http: TestClient, launcher: FakeLauncher
) -> None:
    cycle = start(http)
    for _ in range(2):
        answer = http.post(f"/cycles/{cycle}/cancel")
        assert (answer.status_code, answer.json()["status"]) == (200, "CANCELLED")
    assert set(launcher.cancelled) == {f"job-{cycle}-1"}


@pytest.mark.parametrize("end", [Status.SUCCEEDED, Status.FAILED])
def test_an_end_is_not_cancelled(http: TestClient, ports: GatewayPorts, end: Status) -> None:
    cycle = start(http)
    reach(ports, cycle, end)
    answer = http.post(f"/cycles/{cycle}/cancel")
    assert (answer.status_code, answer.json()["code"]) == (409, "ILLEGAL_TRANSITION")


def test_resuming_needs_a_cycle_that_nobody_drives(
    http: TestClient, ports: GatewayPorts, launcher: FakeLauncher
) -> None:
    cycle = start(http)
    lease = ports.stores.cycles.acquire(cycle, "driver", 60)
    answer = http.post(f"/cycles/{cycle}/resume")
    assert (answer.status_code, answer.json()["code"]) == (409, "LEASE_HELD")
    ports.stores.cycles.release(cycle, lease)
    answer = http.post(f"/cycles/{cycle}/resume")
    assert (answer.status_code, answer.json()["code"]) == (409, "CONFLICT")
    assert "on its way" in answer.json()["detail"]
    launcher.dead.add(f"job-{cycle}-1")
    answer = http.post(f"/cycles/{cycle}/resume")
    assert (answer.status_code, answer.json()["attempts"]) == (202, 2)
    assert launcher.launched[-1] == (cycle, 2)
    reach(ports, cycle, Status.SELECTED)
    assert http.post(f"/cycles/{cycle}/resume").status_code == 409


def test_a_failed_cycle_has_its_problem(http: TestClient, ports: GatewayPorts) -> None:
    cycle = start(http)
    record = replace(ports.stores.cycles.get(cycle), status=Status.FAILED)
    ports.stores.cycles.put(replace(record, problem=Problem("TooFewRecords", "6 of 48")), None)
    body = http.get(f"/cycles/{cycle}").json()
    assert (body["done"], body["problem"]["detail"]) == (True, "6 of 48")


def test_a_report_comes_as_it_was_written(http: TestClient, ports: GatewayPorts) -> None:
    cycle = start(http)
    answer = http.get(f"/cycles/{cycle}/report")
    assert (answer.status_code, answer.headers["retry-after"]) == (409, "5")
    ports.stores.cycles.put_attachment(cycle, "report", '{"test_before":0.25}', None)
    answer = http.get(f"/cycles/{cycle}/report")
    assert (answer.status_code, answer.json()) == (200, {"test_before": 0.25})
    other = start(http)
    reach(ports, other, Status.FAILED)
    assert http.get(f"/cycles/{other}/report").status_code == 404


@pytest.mark.parametrize("path", ["", "/report", "/events", "/cancel", "/resume", "/annotations"])
def test_an_unknown_cycle_is_not_found(http: TestClient, path: str) -> None:
    method = "GET" if path in {"", "/report", "/events"} else "POST"
    body = {"images": list[str]()} if path == "/annotations" else None
    answer = http.request(method, f"/cycles/cyc_9{path}", json=body)
    assert (answer.status_code, answer.json()["code"]) == (404, "NOT_FOUND")
