"""Choosing from a pool that lies elsewhere: a list of URIs, a cycle's detector and its agent, and a
Ray cluster that looks at the images and scores them (`mgral scan`).
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mgral_service import codec
from mgral_service.agent.streaming import (
    LANES,
    Best,
    Moments,
    Weights,
    lane_scorer,
    lane_steps,
)
from mgral_service.client import Client
from mgral_service.cluster.pool import (
    Actors,
    Observer,
    Refused,
    observe_pool,
    score_pool,
    summarise_pool,
)
from mgral_service.domain.errors import InvalidInput, NotFound
from mgral_service.domain.ports import ArtifactStore
from mgral_service.domain.records import Status
from mgral_service.domain.specs import AgentState, CycleSpec
from mgral_service.strategies.mgral import policy_weights


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What a cycle left: its detector, and its policy's weights and what that sees of an image.
    winner: whose batch the cycle itself took.
    """

    observer: Callable[[], Observer]
    weights: Weights
    state: AgentState
    winner: str


@dataclass(frozen=True, slots=True)
class Scanned:
    """images: (id, URI, score), best first; refused: those that could not be looked at."""

    images: tuple[tuple[str, str, float], ...]
    refused: tuple[Refused, ...]


def read_uris(file: Path) -> list[tuple[str, str]]:
    """(id, URI) of each line "id,URI", or "URI", which then is its own id; a cell with a comma is
    quoted. InvalidInput for an id that comes twice, and for a file without lines.
    """
    found: dict[str, str] = {}
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines)
        for cells in reader:
            row = [cell.strip() for cell in cells]
            if not any(row):
                continue
            where = f"{file}, line {reader.line_num}"
            if len(row) > 2:
                raise InvalidInput(where, 'give id,URI or a URI: put one with a comma in "quotes"')
            if row[0] in found:
                raise InvalidInput(where, f"the id {row[0]!r} came before")
            found[row[0]] = row[-1]
    if not found:
        raise InvalidInput(str(file), "holds no line: give id,URI or a URI on each")
    return list(found.items())


def scan(
    images: Sequence[tuple[str, str]],
    trained: Trained,
    budget: int,
    folder: str,
    actors: Actors,
) -> Scanned:
    """The `budget` images that the policy's walk over all of them, in their order, scores highest.

    What the detector sees is kept in `folder`; images that were looked at there before are not
    looked at again. InvalidInput if the folder holds something else.
    """
    lost = observe_pool(images, trained.observer, folder, actors)
    count = len(images) - len(lost)
    if not count:
        return Scanned((), lost)
    weights, state = trained.weights, trained.state
    first, *others = summarise_pool(folder, state, Moments.of)
    scale = sum(others, first).scale
    steps = lane_steps(count, int(weights["lane"].item()))
    best = Best(budget)
    scorer = partial(lane_scorer, weights, scale, steps)
    for positions, scores in score_pool(folder, state, scorer, LANES * steps, actors):
        best.add(positions, scores)
    chosen = zip(best.positions.tolist(), best.scores.tolist(), strict=True)
    return Scanned(tuple((*images[at], score) for at, score in chosen), lost)


def of_cycle(client: Client, artifacts: ArtifactStore, cycle: str, device: str) -> Trained:
    """The detector and the agent that a cycle left. NotFound if it trained none, InvalidInput if
    its detector was overwritten when it was retrained, as earlier versions did.
    """
    from mgral_service.detectors.observer import DetectorObserver

    told = client.cycle(cycle)
    spec = codec.build(CycleSpec, told["spec"])
    retrained = Status(told["status"]) is Status.SUCCEEDED
    if retrained and artifacts.get(cycle, "retrained") is None:
        raise InvalidInput(
            cycle,
            "is of an earlier version: its detector is no longer the one whose embeddings its "
            "agent knows; take a newer cycle, or one that is SELECTED",
        )
    detector, agent = artifacts.get(cycle, "detector"), artifacts.get(cycle, "agent")
    weights = policy_weights({} if agent is None else agent[0])
    if detector is None or not weights:
        raise NotFound("trained agent of cycle", cycle)
    classes = client.call("GET", f"/datasets/{spec.dataset}")["classes"]
    observer = partial(DetectorObserver, spec.detector, classes, detector[0], device)
    winner = "" if agent is None else agent[1]["winner"]
    return Trained(observer, weights, spec.agent.state, winner)


def write(scanned: Scanned, out: Path) -> None:
    """rank, id, uri, score as CSV."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("rank", "id", "uri", "score"))
        for rank, (name, uri, score) in enumerate(scanned.images, start=1):
            table.writerow((rank, name, uri, f"{score:.6g}"))
