"""/datasets: register and look up."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Response

from mgral_service import codec
from mgral_service.domain.errors import AlreadyExists, NotFound
from mgral_service.domain.records import DatasetRecord
from mgral_service.gateway.openapi import body_of, problems_of
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
        spec = codec.dataset_spec(codec.decode_loose(body))
        response.headers["Location"] = f"/datasets/{spec.name}"
        try:
            record = datasets.get(spec.name)
        except NotFound:
            return _shown(ports, datasets.add(*ports.ingest(spec)))
        if record.spec != spec:
            raise AlreadyExists("dataset", spec.name)
        response.status_code = 200
        return _shown(ports, record)

    @router.get("/datasets", responses=problems_of(400, 503))
    def list_datasets(
        page_size: PageSize = 0,
        token: PageToken = "",
    ) -> DatasetsOut:
        """All datasets by name."""
        size, after = page_limit(page_size), after_token("datasets", token)
        records = datasets.page(after, size + 1)
        more = len(records) > size
        return DatasetsOut(
            datasets=[_shown(ports, record) for record in records[:size]],
            next_page_token=page_token("datasets", records[size - 1].spec.name) if more else "",
        )

    @router.get("/datasets/{name}", responses=problems_of(404, 503))
    def read_dataset(name: str) -> DatasetOut:
        return _shown(ports, datasets.get(name))

    return router


def _shown(ports: GatewayPorts, record: DatasetRecord) -> DatasetOut:
    return DatasetOut.of(record, ports.stores.datasets.labelled_since(record.spec.name))
