"""Many proxies at once: Ray Tune trials in long-lived actors that each hold a ProxyTrainer.

What goes wrong, and what becomes of it:

- an MgralError (a loss that is no number, a corrupt image): the same images and seed would end the
  same way, so the proxy has failed at once and its actor goes on
- any other error (out of memory, a full disk, Unavailable) and the death of an actor's process: the
  proxy starts over in another actor, `max_failures` times; then it has failed, by its first cause
- a node taken away (Ray calls it preempted): the proxy starts over, and nothing is counted
- a disk that Tune itself cannot write: Unavailable; what was yielded before stays
"""

from __future__ import annotations

import logging
import os
import queue
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune import (
    Callback,
    CheckpointConfig,
    FailureConfig,
    RunConfig,
    Stopper,
    Trainable,
    TuneConfig,
    Tuner,
)

from mgral_service.domain.errors import MgralError, ProxyFailed, Unavailable
from mgral_service.domain.ports import NOTHING, ProxyTrainer, Weights
from mgral_service.domain.records import ProxyResult, ProxySpec

logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # results and causes reach the store

_LESS_MEMORY = "lower detector.batch or table.actors, or give actors more memory"
ADVICE = (
    (re.compile("MemoryError|out of memory|allocate memory|low on memory|ALLOC_F"), _LESS_MEMORY),
    (re.compile("actor died unexpectedly"), f"if it was killed for its memory, {_LESS_MEMORY}"),
    (re.compile("No space left|quota exceeded"), "free space on that disk"),
)
"""What to do about a cause."""


class ProxyTrial(Trainable):  # type: ignore[misc]
    """One proxy a trial. The actor outlives its trials, so data and imports are loaded once."""

    def setup(
        self,
        config: dict[str, Any],
        factory: Callable[[], ProxyTrainer] | None = None,
        specs: Sequence[ProxySpec] = (),
        starts: Mapping[int | None, Weights] = NOTHING,
    ) -> None:
        assert factory is not None
        self._factory, self._specs, self._starts = factory, specs, starts
        self._trainer: ProxyTrainer | None = None
        self._position = config["position"]

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._position = new_config["position"]
        return True

    def step(self) -> dict[str, Any]:
        spec = self._specs[self._position]
        try:
            if self._trainer is None:  # here, not in setup, so that its errors are a proxy's too
                self._trainer = self._factory()
            (result,) = self._trainer.train([spec], self._starts)
        except Exception as error:
            final = isinstance(error, MgralError) and not isinstance(error, Unavailable)
            cause = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
            if not final:  # a failure to Tune, which ends this actor and tries again in another
                raise ProxyFailed(spec.index, cause) from error
            result = ProxyResult(spec.index, None, 0.0, cause)
        return {"proxy": result, "done": True}


