"""Value models by name: add a model = its file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mgral_service.domain.ports import ValueModel
from mgral_service.domain.specs import TableAdvanced
from mgral_service.domain.value.gp import GaussianProcess
from mgral_service.domain.value.idw import InverseDistance

VALUE_MODELS: Mapping[str, Callable[[TableAdvanced], ValueModel]] = {
    "gp": lambda settings: GaussianProcess(),
    "idw": lambda settings: InverseDistance(settings.distance, settings.cutoff),
}
"""name (table.advanced.value_model) -> settings -> an unfitted model"""
