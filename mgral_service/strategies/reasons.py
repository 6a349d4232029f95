"""Why an image was chosen, in one sentence for the person who will annotate it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.spatial.distance import cdist

from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.lookup import LookupTable
from mgral_service.strategies.trials import DEFAULT, LEARNED, together
from mgral_service.strategies.view import PoolView, Ranking

_SPOKEN = {
    "agent": "the agent",
    "ridge": "the ridge's values",
    "gp": "the Gaussian process' values",
    "uniform": "uniform chance",
    "entropy": "mean entropy",
    "entropy_sum": "summed entropy",
    "entropy_root": "mean entropy times the root of objects",
    "entropy_max": "largest entropy",
    "coreset": "core-set distance",
    "entropy_coreset": "entropy and core-set distance",
    "class_balance": "the balance of classes",
}
_SPOKEN |= {together(name): f"{_SPOKEN[name]} and {_SPOKEN[DEFAULT]} together" for name in LEARNED}
_TOP_CLASSES = 3
_RECORDS = 2  # named for an image
_LEAST_EVIDENCE = 0.1  # expected objects; weaker classes are not worth a word


def spoken(name: str) -> str:
    """A strategy's name as a sentence says it."""
    return _SPOKEN.get(name, name)


def explain(
    view: PoolView,
    winner: str,
    ranking: Ranking,
    rivals: Mapping[str, IntArray],
    table: LookupTable | None = None,
) -> tuple[str, ...]:
    """[b] sentences: rank and score, uncertainty, novelty, predicted classes, the nearest records
    of `table` (positions in the view), rivals that agree.

    `rivals` are other strategies' picks by name; without any, that part is left out.
    """
    near = _nearest_records(view, ranking.positions, table)
    pool = view.unlabelled
    doubt = _percentiles(view.entropy.mean[pool], view.entropy.mean)
    new = _percentiles(view.novelty[pool], view.novelty)
    taken = {name: set(picked.tolist()) for name, picked in rivals.items()}
    return tuple(
        f"Rank {rank} of {len(ranking.positions)} by {spoken(winner)} (score {score:.3g}): "
        f"{_doubt(view, at, doubt[at])}, {_distance(view, at, new[at])}, "
        f"{_classes(view, at)}{near[rank - 1]}{_agreement(at, taken)}."
        for rank, (at, score) in enumerate(
            zip(ranking.positions.tolist(), ranking.scores.tolist(), strict=True), start=1
        )
    )


def _nearest_records(
    view: PoolView, positions: IntArray, table: LookupTable | None
) -> tuple[str, ...]:
    """[b] of each image: the batches whose mean embedding is nearest to it, and what they gained
    over the others of their kind.
    """
    if table is None or not table.weights.any():
        return ("",) * len(positions)
    counted = np.flatnonzero(table.weights > 0)
    centres = np.stack([view.points[table.batches[at]].mean(axis=0) for at in counted])
    gains = table.deviations()[counted]
    order = cdist(view.points[positions], centres).argsort(axis=1, kind="stable")
    words = []
    for row in order[:, :_RECORDS]:
        told = [f"{table.indices[counted[at]]} ({gains[at]:+.3f})" for at in row.tolist()]
        words.append(
            f", the trained batches nearest to it are records {_listed(told)} (mAP over others of "
            "their kind)"
        )
    return tuple(words)


def _percentiles(pool: FloatArray, values: FloatArray) -> FloatArray:
    """[N] share of the unlabelled images whose value is lower, in percent."""
    return np.asarray(100.0 * np.searchsorted(np.sort(pool), values, side="left") / len(pool))


def _doubt(view: PoolView, at: int, percentile: float) -> str:
    entropy = view.entropy.mean[at]
    if view.evidence[at].sum() <= 0:
        return "the detector found nothing in it"
    return f"its entropy of {entropy:.2f} is above that of {percentile:.0f} % of the pool"


def _distance(view: PoolView, at: int, percentile: float) -> str:
    where = "from the nearest labelled image" if len(view.labelled) else "from the pool's centre"
    return f"it lies {view.novelty[at]:.1f} {where} (farther than {percentile:.0f} %)"


def _classes(view: PoolView, at: int) -> str:
    evidence = view.evidence[at]
    first = np.argsort(-evidence, kind="stable")[:_TOP_CLASSES]
    named = [
        f"{view.classes[one]} ({evidence[one]:.1f})"
        for one in first
        if evidence[one] >= _LEAST_EVIDENCE
    ]
    return f"it seems to show {', '.join(named)}" if named else "no class stands out"


def _agreement(at: int, taken: Mapping[str, set[int]]) -> str:
    if not taken:
        return ""
    agreeing = [spoken(name) for name, picked in taken.items() if at in picked]
    if not agreeing:
        return "; no rival would have taken it"
    return f"; {_listed(agreeing)} would have taken it too"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
