"""Drivers as Ray jobs: `POST /cycles` starts what `ray job submit` runs by hand."""

from __future__ import annotations

import shlex
import sys
import time

from ray.exceptions import RayError
from ray.job_submission import JobSubmissionClient

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
        deadline = time.monotonic() + WAKING_S
        while True:
            try:
                return str(
                    self._client().submit_job(
                        entrypoint=shlex.join(command),
                        submission_id=job,
                        entrypoint_num_gpus=self._gpus or None,
                        metadata={"cycle": cycle, "attempt": str(attempt)},
                    )
                )
            except FAULTS as error:
                if "already exists" in str(error):  # the same attempt twice is one job
                    return job
                if "No available agent" not in str(error) or time.monotonic() > deadline:
                    raise _unavailable(error) from error
            time.sleep(1)

    def cancel(self, job: str) -> None:
        try:
            self._client().stop_job(job)
        except FAULTS as error:
            if "does not exist" not in str(error):
                raise _unavailable(error) from error

    def alive(self, job: str) -> bool:
        try:
            return not self._client().get_job_status(job).is_terminal()
        except FAULTS as error:
            if "does not exist" in str(error):
                return False
            raise _unavailable(error) from error

    def ping(self) -> None:
        """Unavailable unless the Jobs API answers."""
        self._client()

    def _client(self) -> JobSubmissionClient:
        try:
            return JobSubmissionClient(self._address)
        except FAULTS as error:
            raise _unavailable(error) from error


def _unavailable(error: Exception) -> Unavailable:
    words = str(error) or type(error).__name__
    return Unavailable("the cluster's Jobs API", words.splitlines()[0])
