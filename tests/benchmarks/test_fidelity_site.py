from collections.abc import Sequence
from pathlib import Path

from benchmarks.fidelity_site import KeptLedger
from mgral_service.domain.records import LookupRecord


def test_records_are_kept_without_the_sketches_that_follow_from_them(tmp_path: Path) -> None:
    def sketch(batch: Sequence[str]) -> tuple[float, ...]:
        return (float(len(batch)),)

    record = LookupRecord("c", 3, ("a", "b"), (2.0,), 0.1, 0, 1.0, "tilted")
    file = tmp_path / "kept" / "table.jsonl"
    KeptLedger(file, sketch).keep_record(record)
    assert "2.0" not in file.read_text()
    with file.open("a") as torn:
        torn.write('{"cycle": "c", "in')
    assert KeptLedger(file, sketch).records() == (record,)
