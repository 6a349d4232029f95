import json
from pathlib import Path

import pytest

from mgral_service import service
from mgral_service.domain.errors import InvalidInput
from mgral_service.settings import Settings


def test_a_public_address_needs_a_token(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="MGRAL_TOKEN"):
        service.up(Settings(home=tmp_path, host="0.0.0.0"), print)


def test_nothing_runs_where_nothing_was_started(tmp_path: Path) -> None:
    assert service.running(tmp_path) is None
    assert service.down(Settings(home=tmp_path)) is False


def test_a_state_file_of_a_dead_process_counts_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "up.json").write_text(json.dumps({"pid": 2**22 + 1}))
    assert service.running(tmp_path) is None
