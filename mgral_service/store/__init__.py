"""Where cycles, tables, events, datasets and arrays are kept: JSON and bytes, never pickle."""

from __future__ import annotations

from dataclasses import dataclass

from mgral_service.domain.ports import CycleStore, DatasetStore, EventLog, LookupStore


@dataclass(frozen=True, slots=True, eq=False)
class Stores:
    """The four record stores of one place; they share its leases."""

    cycles: CycleStore
    table: LookupStore
    events: EventLog
    datasets: DatasetStore
