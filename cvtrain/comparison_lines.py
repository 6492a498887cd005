"""What a comparison shows on the terminal: its tables, then its answers in sentences.

Knows results and a console; neither runs nor folders.
"""

from __future__ import annotations

from collections.abc import Sequence

from cvtrain.console import Console
from cvtrain.sweeps.image_verdict import ImageComparisonResult
from cvtrain.sweeps.verdict import ComparisonResult


def say_comparison(
    comparison: ComparisonResult,
    console: Console,
    *,
    images: ImageComparisonResult | None = None,
    more_sentences: Sequence[str] = (),
) -> None:
    """Prints the tables and what may be said of them.

    Args:
        comparison: Over seeds.
        console: Where it is said.
        images: Over the test images, where there is one run of each arm: its tables take the place of those.
        more_sentences: Said at the end.
    """
    if comparison.lr_rows:
        console.table("validation accuracy by learning rate", comparison.lr_header, comparison.lr_rows)
    shown = images or comparison
    console.table("test accuracy", shown.header, shown.rows)
    if shown.pair_rows:
        console.table("differences of the other pairs", shown.pair_header, shown.pair_rows)
    console.say()
    for sentence in (*shown.sentences, *more_sentences):
        console.say(sentence)
