"""Names of metrics that a cycle may not have."""

import pytest

from mgral_service import metrics
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.specs import CycleAdvanced, CycleSpec


@pytest.mark.parametrize("name", metrics.METRICS)
def test_every_name_of_the_registry_passes(name: str) -> None:
    metrics.check(CycleSpec("d", 8, metric=name, advanced=CycleAdvanced(reward=name)))


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        (CycleSpec("d", 8, metric="ap75"), "metric"),
        (CycleSpec("d", 8, advanced=CycleAdvanced(reward="ap75")), "advanced.reward"),
    ],
)
def test_an_unknown_metric_is_refused_with_the_names_there_are(spec: CycleSpec, where: str) -> None:
    with pytest.raises(InvalidInput, match="none of ap50") as raised:
        metrics.check(spec)
    assert raised.value.where == where
