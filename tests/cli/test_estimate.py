import pytest

from mgral_service.cli.estimate import image_storage
from mgral_service.datasets import loading


@pytest.mark.parametrize(
    ("left", "where"), [(4 * 1536, "memory"), (4 * 1535, "a file under MGRAL_HOME/images")]
)
def test_images_stay_in_memory_up_to_a_quarter_of_what_is_left(
    monkeypatch: pytest.MonkeyPatch, left: int, where: str
) -> None:
    monkeypatch.setattr(loading, "memory_left", lambda: left)
    assert image_storage(1536) == f"1.5 kB in {where}"
    assert image_storage(None) == "unknown"
