"""/datasets: register and look up."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from mgral_service import codec
from mgral_service.domain.errors import AlreadyExists, NotFound
from mgral_service.domain.records import DatasetRecord
from mgral_service.domain.specs import DatasetSpec
from mgral_service.gateway.documents import body_of, problems_of
from mgral_service.gateway.ports import GatewayPorts
from mgral_service.gateway.requests import (
    SPEC_BYTES,
    JsonBody,
    PageSize,
    PageToken,
    after_token,
    page_limit,
    page_token,
)
from mgral_service.gateway.schemas import DatasetOut, DatasetsOut


def dataset_routes(ports: GatewayPorts) -> APIRouter:
    router = APIRouter(tags=["datasets"])
    datasets = ports.stores.datasets

    @router.post(
        "/datasets",
        status_code=201,
        openapi_extra=body_of("DatasetSpec"),
        responses={
            **problems_of(409, 413, 415, 503),
            200: {"model": DatasetOut, "description": "Registered before, with the same spec"},
        },
    )
    def add_dataset(
        response: Response, body: Annotated[bytes, Depends(JsonBody(SPEC_BYTES))]
    ) -> DatasetOut:
        """Read, check and register a dataset; the report says what was repaired or refused."""
        spec = codec.decode(DatasetSpec, body)
        response.headers["Location"] = f"/datasets/{spec.name}"
        known = _known(ports, spec.name)
        if known is not None:
            if known.spec != spec:
                raise AlreadyExists("dataset", spec.name)
            response.status_code = 200
            return shown(ports, known)
        return shown(ports, datasets.add(ports.ingest(spec)))

    @router.get("/datasets", responses=problems_of(400, 503))
    def list_datasets(
        page_size: PageSize = 0,
        token: PageToken = "",
    ) -> DatasetsOut:
        """All datasets by name."""
        size, after = page_limit(page_size), after_token("datasets", token)
        found = datasets.page(after, size + 1)
        following = page_token("datasets", found[size - 1].spec.name) if len(found) > size else ""
        return DatasetsOut(
            datasets=[shown(ports, record) for record in found[:size]], next_page_token=following
        )

    @router.get("/datasets/{name}", responses=problems_of(404, 503))
    def read_dataset(name: str) -> DatasetOut:
        return shown(ports, datasets.get(name))

    return router


def answered_ids(ports: GatewayPorts, record: DatasetRecord) -> set[str]:
    """Pool images that cycles have labelled since the dataset was registered."""
    pool = set(record.unlabelled)
    labels = ports.stores.datasets.labels(record.spec.name)
    return {name for _, answers in labels for name in answers.ids if name in pool}


def shown(ports: GatewayPorts, record: DatasetRecord) -> DatasetOut:
    return DatasetOut.of(record, len(answered_ids(ports, record)))


def _known(ports: GatewayPorts, name: str) -> DatasetRecord | None:
    try:
        return ports.stores.datasets.get(name)
    except NotFound:
        return None
