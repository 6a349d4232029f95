"""What the gateway is plugged into."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mgral_service.domain.boxes import Annotations
from mgral_service.domain.ports import CycleLauncher, Selector, Stores
from mgral_service.domain.records import DatasetImages, DatasetRecord, Reconciliation, Selection
from mgral_service.domain.specs import CycleSpec, DatasetSpec


@dataclass(frozen=True, slots=True, eq=False)
class GatewayPorts:
    """Everything beyond HTTP.

    ingest        reads and checks a dataset; DatasetRefused
    read_answers  parsed COCO JSON, a dataset, its images, the selected ids -> annotations, and how
                  they met the selection
    export_coco   a selection as COCO JSON, the detector's boxes as pre-labels
    check         a cycle's names of strategies; InvalidInput
    clock         seconds since the epoch
    new_id        a cycle's id, never the same twice
    token         bearer token; None: everybody on this machine may do everything, and nobody else
    checks        for /readyz, by name, beside the store's own; raise if something is missing
    """

    stores: Stores
    launcher: CycleLauncher
    selector: Selector
    ingest: Callable[[DatasetSpec], tuple[DatasetRecord, DatasetImages]]
    read_answers: Callable[
        [Any, DatasetRecord, DatasetImages, Sequence[str]], tuple[Annotations, Reconciliation]
    ]
    export_coco: Callable[[Selection, DatasetRecord, DatasetImages], dict[str, Any]]
    check: Callable[[CycleSpec], None]
    clock: Callable[[], float]
    new_id: Callable[[], str]
    token: str | None = None
    checks: Mapping[str, Callable[[], None]] = field(default_factory=dict)
