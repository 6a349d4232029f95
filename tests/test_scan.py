"""Lists of URIs, and whose detector and agent may choose from them.

That the cluster chooses what one walk would: tests/cluster/test_pool.py; the command on a real
cycle: tests/test_one_cycle.py.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mgral_service import codec
from mgral_service.client import Client
from mgral_service.domain.errors import InvalidInput, NotFound
from mgral_service.domain.specs import AgentSpec, CycleSpec
from mgral_service.scan import Scanned, of_cycle, read_uris, write
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

    def __init__(self, status: str) -> None:
        self._spec = CycleSpec("digits", 2, agent=AgentSpec("embedding"))
        self._status = status

    def call(self, method: str, path: str, **options: Any) -> Any:
        if path.startswith("/datasets/"):
            return {"classes": ["zero", "one"]}
        return {"spec": codec.plain(self._spec), "status": self._status}


def _kept(folder: Path) -> FileArtifacts:
    kept = FileArtifacts(folder)
    kept.put("cyc_1", "detector", {"head": np.ones(2)}, {})
    kept.put("cyc_1", "agent", WEIGHTS, {"winner": "entropy_root"})
    return kept


def test_the_policy_of_a_cycle_is_found(tmp_path: Path) -> None:
    """With the detector whose embeddings it knows, also after the retraining."""
    kept = _kept(tmp_path)
    for status in ("SELECTED", "EVALUATING", "SUCCEEDED"):
        if status == "SUCCEEDED":
            kept.put("cyc_1", "retrained", {"head": np.zeros(2)}, {})
        found = of_cycle(_Service(status), kept, "cyc_1", "cpu")
        assert list(found.weights) == ["lane"]
        assert (found.state, found.winner) == ("embedding", "entropy_root")
        assert isinstance(found.observer, partial)
        assert found.observer.args[2]["head"].tolist() == [1.0, 1.0]


def test_a_detector_that_was_overwritten_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="of an earlier version"):
        of_cycle(_Service("SUCCEEDED"), _kept(tmp_path), "cyc_1", "cpu")


def test_a_cycle_without_an_agent_has_none(tmp_path: Path) -> None:
    kept = FileArtifacts(tmp_path)
    kept.put("cyc_1", "detector", {"head": np.ones(2)}, {})
    with pytest.raises(NotFound, match="trained agent of cycle"):
        of_cycle(_Service("SELECTED"), kept, "cyc_1", "cpu")


def test_the_chosen_are_written_best_first(tmp_path: Path) -> None:
    out = tmp_path / "new" / "scan.csv"
    write(Scanned((("b", "file:///b.jpg", 0.5), ("a", "file:///a.jpg", 0.25)), ()), out)
    assert out.read_text().splitlines() == [
        "rank,id,uri,score",
        "1,b,file:///b.jpg,0.5",
        "2,a,file:///a.jpg,0.25",
    ]
