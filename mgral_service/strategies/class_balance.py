"""As many objects of each class as possible, the rare ones first."""

from __future__ import annotations

from heapq import heapify, heappop, heapreplace

import numpy as np

from mgral_service.strategies.view import PoolView, Ranking


def pick(view: PoolView, budget: int, rng: np.random.Generator) -> Ranking:
    """Again and again the image that adds most to the sum over classes of ln(1 + objects), expected
    ones in labelled and picked images; score: what it adds. Ties in the order of ids.

    mAP is a mean over classes, and what one more object teaches falls with those before.
    """
    evidence = view.evidence[view.unlabelled]
    before = 1.0 + view.evidence[view.labelled].sum(axis=0)
    bounds = np.log1p(evidence / before).sum(axis=1)  # what an image adds never grows
    best_first = [(-bound, at) for at, bound in enumerate(bounds.tolist())]
    heapify(best_first)
    picked: list[int] = []
    scores: list[float] = []
    while len(picked) < min(budget, len(evidence)):
        at = best_first[0][1]
        gain = float(np.log1p(evidence[at] / before).sum())
        heapreplace(best_first, (-gain, at))
        if best_first[0][1] != at:
            continue  # another one may add more
        heappop(best_first)
        picked.append(at)
        scores.append(gain)
        before = before + evidence[at]
    return Ranking(view.unlabelled[picked], np.array(scores))
