"""The built wheel runs outside the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mgral_service import __version__

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the wheel's files."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=60)
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run(unpacked: Path, *words: str) -> str:
    result = subprocess.run(
        [sys.executable, *words],
        cwd=unpacked.parent,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return result.stdout


def test_it_runs_its_own_code(unpacked: Path) -> None:
    code = "import mgral_service; print(mgral_service.__file__)"
    assert Path(run(unpacked, "-c", code).strip()).is_relative_to(unpacked)
    assert run(unpacked, "-m", "mgral_service", "version").strip() == __version__
    assert "test.json" in run(unpacked, "-m", "mgral_service", "demo", "--help")


def test_it_holds_what_is_not_python(unpacked: Path) -> None:
    package = unpacked / "mgral_service"
    sources = ROOT / "mgral_service"
    others = [
        file.relative_to(sources)
        for file in sources.rglob("*")
        if file.is_file() and file.suffix not in {".py", ".pyc"}
    ]
    assert Path("py.typed") in others
    assert all((package / file).exists() for file in others)
