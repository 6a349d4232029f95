"""Lists of URIs, and the detector and agent that choose from them.

That the cluster chooses what one walk would: tests/cluster/test_pool.py; the command on a real
cycle: tests/test_one_cycle.py.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgral_service import codec
from mgral_service.cli.client import Client
from mgral_service.cli.scan import Scanned, agent_of, read_uris, write
from mgral_service.domain.errors import InvalidInput, NotFound
from mgral_service.domain.specs import AgentAdvanced, AgentSpec, CycleSpec
from mgral_service.store.artifacts import FileArtifacts

WEIGHTS = {"policy.lane": np.array(4), "value.mean": np.zeros(3)}


def test_a_line_is_an_id_and_a_uri_or_a_uri(tmp_path: Path) -> None:
    file = tmp_path / "images.csv"
    file.write_text("a, s3://bucket/a.jpg\n \nfile:///b.jpg\n")
    assert read_uris(file) == [
        ("a", "s3://bucket/a.jpg"),
        ("file:///b.jpg", "file:///b.jpg"),
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [("", "holds no line"), ("a,x\n \nb,y\na,z\n", "line 4"), ("a,file:///x,y.jpg\n", "line 1")],
)
def test_a_bad_list_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    file = tmp_path / "images.csv"
    file.write_text(text)
    with pytest.raises(InvalidInput, match=fault):
        read_uris(file)


class _Service(Client):
    """Answers for one cycle without a network."""

    def __init__(self) -> None:
        pass

    def call(self, method: str, path: str, **options: Any) -> Any:
        if path.startswith("/datasets/"):
            return {"classes": ["zero", "one"]}
        agent = AgentSpec(advanced=AgentAdvanced(state="embedding"))
        return {"spec": codec.plain(CycleSpec("digits", 2, agent=agent))}


def test_the_policy_of_a_cycle_comes_with_the_detector_it_learned_from(tmp_path: Path) -> None:
    artifacts = FileArtifacts(tmp_path)
    artifacts.put("cyc_1", "weights-detector", {"head": np.ones(2)}, {})
    artifacts.put("cyc_1", "agent", WEIGHTS, {"winner": "entropy_root"})
    artifacts.put("cyc_1", "weights-retrained", {"head": np.zeros(2)}, {})
    agent = agent_of(_Service(), artifacts, "cyc_1", "cpu")
    assert list(agent.weights) == ["lane"]
    assert (agent.state, agent.winner) == ("embedding", "entropy_root")
    assert isinstance(agent.predictor, partial)
    assert agent.predictor.args[2]["head"].tolist() == [1.0, 1.0]


def test_a_cycle_without_an_agent_has_none(tmp_path: Path) -> None:
    artifacts = FileArtifacts(tmp_path)
    artifacts.put("cyc_1", "weights-detector", {"head": np.ones(2)}, {})
    with pytest.raises(NotFound, match="trained agent of cycle"):
        agent_of(_Service(), artifacts, "cyc_1", "cpu")


def test_the_chosen_are_written_best_first(tmp_path: Path) -> None:
    out = tmp_path / "new" / "scan.csv"
    write(Scanned((("b", "file:///b.jpg", 0.5), ("a", "file:///a.jpg", 0.25)), ()), out)
    assert out.read_text().splitlines() == [
        "rank,id,uri,score",
        "1,b,file:///b.jpg,0.5",
        "2,a,file:///a.jpg,0.25",
    ]
