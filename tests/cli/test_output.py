from pathlib import Path

import pytest

from mgral_service.cli.output import gateway, read_json
from mgral_service.domain.errors import InvalidInput


@pytest.mark.parametrize("content", [None, b"{", b"\xff"])
def test_a_file_that_is_no_json_is_named(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "spec.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"spec\.json"):
        read_json(file)


def test_the_environment_names_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MGRAL_URL", "http://127.0.0.1:1")
    assert gateway().url == "http://127.0.0.1:1"
