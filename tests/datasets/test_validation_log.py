from __future__ import annotations

from mgral_service.datasets.validation_log import ValidationLog, printable, shown


def test_counts_are_complete_where_findings_stop_at_a_hundred() -> None:
    log = ValidationLog()
    for index in range(150):
        log.refuse_box("train.json", f"annotations[{index}]", "wrong")
    report = log.report()
    assert report.refused_boxes == 150
    assert len(report.findings) == 100
    assert report.findings[99].record == "annotations[99]"


def test_the_boxes_of_a_refused_image_count_as_refused() -> None:
    log = ValidationLog()
    log.refuse_image("train.json", "images[0]", "gone", boxes=3)
    report = log.report()
    assert (report.refused_images, report.refused_boxes) == (1, 3)
    assert "its 3 boxes" in report.findings[0].problem


def test_text_from_a_file_is_made_printable() -> None:
    assert printable("a\ud800b\nc\x1b[0m") == "a\\ud800b\\nc\\x1b[0m"
    assert printable("x" * 400).endswith("x...")
    assert len(printable("x" * 400)) == 300


def test_of_long_values_only_a_beginning_is_shown() -> None:
    assert shown(3) == "3"
    assert shown([[[]]]) == "a list"
    assert shown(10**5000) == "a huge number"
    assert len(shown("x" * 999)) == 60
