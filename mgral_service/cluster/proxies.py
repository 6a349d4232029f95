"""Many proxies at once: Ray Tune trials in long-lived actors that each hold a ProxyTrainer."""

from __future__ import annotations

import logging
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import Callback, FailureConfig, RunConfig, Stopper, Trainable, TuneConfig, Tuner

from mgral_service.domain.errors import ProxyFailed
from mgral_service.domain.ports import ProxyTrainer
from mgral_service.domain.records import ProxyResult, ProxySpec

logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # results and causes reach the store


class ProxyTrial(Trainable):  # type: ignore[misc]
    """One proxy a trial. The actor outlives its trials, so data and imports are loaded once."""

    def setup(
        self,
        config: dict[str, Any],
        factory: Callable[[], ProxyTrainer] | None = None,
        specs: Sequence[ProxySpec] = (),
    ) -> None:
        assert factory is not None
        self._trainer = factory()
        self._specs = specs
        self._at = config["at"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._at = new_config["at"]
        return True

    def step(self) -> dict[str, Any]:
        (result,) = self._trainer.train([self._specs[self._at]])
        if result.score is None:  # a failure to Tune, which tries again
            raise ProxyFailed(result.index, result.cause or "no cause given")
        return {"score": result.score, "seconds": result.seconds, "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """A proxy is short: one that dies starts over."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing was saved."""


class _Stream(Callback, Stopper):  # type: ignore[misc]
    """Hands results to another thread as they come, and stops all trials when told to."""

    def __init__(self, specs: Sequence[ProxySpec]) -> None:
        self.results: queue.SimpleQueue[ProxyResult | BaseException | None] = queue.SimpleQueue()
        self.stop = threading.Event()
        self._specs = specs
        self._causes: dict[int, str] = {}

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        index = self._specs[trial.config["at"]].index
        self.results.put(ProxyResult(index, float(result["score"]), float(result["seconds"])))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._note(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._note(trial)
        at = trial.config["at"]
        self.results.put(ProxyResult(self._specs[at].index, None, 0.0, self._causes[at]))

    def _note(self, trial: Any) -> None:
        error = trial.get_pickled_error() if hasattr(trial, "get_pickled_error") else None
        self._causes.setdefault(trial.config["at"], _cause(error, trial.error_file))

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.stop.is_set()

    def stop_all(self) -> bool:
        return self.stop.is_set()

    # Tune pickles its callbacks and stoppers with the experiment's state; this one starts empty.
    def __reduce__(self) -> tuple[type[_Stream], tuple[Sequence[ProxySpec]]]:
        return _Stream, (self._specs,)


def _cause(error: BaseException | None, error_file: str | None) -> str:
    """The last line of the first traceback: the exception and its words."""
    if error is not None:
        inner = getattr(error, "cause", None) or error.__cause__ or error
        return f"{type(inner).__name__}: {inner}".splitlines()[0]
    if error_file and Path(error_file).exists():
        lines = [line for line in Path(error_file).read_text().splitlines() if line.strip()]
        if lines:
            return lines[-1].strip()
    return "the actor died without a word"


class RayProxyTrainer:
    """A ProxyTrainer whose proxies train on a Ray cluster, `actors` at a time.

    factory       makes the local trainer inside an actor (a closure over specs and paths, no data)
    cpus, gpus    of one proxy; fractions let several share a device
    max_failures  retries of one proxy before it counts as failed for good
    folder        where Tune keeps its experiment's state
    """

    def __init__(
        self,
        factory: Callable[[], ProxyTrainer],
        actors: int,
        cpus: float,
        gpus: float,
        max_failures: int,
        folder: Path,
    ) -> None:
        self._factory, self._actors, self._cpus, self._gpus = factory, actors, cpus, gpus
        self._max_failures, self._folder = max_failures, folder

    def train(self, specs: Sequence[ProxySpec]) -> Iterator[ProxyResult]:
        """Results as trials end. Closing the iterator stops the trials that have not started."""
        if not specs:
            return
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # no CSV beside the store
        os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # no tables on stdout: `verbose` alone keeps one
        stream = _Stream(specs)
        thread = threading.Thread(target=self._run, args=(specs, stream), daemon=True)
        thread.start()
        try:
            while (result := stream.results.get()) is not None:
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            stream.stop.set()

    def _run(self, specs: Sequence[ProxySpec], stream: _Stream) -> None:
        try:
            trainable = tune.with_parameters(ProxyTrial, factory=self._factory, specs=tuple(specs))
            Tuner(
                tune.with_resources(trainable, {"cpu": self._cpus, "gpu": self._gpus}),
                param_space={"at": tune.grid_search(list(range(len(specs))))},
                tune_config=TuneConfig(
                    reuse_actors=True, max_concurrent_trials=min(self._actors, len(specs))
                ),
                run_config=RunConfig(
                    storage_path=str(self._folder.resolve()),
                    callbacks=[stream],
                    stop=stream,
                    failure_config=FailureConfig(max_failures=self._max_failures),
                    verbose=0,
                ),
            ).fit()
            stream.results.put(None)
        except BaseException as error:  # carried to the consumer's thread, which raises it
            stream.results.put(error)


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names (a job finds it set), or start one on this machine,
    unless this process is in one already.
    """
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS", "local")
        ray.init(address=address, log_to_driver=False, configure_logging=False)
