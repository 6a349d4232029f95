from __future__ import annotations

from pathlib import Path

import pytest

from mgral_service.datasets.formats.listing import named_files, root_of
from mgral_service.domain.errors import DatasetRefused
from mgral_service.domain.specs import DatasetSpec


def test_only_roles_with_a_file_are_named() -> None:
    spec = DatasetSpec("pets", "/data", test="test.json")
    assert named_files(spec) == (("labelled", "train.json"), ("test", "test.json"))


@pytest.mark.parametrize("root", ["missing", "nul\0", "file"])
def test_a_root_that_is_no_folder_is_refused(tmp_path: Path, root: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DatasetRefused, match="root"):
        root_of(DatasetSpec("pets", str(tmp_path / root)))
