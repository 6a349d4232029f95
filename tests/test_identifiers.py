"""Names say what a thing is: words that say nothing are rare."""

from __future__ import annotations

import tokenize
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
VAGUE = frozenset({"one", "at", "found", "some", "told", "kept", "known", "seen"})
MOST = 100


def vague_names(file: Path) -> int:
    with tokenize.open(file) as source:
        tokens = tokenize.generate_tokens(source.readline)
        return sum(token.type == tokenize.NAME and token.string in VAGUE for token in tokens)


def test_vague_names_are_rare() -> None:
    files = [
        file for folder in ("mgral_service", "benchmarks") for file in (ROOT / folder).rglob("*.py")
    ]
    counts = Counter({str(file.relative_to(ROOT)): vague_names(file) for file in files})
    assert files
    assert counts.total() < MOST, counts.most_common(10)
