"""Every error is a problem, whoever finds it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx2 as httpx
import pytest
from starlette.testclient import TestClient

from mgral_service.domain import errors
from mgral_service.domain.errors import MgralError, Unavailable, Unreadable
from mgral_service.domain.records import CycleRecord
from mgral_service.gateway.app import GatewayPorts
from mgral_service.gateway.problems import STATUS
from mgral_service.gateway.requests import ANSWERS_BYTES, SPEC_BYTES
from tests.gateway.conftest import local, ports_over, served
from tests.memory_stores import memory_stores

JSON = {"Content-Type": "application/json"}


def check(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    assert body["code"] == code
    assert body["status"] == status
    assert body["instance"].startswith("urn:mgral:request:")
    assert body["detail"]
    assert body["title"]
    return body


@pytest.mark.parametrize(
    "body",
    [
        b'{"dataset": "digits", "budget": NaN}',
        b'{"dataset": "digits", "budget": 2, "agent": {"memory": Infinity}}',
        b'{"dataset": "digits", "budget": 2, "agent": {"memory": 1e999}}',
        b'{"dataset": "\\ud800", "budget": 2}',
        b'{"\\ud800": 1}',
        b'{"dataset": "digits", "budget": ' + b"9" * 5000 + b"}",
        b"[" * 200_000,
        b'{"a":' * 100_000,
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"dataset": "digits"',
        b'{"dataset": "digits", "budget": 2, "budget": 2.5}',
    ],
)
@pytest.mark.parametrize("path", ["/cycles", "/datasets", "/cycles/cyc_1/annotations"])
def test_what_json_should_not_hold_is_refused(http: TestClient, path: str, body: bytes) -> None:
    answer = http.post(path, content=body, headers=JSON)
    if "annotations" in path:  # looked up before the body is read as JSON
        check(answer, 404, "NOT_FOUND")
    else:
        assert check(answer, 422, "INVALID_INPUT")["errors"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("DELETE", "/cycles", "GET, POST"),
        ("GET", "/cycles/cyc_1/cancel", "POST"),
        ("PUT", "/datasets/digits", "GET"),
        ("POST", "/livez", "GET"),
    ],
)
def test_another_method_is_told_which_are_allowed(
    http: TestClient, method: str, path: str, allow: str
) -> None:
    answer = http.request(method, path)
    check(answer, 405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == allow


@pytest.mark.parametrize("path", ["/", "/nothing", "/cycles/", "/cycles/a/b/c", "/%00", "/%ff"])
def test_an_unknown_path_is_not_found(http: TestClient, path: str) -> None:
    check(http.get(path), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        JSON | {"Content-Encoding": "gzip"},
    ],
)
def test_only_plain_json_is_read(http: TestClient, headers: dict[str, str]) -> None:
    check(http.post("/cycles", content=b"{}", headers=headers), 415, "WRONG_MEDIA_TYPE")


def test_a_body_has_a_largest_size(http: TestClient) -> None:
    answer = http.post("/cycles", content=b" " * (SPEC_BYTES + 1), headers=JSON)
    check(answer, 413, "BODY_TOO_LARGE")
    stated = JSON | {"Content-Length": str(ANSWERS_BYTES + 1)}
    answer = http.post("/cycles/cyc_1/annotations", content=b"{}", headers=stated)
    check(answer, 413, "BODY_TOO_LARGE")


def test_a_body_without_length_has_one_as_well(ports: GatewayPorts) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(5):
            yield b" " * (SPEC_BYTES // 4)

    with served(ports) as client:
        check(client.post("/cycles", content=chunks(), headers=JSON), 413, "BODY_TOO_LARGE")
        assert client.get("/livez").status_code == 200


def test_a_wrong_query_points_at_itself(http: TestClient) -> None:
    body = check(http.get("/selections/cyc_1?budget=0&format=xml"), 422, "INVALID_INPUT")
    assert [error["pointer"] for error in body["errors"]] == ["#/query/budget", "#/query/format"]


def test_a_defect_tells_nothing_of_the_inside() -> None:
    def broken(spec: Any) -> Any:
        raise RuntimeError("secret /inner/path")

    ports = ports_over(memory_stores(), ingest=broken)
    with local(ports, raise_server_exceptions=False) as http:
        answer = http.post("/datasets", json={"name": "cars", "root": "/data"})
    assert "secret" not in str(check(answer, 500, "INTERNAL"))


def test_what_cannot_be_read_is_no_fault_of_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    stores = memory_stores()

    def get(cycle: str) -> CycleRecord:
        raise Unreadable("cycle", cycle, "table.folds: must lie between 1 and 64")

    monkeypatch.setattr(stores.cycles, "get", get)
    with local(ports_over(stores)) as http:
        body = check(http.get("/cycles/cyc_1"), 500, "UNREADABLE")
    assert "another version" in body["detail"]


def test_every_error_of_the_domain_has_a_status() -> None:
    """Those without one are a driver's: a request that meets them met a defect."""
    without = {
        name
        for name, kind in vars(errors).items()
        if isinstance(kind, type)
        and issubclass(kind, MgralError)
        and not STATUS.keys() & {*kind.__mro__}
    }
    assert without == {"MgralError", "ProxyFailed", "TooFewRecords"}


