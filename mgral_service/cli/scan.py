"""`mgral scan`: a cycle's detector and agent choose from a list of URIs, on a Ray cluster."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mgral_service import codec
from mgral_service.agent.streaming import LANES, Best, Moments, Weights, lane_scorer, lane_steps
from mgral_service.cli.client import Client
from mgral_service.cluster.pool import (
    Actors,
    Predictor,
    Refused,
    predict_pool,
    score_pool,
    summarise_pool,
)
from mgral_service.domain.errors import InvalidInput, NotFound
from mgral_service.domain.ports import ArtifactStore
from mgral_service.domain.specs import AgentState, CycleSpec
from mgral_service.strategies.mgral.select import policy_weights


@dataclass(frozen=True, slots=True, eq=False)
class CycleAgent:
    """What a cycle trained: its detector, and its policy's weights and state of an image.
    winner: the strategy whose batch the cycle took.
    """

    predictor: Callable[[], Predictor]
    weights: Weights
    state: AgentState
    winner: str


@dataclass(frozen=True, slots=True)
class Scanned:
    """images: (id, URI, score), best first; refused: those that could not be read."""

    images: tuple[tuple[str, str, float], ...]
    refused: tuple[Refused, ...]


def read_uris(file: Path) -> list[tuple[str, str]]:
    """(id, URI) of each line "id,URI", or "URI", which then is its own id; a cell with a comma is
    quoted. InvalidInput for an id that comes twice, and for a file without lines.
    """
    uris: dict[str, str] = {}
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines)
        for cells in reader:
            row = [cell.strip() for cell in cells]
            if not any(row):
                continue
            where = f"{file}, line {reader.line_num}"
            if len(row) > 2:
                raise InvalidInput(where, 'give id,URI or a URI: put one with a comma in "quotes"')
            if row[0] in uris:
                raise InvalidInput(where, f"the id {row[0]!r} came before")
            uris[row[0]] = row[-1]
    if not uris:
        raise InvalidInput(str(file), "holds no line: give id,URI or a URI on each")
    return list(uris.items())


def scan(
    images: Sequence[tuple[str, str]],
    agent: CycleAgent,
    budget: int,
    folder: str,
    actors: Actors,
) -> Scanned:
    """The `budget` images that the policy's walk over all of them, in their order, scores highest.

    Predictions lie in `folder`; images that have some there are not predicted again. InvalidInput
    if the folder holds something else.
    """
    refused = predict_pool(images, agent.predictor, folder, actors)
    count = len(images) - len(refused)
    if not count:
        return Scanned((), refused)
    first, *others = summarise_pool(folder, agent.state, Moments.of)
    steps = lane_steps(count, int(agent.weights["lane"].item()))
    best = Best(budget)
    scorer = partial(lane_scorer, agent.weights, sum(others, first).scale, steps)
    for positions, scores in score_pool(folder, agent.state, scorer, LANES * steps, actors):
        best.add(positions, scores)
    chosen = zip(best.positions.tolist(), best.scores.tolist(), strict=True)
    return Scanned(tuple((*images[position], score) for position, score in chosen), refused)


def agent_of(client: Client, artifacts: ArtifactStore, cycle: str, device: str) -> CycleAgent:
    """The detector and the agent that a cycle trained. NotFound if it trained none."""
    from mgral_service.detectors.pool_predictor import PoolPredictor

    detector, agent = artifacts.get(cycle, "weights-detector"), artifacts.get(cycle, "agent")
    weights = policy_weights({} if agent is None else agent[0])
    if detector is None or agent is None or not weights:
        raise NotFound("trained agent of cycle", cycle)
    spec = codec.build(CycleSpec, client.cycle(cycle)["spec"])
    classes = client.call("GET", f"/datasets/{spec.dataset}")["classes"]
    return CycleAgent(
        predictor=partial(PoolPredictor, spec.detector, classes, detector[0], device),
        weights=weights,
        state=spec.agent.advanced.state,
        winner=agent[1]["winner"],
    )


def write(scanned: Scanned, out: Path) -> None:
    """rank, id, uri, score as CSV."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(("rank", "id", "uri", "score"))
        for rank, (image_id, uri, score) in enumerate(scanned.images, start=1):
            table.writerow((rank, image_id, uri, f"{score:.6g}"))
