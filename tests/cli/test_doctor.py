from pathlib import Path

from pydantic import SecretStr

from mgral_service.app import service
from mgral_service.app.settings import Settings
from mgral_service.cli.doctor import checks


def _states(settings: Settings) -> dict[str, tuple[str, str]]:
    return {check.name: (check.state, check.detail) for check in checks(settings)}


def test_a_bare_home_is_sound(tmp_path: Path) -> None:
    states = _states(Settings(home=tmp_path, url=f"http://127.0.0.1:{service.free_port()}"))
    assert states["store"][0] == states["home"][0] == states["images"][0] == "ok"
    assert "mgral up" in states["service"][1]


def test_what_is_wrong_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    nowhere = f"redis://127.0.0.1:{service.free_port()}"
    states = _states(
        Settings(
            home=tmp_path / "file" / "home",
            redis_url=SecretStr(nowhere),
            host="0.0.0.0",
            url=f"http://127.0.0.1:{service.free_port()}",
        )
    )
    assert states["home"][0] == states["store"][0] == states["token"][0] == "failed"
    assert "MGRAL_TOKEN" in states["token"][1]
