"""As many objects of each class as possible, the rare ones first."""

from __future__ import annotations

import numpy as np

from mgral_service.strategies.view import PoolView, Ranking


def pick(view: PoolView, budget: int, rng: np.random.Generator) -> Ranking:
    """Again and again the image that adds most to the sum over classes of ln(1 + objects), expected
    ones in labelled and picked images; score: what it adds. Ties in the order of ids.

    mAP is a mean over classes, and what one more object teaches falls with those before.
    """
    open_images = view.unlabelled
    evidence = view.evidence[open_images]
    before = 1.0 + view.evidence[view.labelled].sum(axis=0)
    count = min(budget, len(open_images))
    picked, scores = np.empty(count, dtype=np.int64), np.empty(count)
    left = np.ones(len(open_images), dtype=np.bool_)
    for turn in range(count):
        gains = np.where(left, np.log1p(evidence / before).sum(axis=1), -1.0)
        best = int(np.argmax(gains))
        picked[turn], scores[turn] = open_images[best], gains[best]
        left[best] = False
        before = before + evidence[best]
    return Ranking(picked, scores)
