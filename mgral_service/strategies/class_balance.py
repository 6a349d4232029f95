"""As many objects of each class as possible, the rare ones first."""

from __future__ import annotations

from heapq import heapify, heappop, heapreplace

import numpy as np

from mgral_service.domain.candidate_pool import CandidatePool, Ranking


def pick(pool: CandidatePool, budget: int, rng: np.random.Generator) -> Ranking:
    """Repeatedly the image that adds most to the sum over classes of ln(1 + expected objects in
    labelled and picked images); score: what it adds. Ties in the order of ids.

    mAP is a mean over classes, and another object of a class teaches less than those before.
    """
    objects = pool.expected_objects[pool.candidates]
    before = 1.0 + pool.expected_objects[pool.labelled].sum(axis=0)
    bounds = np.log1p(objects / before).sum(axis=1)  # what an image adds never grows
    queue = [(-bound, row) for row, bound in enumerate(bounds.tolist())]
    heapify(queue)
    picked: list[int] = []
    scores: list[float] = []
    while len(picked) < min(budget, len(objects)):
        row = queue[0][1]
        gain = float(np.log1p(objects[row] / before).sum())
        heapreplace(queue, (-gain, row))
        if queue[0][1] != row:
            continue  # another image may add more
        heappop(queue)
        picked.append(row)
        scores.append(gain)
        before = before + objects[row]
    return Ranking(pool.candidates[picked], np.array(scores))
