"""The picture of a sample-size sweep: what is drawn, and in which words.

Knows conclusions; not how lines are drawn.
"""

from __future__ import annotations

from pathlib import Path

from cvtrain.report.curves import SizeMark
from cvtrain.report.learning_curve import CurvePlot, TargetMark, learning_curve
from cvtrain.sample_size import sentences as say
from cvtrain.sample_size.conclusion import Conclusion, drawn_curve, measured_sizes


def draw(path: Path, conclusion: Conclusion, *, title: str) -> None:
    """Draws the learning curve.

    Args:
        path: The PNG file.
        conclusion: What to draw.
        title: Model, data, protocol.
    """
    target, elbow, fit = conclusion.target, conclusion.elbow, conclusion.fit
    learning_curve(
        path,
        CurvePlot(
            title=title,
            caption=caption_of(conclusion),
            measured=measured_sizes(conclusion.points),
            fit=None if fit is None else drawn_curve(fit),
            chance_accuracy=conclusion.chance_accuracy,
            target=target
            and TargetMark(target.target, say.target_sentence(target), target.per_class, target.low, target.high),
            elbow=SizeMark(elbow.per_class, say.elbow_sentence(elbow), elbow.low, elbow.high)
            if elbow and elbow.per_class
            else None,
        ),
    )


def caption_of(conclusion: Conclusion) -> str:
    """How often each size was trained, on how many images it was tested, and why the curve ends where it does."""
    counts = [point.num_replicates for point in conclusion.points]
    runs = f"{counts[0]}" if min(counts) == max(counts) else f"{max(counts)} to {min(counts)}"
    reason = conclusion.reason or (conclusion.fit and conclusion.fit.refusal)
    words = f"{runs} run{'s' if runs != '1' else ''} at each size, each on other images"
    words += f"; {conclusion.num_test:,} test images"
    return f"{words}; not extrapolated: {reason}" if reason else words
