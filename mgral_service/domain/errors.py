"""Every error a caller may meet. What is wrong and what to do; all arguments in `args`, so it
survives pickling.

MgralError
├── InvalidInput            a request, file or setting is wrong (names the place)
│   ├── DatasetRefused      a dataset cannot be used at all
│   └── IdempotencyMismatch the key was used with another body
├── NotFound                no such dataset, cycle or selection
├── Unreadable              what is stored is damaged, or of another version of this service
├── Conflict                the request does not fit the present state
│   ├── AlreadyExists
│   ├── CycleNotReady       no selection yet
│   ├── IllegalTransition   a cycle's status only moves forward
│   ├── LeaseHeld           another driver works on the cycle
│   └── StaleLease          this driver lost the cycle to another
├── ProxyFailed             one proxy's training failed (with its first cause)
├── TooFewRecords           the table has fewer records than the stated minimum
└── Unavailable             a store, cluster or replica cannot be reached now: retry
"""

from __future__ import annotations


class MgralError(Exception):
    """Root of the tree."""


class InvalidInput(MgralError):
    """`where` is a path such as `budget` or `train.json: annotations[3].bbox`; `what` says what to
    do.
    """

    def __init__(self, where: str, what: str) -> None:
        super().__init__(where, what)
        self.where, self.what = where, what

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class DatasetRefused(InvalidInput):
    """The dataset as a whole cannot be used."""


class IdempotencyMismatch(InvalidInput):
    """An Idempotency-Key came back with another body."""

    def __init__(self, key: str) -> None:
        super().__init__("Idempotency-Key", "was used with another body: send a new key")
        self.args = (key,)


class NotFound(MgralError):
    def __init__(self, kind: str, name: str) -> None:
        super().__init__(kind, name)
        self.kind, self.name = kind, name

    def __str__(self) -> str:
        return f"no {self.kind} named {self.name!r}"


class Unreadable(MgralError):
    def __init__(self, kind: str, name: str, cause: str) -> None:
        super().__init__(kind, name, cause)
        self.kind, self.name, self.cause = kind, name, cause

    def __str__(self) -> str:
        return (
            f"{self.kind} {self.name!r} is stored in a form that cannot be read ({self.cause}): it "
            "is damaged, or of another version of this service; use that one to look at it"
        )


class Conflict(MgralError):
    """The request does not fit the present state."""


class AlreadyExists(Conflict):
    def __init__(self, kind: str, name: str) -> None:
        super().__init__(kind, name)
        self.kind, self.name = kind, name

    def __str__(self) -> str:
        return f"a {self.kind} named {self.name!r} exists with other content: choose another name"


class CycleNotReady(Conflict):
    def __init__(self, cycle: str, status: str) -> None:
        super().__init__(cycle, status)
        self.cycle, self.status = cycle, status

    def __str__(self) -> str:
        return f"cycle {self.cycle!r} is {self.status}, not SELECTED: poll GET /cycles/{self.cycle}"


class IllegalTransition(Conflict):
    def __init__(self, cycle: str, old: str, new: str) -> None:
        super().__init__(cycle, old, new)
        self.cycle, self.old, self.new = cycle, old, new

    def __str__(self) -> str:
        return f"cycle {self.cycle!r} cannot go from {self.old} to {self.new}"


class LeaseHeld(Conflict):
    def __init__(self, cycle: str, owner: str) -> None:
        super().__init__(cycle, owner)
        self.cycle, self.owner = cycle, owner

    def __str__(self) -> str:
        return (
            f"cycle {self.cycle!r} is being driven by {self.owner}: wait for it or cancel the cycle"
        )


class StaleLease(Conflict):
    def __init__(self, cycle: str, token: int) -> None:
        super().__init__(cycle, token)
        self.cycle, self.token = cycle, token

    def __str__(self) -> str:
        return f"lease {self.token} on cycle {self.cycle!r} was taken over: this driver must stop"


class ProxyFailed(MgralError):
    def __init__(self, index: int, cause: str) -> None:
        super().__init__(index, cause)
        self.index, self.cause = index, cause

    def __str__(self) -> str:
        return f"proxy {self.index} failed: {self.cause}"


class TooFewRecords(MgralError):
    def __init__(self, got: int, wanted: int, first_cause: str) -> None:
        super().__init__(got, wanted, first_cause)
        self.got, self.wanted, self.first_cause = got, wanted, first_cause

    def __str__(self) -> str:
        return (
            f"the table has {self.got} records, fewer than table.advanced.min_records = "
            f"{self.wanted}; first cause: {self.first_cause}"
        )


class Unavailable(MgralError):
    def __init__(self, what: str, cause: str) -> None:
        super().__init__(what, cause)
        self.what, self.cause = what, cause

    def __str__(self) -> str:
        return f"{self.what} cannot be reached ({self.cause}): try again shortly"