class TestToken:
    @pytest.fixture
    def http(self) -> Iterator[TestClient]:
        with local(ports_over(memory_stores(), token="secret")) as client:
            yield client

    def test_every_route_but_health_and_documents_wants_it(self, http: TestClient) -> None:
        document = http.get("/openapi.json").json()
        guarded = 0
        for path, operations in document["paths"].items():
            for method in operations:
                answer = http.request(method, path.replace("{", "").replace("}", ""))
                if path in {"/livez", "/readyz"}:
                    assert answer.status_code == 200
                else:
                    guarded += 1
                    check(answer, 401, "UNAUTHORIZED")
                    assert answer.headers["www-authenticate"] == "Bearer"
        assert guarded >= 12
        assert http.get("/docs").status_code == 200

    @pytest.mark.parametrize("value", ["Bearer wrong", "Basic secret", "secret", "Bearer", ""])
    def test_another_token_is_refused(self, http: TestClient, value: str) -> None:
        check(http.get("/cycles", headers={"Authorization": value}), 401, "UNAUTHORIZED")

    def test_the_token_opens(self, http: TestClient) -> None:
        assert http.get("/cycles", headers={"Authorization": "Bearer secret"}).status_code == 200
        assert http.get("/cycles", headers={"Authorization": "bearer secret"}).status_code == 200


@pytest.mark.parametrize(
    ("client", "host"),
    [
        ("127.0.0.1", "127.0.0.1:8000"),
        ("127.0.0.1", "localhost"),
        ("::1", "[::1]:8000"),
    ],
)
def test_without_a_token_this_machine_is_answered(
    ports: GatewayPorts, client: str, host: str
) -> None:
    with local(ports, client=(client, 1)) as http:
        assert http.get("/cycles", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("client", "host"),
    [
        ("10.0.0.7", "127.0.0.1"),
        ("10.0.0.7", "mgral.example.org"),
        ("127.0.0.1", "evil.example:8000"),  # a page of evil.example that resolves to us
        ("127.0.0.1", "127.0.0.1.evil.example"),
        ("127.0.0.1", ""),
        ("127.0.0.1", "["),
    ],
)
def test_without_a_token_no_other_machine_or_name_is(
    ports: GatewayPorts, client: str, host: str
) -> None:
    with local(ports, client=(client, 1)) as http:
        origin = {"Origin": f"http://{host}"}
        check(http.get("/cycles", headers={"Host": host, **origin}), 403, "TOKEN_NEEDED")
        assert http.get("/livez", headers={"Host": host}).status_code == 200
    with local(replace(ports, token="t"), client=(client, 1)) as http:
        bearer = {"Authorization": "Bearer t", "Host": host}
        assert http.get("/cycles", headers=bearer).status_code == 200


def test_pages_of_other_sites_are_refused(http: TestClient) -> None:
    for origin in ("https://evil.example", "http://127.0.0.1.evil.example", "null", "http://["):
        check(http.get("/cycles", headers={"Origin": origin}), 403, "FORBIDDEN")
    assert http.get("/cycles", headers={"Origin": "http://127.0.0.1"}).status_code == 200


def test_readiness_names_what_fails(ports: GatewayPorts) -> None:
    def fails() -> None:
        raise Unavailable("cluster", "secret reason")

    with local(replace(ports, checks={"cluster": fails})) as http:
        body = check(http.get("/readyz"), 503, "UNAVAILABLE")
        assert "cluster" in body["detail"]
        assert "secret" not in body["detail"]
        assert http.get("/livez").json() == {"status": "alive"}
    with local(ports) as http:
        assert http.get("/readyz").json() == {"status": "ready"}


def test_the_document_declares_what_is_answered(http: TestClient) -> None:
    document = http.get("/openapi.json").json()
    components = document["components"]["schemas"]
    text = http.get("/openapi.json").text
    for part in text.split('"#/components/schemas/')[1:]:
        assert part.split('"')[0] in components
    assert "HTTPValidationError" not in components
    wanted = {
        ("/datasets", "post"), ("/datasets", "get"), ("/datasets/{name}", "get"),
        ("/cycles", "post"), ("/cycles", "get"), ("/cycles/{id}", "get"),
        ("/cycles/{id}/cancel", "post"), ("/cycles/{id}/resume", "post"),
        ("/cycles/{id}/events", "get"), ("/cycles/{id}/report", "get"),
        ("/selections/{cycle}", "get"), ("/cycles/{id}/annotations", "post"),
        ("/livez", "get"), ("/readyz", "get"),
    }  # fmt: skip
    routes = {(path, method) for path, ops in document["paths"].items() for method in ops}
    assert routes == wanted
    for path, method in routes:
        operation = document["paths"][path][method]
        if method == "post" and path.rsplit("/", 1)[1] not in {"cancel", "resume"}:
            assert operation["requestBody"]["required"]
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert list(response["content"]) == ["application/problem+json"]
