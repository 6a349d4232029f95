"""The parts of the OpenAPI document that FastAPI cannot see: raw bodies and problems."""

from __future__ import annotations

import http
from typing import Any

from fastapi import FastAPI
from pydantic import TypeAdapter

from mgral_service.domain.specs import CycleSpec, DatasetSpec
from mgral_service.gateway.problems import MEDIA
from mgral_service.gateway.schemas import ProblemOut

_SCHEMAS = "#/components/schemas/"
_ALWAYS = (401, 403, 422, 500)  # what any route may answer


def body_of(model: str | None) -> dict[str, Any]:
    """A JSON body: a component, or with None any object."""
    schema = {"$ref": _SCHEMAS + model} if model else {"type": "object"}
    content = {"application/json": {"schema": schema}}
    return {"requestBody": {"required": True, "content": content}}


def problems_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors of a route beside those of every route."""
    content = {MEDIA: {"schema": {"$ref": _SCHEMAS + "ProblemOut"}}}
    return {
        status: {"description": http.HTTPStatus(status).phrase, "content": content}
        for status in sorted({*statuses, *_ALWAYS})
    }


def complete(app: FastAPI) -> None:
    """Add to the document the components that only our own references name."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        document = plain()
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        for kind in (ProblemOut, CycleSpec, DatasetSpec):
            whole = TypeAdapter[Any](kind).json_schema(ref_template=_SCHEMAS + "{model}")
            for name, part in {**whole.pop("$defs", {}), kind.__name__: whole}.items():
                schemas.setdefault(name, part)
        return document

    app.openapi = openapi  # type: ignore[method-assign]
