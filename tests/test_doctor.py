from pathlib import Path

from pydantic import SecretStr

from mgral_service import service
from mgral_service.doctor import checks
from mgral_service.settings import Settings


def _states(settings: Settings) -> dict[str, tuple[str, str]]:
    return {one.name: (one.state, one.detail) for one in checks(settings)}


def test_a_bare_home_is_sound(tmp_path: Path) -> None:
    found = _states(Settings(home=tmp_path, url=f"http://127.0.0.1:{service.free_port()}"))
    assert found["store"][0] == found["home"][0] == found["images"][0] == "ok"
    assert "mgral up" in found["service"][1]


def test_what_is_wrong_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    nowhere = f"redis://127.0.0.1:{service.free_port()}"
    found = _states(
        Settings(
            home=tmp_path / "file" / "home",
            redis_url=SecretStr(nowhere),
            host="0.0.0.0",
            url=f"http://127.0.0.1:{service.free_port()}",
        )
    )
    assert found["home"][0] == found["store"][0] == found["token"][0] == "failed"
    assert "MGRAL_TOKEN" in found["token"][1]
