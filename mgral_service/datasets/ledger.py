"""The account of a reading: every item accepted, repaired or refused is counted, never dropped
silently.
"""

from __future__ import annotations

from typing import Literal

from mgral_service.domain.records import Finding, IngestReport

KEPT_FINDINGS = 100


class Ledger:
    """Counts everything and keeps the first hundred findings."""

    def __init__(self, keep: int | None = KEPT_FINDINGS) -> None:
        self.findings: list[Finding] = []
        self.accepted_images = 0
        self.refused_images = 0
        self.accepted_boxes = 0
        self.repaired_boxes = 0
        self.refused_boxes = 0
        self.images_without_boxes = 0
        self._keep = keep

    def refuse_image(self, file: str, record: str, problem: str, boxes: int = 0) -> None:
        """An image falls out, and its `boxes` with it."""
        self.refused_images += 1
        self.refused_boxes += boxes
        with_boxes = f"; its {boxes} boxes fall out with it" if boxes else ""
        self._note(file, record, problem + with_boxes, "refused")

    def repair_image(self, file: str, record: str, problem: str) -> None:
        """An image stays, though its entry was wrong."""
        self._note(file, record, problem, "repaired")

    def refuse_box(self, file: str, record: str, problem: str) -> None:
        self.refused_boxes += 1
        self._note(file, record, problem, "refused")

    def repair_box(self, file: str, record: str, problem: str) -> None:
        """A box stays, changed; it still has to be counted as accepted."""
        self.repaired_boxes += 1
        self._note(file, record, problem, "repaired")

    def report(self) -> IngestReport:
        return IngestReport(
            accepted_images=self.accepted_images,
            refused_images=self.refused_images,
            accepted_boxes=self.accepted_boxes,
            repaired_boxes=self.repaired_boxes,
            refused_boxes=self.refused_boxes,
            images_without_boxes=self.images_without_boxes,
            findings=tuple(self.findings),
        )

    def _note(
        self, file: str, record: str, problem: str, action: Literal["repaired", "refused"]
    ) -> None:
        if self._keep is None or len(self.findings) < self._keep:
            self.findings.append(
                Finding(printable(file), printable(record), printable(problem), action)
            )


def printable(text: str, longest: int = 300) -> str:
    """`text` from a user's file, fit for JSON: no lone surrogates, no control characters, not
    endless.
    """
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
