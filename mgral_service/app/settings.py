"""Settings of a process, from the environment (`MGRAL_*`), and experiment files."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from mgral_service import codec
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.specs import ExperimentSpec


class Settings(BaseSettings):
    """Addresses, folders and devices of a process.

    MGRAL_HOME        folder for artifacts, logs and the embedded store; shared by all machines
    MGRAL_REDIS_URL   a Redis or Valkey server; unset: an embedded one, its data under MGRAL_HOME
    MGRAL_JOBS_URL    the Ray dashboard, where drivers are submitted
    MGRAL_HOST, MGRAL_PORT  where the gateway listens
    MGRAL_URL         where the CLI finds a gateway
    MGRAL_TOKEN       bearer token of the gateway; unset: it answers its own machine only
    MGRAL_DEVICE      "cpu", "cuda" or "auto": of detectors and agents
    MGRAL_DATA_ROOT   datasets must lie below this folder; unset: any folder
    MGRAL_DRIVER_GPUS GPUs (a fraction) that a driver's job asks of the cluster
    MGRAL_DRIVER_THREADS  of a driver; unset: as many as Ray has processors there
    """

    model_config = SettingsConfigDict(env_prefix="MGRAL_", extra="ignore")

    home: Path = Field(default_factory=lambda: Path.home() / ".mgral")
    redis_url: SecretStr | None = None
    jobs_url: str = "http://127.0.0.1:8265"
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65535)
    url: str = "http://127.0.0.1:8000"
    token: SecretStr | None = Field(default=None, min_length=1)
    device: Literal["cpu", "cuda", "auto"] = "auto"
    data_root: Path | None = None
    driver_gpus: float = Field(default=0.0, ge=0)
    driver_threads: int | None = Field(default=None, ge=1)

    @property
    def loopback(self) -> bool:
        return self.host in {"127.0.0.1", "::1", "localhost"}

    @property
    def bearer(self) -> str | None:
        """The token as text: a secret."""
        return self.token.get_secret_value() if self.token else None


def from_environment() -> Settings:
    """InvalidInput names the variable that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        name = "MGRAL_" + str(fault["loc"][0]).upper()
        raise InvalidInput(name, fault["msg"]) from None


def experiment(path: Path) -> ExperimentSpec:
    """An experiment file; InvalidInput names file and key. Paths are relative to the file."""
    try:
        data: dict[str, Any] = tomllib.loads(path.read_text())
    except OSError as error:
        raise InvalidInput(str(path), f"cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(str(path), f"is not TOML: {error}") from None
    dataset, cycle = data.get("dataset"), data.get("cycle")
    if isinstance(dataset, dict) and isinstance(cycle, dict):
        cycle.setdefault("dataset", dataset.get("name"))
        _resolve(path.parent, dataset, cycle)
    try:
        return codec.experiment_spec(data)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error.where}", error.what) from None


def _resolve(folder: Path, dataset: dict[str, Any], cycle: dict[str, Any]) -> None:
    """Make the paths of a file in `folder` absolute; a name of weights stays."""
    if isinstance(dataset.get("root"), str):
        dataset["root"] = str((folder / dataset["root"]).resolve())
    detector = cycle.get("detector")
    if isinstance(detector, dict) and isinstance(detector.get("weights"), str):
        weights = (folder / detector["weights"]).resolve()
        if weights.is_file():
            detector["weights"] = str(weights)