class _Stream(Callback, Stopper):  # type: ignore[misc]
    """Hands results to another thread as they come; stops all trials once `stop` is set."""

    def __init__(self, specs: Sequence[ProxySpec]) -> None:
        self.results: queue.SimpleQueue[ProxyResult | BaseException | None] = queue.SimpleQueue()
        self.stop = threading.Event()
        self._specs = specs
        self._open = set(range(len(specs)))
        self._causes: dict[int, str] = {}
        self._restarts: Counter[int] = Counter()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        position = trial.config["position"]
        preempted = self._restarts[position] - trial.num_failures
        self._open.discard(position)
        self.results.put(replace(result["proxy"], interruptions=preempted))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._restarts[trial.config["position"]] += 1
        self._note(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._note(trial)
        position = trial.config["position"]
        preempted = self._restarts[position] + 1 - trial.num_failures
        self._fail(position, self._causes[position], preempted)

    def close(self) -> None:
        """No result will come any more: trials that gave none have failed."""
        for position in sorted(self._open):
            self._fail(position, "its trial ended without a result", 0)
        self.results.put(None)

    def _note(self, trial: Any) -> None:
        """Keep the first cause. Tune counts no failure for a trial that lost a preempted node."""
        if trial.num_failures:
            self._causes.setdefault(trial.config["position"], cause_of(trial.error_file))

    def _fail(self, position: int, cause: str, preempted: int) -> None:
        self._open.discard(position)
        index = self._specs[position].index
        self.results.put(ProxyResult(index, None, 0.0, cause, preempted))

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return self.stop.is_set()

    def stop_all(self) -> bool:
        return self.stop.is_set()

    # Tune pickles its callbacks and stoppers with the experiment's state; this one starts empty.
    def __reduce__(self) -> tuple[type[_Stream], tuple[Sequence[ProxySpec]]]:
        return _Stream, (self._specs,)


def cause_of(error_file: str | None) -> str:
    """The newest failure in the file where Tune wrote a trial's errors, as a line of what happened
    and what to do.
    """
    text = Path(error_file).read_text() if error_file and Path(error_file).exists() else ""
    newest = text.rpartition("Failure # ")[2]
    lines = [line for line in newest.splitlines()[1:] if line.strip()]
    if not lines:
        return "the actor ended without an error"
    cause = lines[-1].partition(f"{ProxyFailed.__name__}: ")[2].partition(" failed: ")[2]
    return _advised(cause or lines[0].rstrip("."))


def _advised(cause: str) -> str:
    return "; ".join([cause, *(advice for pattern, advice in ADVICE if pattern.search(cause))])


@dataclass(eq=False)
class RayProxyTrainer:
    """A ProxyTrainer whose proxies train on a Ray cluster, `actors` at a time.

    factory       makes the local trainer inside an actor (a closure over specs and paths, no data)
    cpus, gpus    of one proxy; fractions let several share a device
    max_failures  retries of one proxy before it counts as failed for good
    folder        where Tune keeps its experiment's state
    """

    factory: Callable[[], ProxyTrainer]
    actors: int
    cpus: float
    gpus: float
    max_failures: int
    folder: Path

    def __post_init__(self) -> None:
        self._put: ray.ObjectRef[Callable[[], ProxyTrainer]] | None = None  # once for all tables

    def train(
        self, specs: Sequence[ProxySpec], starts: Mapping[int | None, Weights] = NOTHING
    ) -> Iterator[ProxyResult]:
        """One result a spec, as trials end. Closing the iterator stops the trials that have not
        started. Unavailable if Tune itself cannot write.
        """
        if not specs:
            return
        os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"  # no CSV beside the store
        os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # no tables on stdout: `verbose` alone keeps one
        stream = _Stream(specs)
        thread = threading.Thread(target=self._run, args=(specs, starts, stream), daemon=True)
        thread.start()
        try:
            while (result := stream.results.get()) is not None:
                if isinstance(result, BaseException):
                    raise result
                yield result
        finally:
            stream.stop.set()

    def _run(
        self, specs: Sequence[ProxySpec], starts: Mapping[int | None, Weights], stream: _Stream
    ) -> None:
        try:
            if self._put is None:
                self._put = ray.put(self.factory)
            trainable = tune.with_parameters(
                ProxyTrial, factory=self._put, specs=tuple(specs), starts=dict(starts)
            )
            Tuner(
                tune.with_resources(trainable, {"cpu": self.cpus, "gpu": self.gpus}),
                param_space={"position": tune.grid_search(list(range(len(specs))))},
                tune_config=TuneConfig(
                    reuse_actors=True, max_concurrent_trials=min(self.actors, len(specs))
                ),
                run_config=RunConfig(
                    storage_path=str(self.folder.resolve()),
                    callbacks=[stream],
                    stop=stream,
                    failure_config=FailureConfig(max_failures=self.max_failures),
                    checkpoint_config=CheckpointConfig(checkpoint_at_end=False),  # it starts over
                    verbose=0,
                ),
            ).fit()
            stream.close()
        except OSError as error:
            disk = f"the disk of {self.folder} or of Ray's session"
            stream.results.put(Unavailable(disk, _advised(str(error))))
        except BaseException as error:  # carried to the consumer's thread, which raises it
            stream.results.put(error)
        finally:
            _forget_parameters()


def _forget_parameters() -> None:
    """Ray keeps for good what `tune.with_parameters` was given, and with it all images and weights
    in its object store: for a later `ray.init` that never comes here.
    """
    hooks = getattr(ray._private.worker, "_post_init_hooks", [])
    ours = "_ParameterRegistry"
    hooks[:] = [hook for hook in hooks if ours not in str(type(getattr(hook, "__self__", None)))]


def connect() -> None:
    """Join the cluster that RAY_ADDRESS names (a job finds it set), or start one on this machine,
    unless this process is in one already.
    """
    if not ray.is_initialized():
        address = os.environ.get("RAY_ADDRESS", "local")
        ray.init(address=address, log_to_driver=False, configure_logging=False)


def processors() -> int:
    """That Ray has on this machine, 1 at least: no more than its container, if it is in one. Ray
    itself gives a driver's libraries one thread.
    """
    here = ray.get_runtime_context().get_node_id()
    (own,) = (node["Resources"] for node in ray.nodes() if node["NodeID"] == here)
    return max(1, int(own.get("CPU", 1)))
