"""Drivers as Ray jobs: `POST /cycles` starts what `ray job submit` runs by hand."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import ray
from ray.exceptions import RayError
from ray.job_submission import JobSubmissionClient
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

from mgral_service.domain.errors import Unavailable

WAKING_S = 30.0  # a cluster that just started takes jobs a moment after it answers
FAULTS = (RuntimeError, OSError, RayError)  # what a client raises: its own, of HTTP, of the token


class RayJobLauncher:
    """CycleLauncher over the Jobs API at `address` (the dashboard's, such as
    http://127.0.0.1:8265).

    The job inherits the cluster's environment: secrets travel there and not through the API, where
    anyone with the token could read them. `gpus` are the driver's own, for the task detector.
    """

    def __init__(self, address: str, gpus: float = 0.0) -> None:
        self._address, self._gpus = address, gpus

    def launch(self, cycle: str, attempt: int) -> str:
        job = f"mgral-{cycle}-a{attempt}"
        command = [sys.executable, "-m", "mgral_service", "run", "--cycle", cycle]
        waking = Retrying(
            retry=retry_if_exception(lambda error: "No available agent" in str(error)),
            stop=stop_after_delay(WAKING_S),
            wait=wait_fixed(1),
            reraise=True,
        )
        with _unless("already exists"):  # the same attempt twice is one job
            waking(
                JobSubmissionClient(self._address).submit_job,
                entrypoint=shlex.join([*_own_cluster(), *command]),
                submission_id=job,
                entrypoint_num_gpus=self._gpus or None,
                metadata={"cycle": cycle, "attempt": str(attempt)},
            )
        return job

    def cancel(self, job: str) -> None:
        with _unless("does not exist"):
            JobSubmissionClient(self._address).stop_job(job)

    def alive(self, job: str) -> bool:
        with _unless("does not exist"):
            return not JobSubmissionClient(self._address).get_job_status(job).is_terminal()
        return False

    def ping(self) -> None:
        """Unavailable unless the Jobs API answers."""
        self.alive("ping")


def _own_cluster() -> list[str]:
    """Ray tells a job of the cluster that was started last on its machine; what starts a command
    in the cluster of this process instead, if it is in one.
    """
    if not ray.is_initialized():
        return []
    return ["env", f"RAY_ADDRESS={ray.get_runtime_context().gcs_address}"]


@contextmanager
def _unless(harmless: str) -> Iterator[None]:
    """Unavailable for an error of the client that does not say this; others are as no error."""
    try:
        yield
    except FAULTS as error:
        if harmless not in str(error):
            cause = str(error) or type(error).__name__
            raise Unavailable("the cluster's Jobs API", cause.splitlines()[0]) from error
