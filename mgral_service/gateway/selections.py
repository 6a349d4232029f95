"""/selections and the annotations that answer them."""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import replace
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Response
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from mgral_service import codec
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import Conflict, CycleNotReady, LeaseHeld
from mgral_service.domain.records import CycleRecord, Finding, Reconciliation, Selection, Status
from mgral_service.gateway.openapi import body_of, problems_of
from mgral_service.gateway.ports import GatewayPorts
from mgral_service.gateway.problems import IncompleteAnswers
from mgral_service.gateway.requests import (
    ANSWERS_BYTES,
    JsonBody,
    PageSize,
    PageToken,
    after_token,
    page_limit,
    page_token,
)
from mgral_service.gateway.schemas import AnswersOut, CocoOut, SelectionOut
from mgral_service.gateway.supervision import move, try_launch

LEASE_S = 30.0  # while annotations are kept
DRIVER_LEAVES_S = 10.0  # a driver that has selected gives its lease back soon

Format = Literal["json", "csv", "coco"]


def selection_routes(ports: GatewayPorts) -> APIRouter:
    router = APIRouter(tags=["selections"])
    _add_reading(router, ports)
    _add_answering(router, ports)
    return router


def _add_reading(router: APIRouter, ports: GatewayPorts) -> None:
    @router.get(
        "/selections/{cycle}",
        responses={
            **problems_of(400, 404, 409, 503),
            200: {"model": SelectionOut | CocoOut, "content": {"text/csv": {}}},
            304: {"description": "Not changed since the ETag"},
        },
    )
    def read_selection(
        cycle: str,
        budget: Annotated[int | None, Query(gt=0, le=10**9)] = None,
        format: Format = "json",
        page_size: PageSize = 0,
        token: PageToken = "",
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        """The images to annotate, best first, each with its reason.

        `budget`: how many the cycle's winner would choose instead. Pages are of JSON only: `csv`
        and `coco` (with the detector's boxes as pre-labels) are whole.
        """
        selection = ports.selector.top(cycle, budget)
        if format == "csv":
            body, media = _csv(selection), "text/csv; charset=utf-8"
        elif format == "coco":
            dataset = ports.stores.datasets.get(selection.dataset)
            images = ports.stores.datasets.images(selection.dataset)
            body = codec.encode_loose(ports.export_coco(selection, dataset, images))
            media = "application/json"
        else:
            body, media = _page(selection, budget, page_limit(page_size), token), "application/json"
        tag = f'"{hashlib.sha256(body.encode()).hexdigest()[:32]}"'
        held = [held.strip().removeprefix("W/") for held in (if_none_match or "").split(",")]
        if tag in held or "*" in held:
            return Response(status_code=304, headers={"ETag": tag})
        return Response(body, media_type=media, headers={"ETag": tag})


def _add_answering(router: APIRouter, ports: GatewayPorts) -> None:
    @router.post(
        "/cycles/{id}/annotations",
        status_code=202,
        openapi_extra=body_of(None),
        responses=problems_of(404, 409, 413, 415, 503),
    )
    def post_annotations(
        id: str,
        body: Annotated[bytes, Depends(JsonBody(ANSWERS_BYTES))],
        partial: Annotated[bool, Query(description="Keep what matched of an incomplete answer")] = (
            False
        ),
    ) -> AnswersOut:
        """Annotations of the selection as COCO JSON, matched by `image_id`; then it is retrained.

        An answer with unknown, missing or refused items is refused whole, unless `partial`.
        """
        record = _waiting(ports, id)
        selection = ports.selector.top(id, None)
        dataset = ports.stores.datasets.get(record.spec.dataset)
        images = ports.stores.datasets.images(record.spec.dataset)
        chosen = [image.image_id for image in selection.images]
        labels, answers = ports.read_answers(codec.decode_loose(body), dataset, images, chosen)
        labels, answers = _without_others(ports, record, labels, answers)
        if not answers.matched or not (partial or answers.complete):
            raise IncompleteAnswers(answers)
        record = try_launch(ports, _keep(ports, record, labels))
        return AnswersOut.of(record, answers)


def _page(selection: Selection, budget: int | None, size: int, token: str) -> str:
    """One page as JSON text; 400 for a token of another selection."""
    digest = hashlib.sha256(codec.encode(selection).encode()).hexdigest()[:16]
    listing = f"selection {selection.cycle} {budget} {digest}"
    after = after_token(listing, token) or "0"
    if not (after.isdecimal() and after.isascii() and len(after) < 10):
        raise HTTPException(400, "page_token: holds no position")
    end = int(after) + size
    following = page_token(listing, str(end)) if end < len(selection.images) else ""
    return codec.encode(SelectionOut.of(selection, int(after), size, following))


def _csv(selection: Selection) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(["rank", "image_id", "score", "reason"])
    writer.writerows(
        [image.rank, image.image_id, image.score, image.reason] for image in selection.images
    )
    return text.getvalue()


def _waiting(ports: GatewayPorts, cycle: str) -> CycleRecord:
    """The cycle if it waits for annotations; a Conflict that says why if not."""
    record = ports.stores.cycles.get(cycle)
    if record.status.order < Status.SELECTED.order:
        raise CycleNotReady(cycle, record.status)
    if record.status is not Status.SELECTED:
        raise Conflict(f"cycle {cycle!r} is {record.status}: it takes no more annotations")
    return record


def _without_others(
    ports: GatewayPorts, record: CycleRecord, labels: Annotations, answers: Reconciliation
) -> tuple[Annotations, Reconciliation]:
    """Refuse images that another cycle has labelled meanwhile: an image is labelled once."""
    taken: dict[str, str] = {}
    for cycle, others in ports.stores.datasets.labels(record.spec.dataset):
        if cycle != record.id:
            taken |= dict.fromkeys(others.ids, cycle)
    refused = tuple(
        Finding("annotations", name, f"was labelled by {taken[name]} already", "refused")
        for name in labels.ids
        if name in taken
    )
    labels = labels.subset([name for name in labels.ids if name not in taken])
    return labels, replace(
        answers,
        matched=labels.ids,
        refused=(*answers.refused, *refused),
        boxes=len(labels.boxes),
    )


def _keep(ports: GatewayPorts, record: CycleRecord, labels: Annotations) -> CycleRecord:
    """Labels and status together: under the lease, so that of two answers one is taken."""
    cycles = ports.stores.cycles
    lease = _lease(ports, record.id)
    try:
        record = _waiting(ports, record.id)
        ports.stores.datasets.add_labels(record.spec.dataset, record.id, labels)
        move(ports, record, Status.ANNOTATED, lease)
    finally:
        cycles.release(record.id, lease)
    return cycles.get(record.id)


def _lease(ports: GatewayPorts, cycle: str) -> int:
    """The lease, once the driver that has just selected has given it back."""
    patient = Retrying(
        retry=retry_if_exception_type(LeaseHeld),
        stop=stop_after_delay(DRIVER_LEAVES_S),
        wait=wait_fixed(0.05),
        reraise=True,
    )
    return patient(ports.stores.cycles.acquire, cycle, "annotations", LEASE_S)
