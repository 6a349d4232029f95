"""The online table: batches that the agent proposes are trained while it goes on learning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import ceil

import numpy as np

from mgral_service.agent.reinforce import Scorer
from mgral_service.domain.arrays import FloatArray, IntArray
from mgral_service.domain.design import gumbel_top
from mgral_service.domain.lookup import LookupTable
from mgral_service.domain.ports import OnlineTable, Site
from mgral_service.domain.records import AGENT, FALLBACK, DesignedBatch

ROUNDS = 2
_DRAWS = 32  # from which the most promising are proposed


class Proposals:
    """A `reinforce.Between`: proposes in ROUNDS, spread over the training, and joins each at the
    next one, so that what is learnt does not depend on how fast proxies train.

    states    [N, S] standardised, as the policy sees the images
    place     positions of ids in them
    table     what was refitted to last, its batches as such positions
    promise   of batches of a rotation's site: upper confidence bounds [K], infinite where no record
              is near
    refit     takes the grown table
    """

    def __init__(
        self,
        online: OnlineTable,
        states: FloatArray,
        place: Callable[[Sequence[str]], IntArray],
        table: Callable[[], LookupTable],
        promise: Callable[[Sequence[IntArray], int], FloatArray],
        refit: Callable[[LookupTable], None],
        temperature: float,
        iterations: int,
        rng: np.random.Generator,
    ) -> None:
        self._online, self._states, self._place = online, states, place
        self._table, self._promise, self._refit = table, promise, refit
        self._temperature, self._rng = temperature, rng
        self._each = ceil(online.left / ROUNDS)
        self._times = {iterations * (turn + 1) // (ROUNDS + 2) for turn in range(ROUNDS + 1)}
        self._waiting = False

    def __call__(self, iteration: int, scorer: Scorer) -> bool:
        if iteration not in self._times:
            return False
        changed = self._waiting
        if self._waiting:
            self._refit(self._online.join())
        batches = [] if iteration == max(self._times) else self._proposed(scorer)
        self._waiting = bool(batches)
        if batches:
            self._online.submit(batches)
        return changed

    def _proposed(self, scorer: Scorer) -> list[DesignedBatch]:
        """The sites taking turns, each image set once and none that has a record."""
        sites, count = self._online.sites, min(self._each, self._online.left)
        found: list[DesignedBatch] = []
        for at, site in enumerate(sites):
            found += self._of_site(site, len(range(at, count, len(sites))), scorer)
        return found

    def _of_site(self, site: Site, count: int, scorer: Scorer) -> list[DesignedBatch]:
        """Of the policy's greedy batch and draws those of the highest upper confidence bound."""
        rows = self._place(site.images)
        scores = scorer(self._states[rows]) / self._temperature
        draws = [np.argsort(-scores, kind="stable")[: site.size]]
        draws += [gumbel_top(scores, site.size, self._rng) for _ in range(_DRAWS)]
        bounds = self._promise([rows[draw] for draw in draws], site.rotation)
        order = np.argsort(-bounds, kind="stable")
        table = self._table()
        known = {
            frozenset(batch.tolist())
            for batch, rotation, source in zip(
                table.batches, table.rotations, table.sources, strict=True
            )
            if (rotation, source) == (site.rotation, site.source)
        }
        distinct = {frozenset(rows[draws[at]].tolist()): at for at in order[::-1]}
        new = [at for images, at in distinct.items() if images not in known]
        return [
            DesignedBatch(
                tuple(site.images[image] for image in draws[at]),
                FALLBACK if bounds[at] == np.inf else AGENT,
                site.source,
                site.rotation,
            )
            for at in new[::-1][:count]
        ]
