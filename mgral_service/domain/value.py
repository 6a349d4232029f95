"""What a batch is worth, estimated from the table's records: `ports.ValueModel`s by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from mgral_service.domain.arrays import IntArray
from mgral_service.domain.boxes import PoolObservation
from mgral_service.domain.features import BatchFeatures
from mgral_service.domain.gp import GaussianProcess
from mgral_service.domain.idw import InverseDistance, OneHot
from mgral_service.domain.ports import ValueModel
from mgral_service.domain.ridge import Ridge
from mgral_service.domain.specs import TableSpec
from mgral_service.domain.transport import fixed_directions, standardise


def _inverse_distance(
    observation: PoolObservation, labelled: IntArray, classes: Sequence[str], spec: TableSpec
) -> ValueModel:
    points = standardise(observation.embeddings)
    return InverseDistance(points, fixed_directions(points.shape[1]), spec.distance, spec.cutoff)


def _ridge(
    observation: PoolObservation, labelled: IntArray, classes: Sequence[str], spec: TableSpec
) -> ValueModel:
    return Ridge(BatchFeatures(observation, labelled, classes))


def _one_hot(
    observation: PoolObservation, labelled: IntArray, classes: Sequence[str], spec: TableSpec
) -> ValueModel:
    return OneHot(len(observation.ids), spec.cutoff)


def _gaussian_process(
    observation: PoolObservation, labelled: IntArray, classes: Sequence[str], spec: TableSpec
) -> ValueModel:
    return GaussianProcess(BatchFeatures(observation, labelled, classes))


VALUE_MODELS: Mapping[
    str, Callable[[PoolObservation, IntArray, Sequence[str], TableSpec], ValueModel]
] = {"idw": _inverse_distance, "onehot": _one_hot, "ridge": _ridge, "gp": _gaussian_process}
"""By TableSpec.value_model: makes an unfitted model of an observation, its labelled positions,
classes and settings.
"""
