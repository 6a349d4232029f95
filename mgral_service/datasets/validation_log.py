"""What reading a dataset met: every item accepted, repaired or refused is counted."""

from __future__ import annotations

from dataclasses import fields
from typing import Literal

from mgral_service.domain.records import Finding, IngestReport

MOST_FINDINGS = 100


COUNTS = tuple(field.name for field in fields(IngestReport) if field.name != "findings")


class ValidationLog:
    """Has the counts of IngestReport, and the first `most` findings; None: all."""

    def __init__(self, most: int | None = MOST_FINDINGS) -> None:
        self.findings: list[Finding] = []
        self.counts = dict.fromkeys(COUNTS, 0)
        self._most = most

    def refuse_image(self, file: str, record: str, problem: str, boxes: int = 0) -> None:
        self.counts["refused_images"] += 1
        self.counts["refused_boxes"] += boxes
        also = f"; its {boxes} boxes fall out with it" if boxes else ""
        self._add(file, record, problem + also, "refused")

    def repair_image(self, file: str, record: str, problem: str) -> None:
        self._add(file, record, problem, "repaired")

    def refuse_box(self, file: str, record: str, problem: str) -> None:
        self.counts["refused_boxes"] += 1
        self._add(file, record, problem, "refused")

    def repair_box(self, file: str, record: str, problem: str) -> None:
        """A box stays, changed; the caller counts it as accepted."""
        self.counts["repaired_boxes"] += 1
        self._add(file, record, problem, "repaired")

    def report(self) -> IngestReport:
        return IngestReport(**self.counts, findings=tuple(self.findings))

    def _add(
        self, file: str, record: str, problem: str, action: Literal["repaired", "refused"]
    ) -> None:
        if self._most is None or len(self.findings) < self._most:
            self.findings.append(
                Finding(printable(file), printable(record), printable(problem), action)
            )


def printable(text: str, longest: int = 300) -> str:
    """`text` from a user's file, fit for JSON: no surrogates or control characters, not endless."""
    clean = text.encode("utf-8", "backslashreplace").decode("utf-8")
    clean = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in clean)
    return clean if len(clean) <= longest else clean[: longest - 3] + "..."


def shown(value: object) -> str:
    """A value from a user's JSON, short; of lists and objects only the kind."""
    if value is not None and not isinstance(value, str | int | float):
        return f"a {type(value).__name__}"
    try:
        return printable(repr(value), longest=60)
    except ValueError:  # more digits than Python prints
        return "a huge number"
