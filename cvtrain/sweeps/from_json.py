"""A comparison read back from `comparison.json`: the arms, the pairs and the sentences, as they were when it was made.

Knows what `as_json` writes; neither folders of runs nor pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cvtrain.analysis.comparison import MeanResult, PairedDifferenceResult
from cvtrain.analysis.paired_predictions import PairedPredictionsResult
from cvtrain.errors import CheckpointError
from cvtrain.sweeps.arms import Arm, ArmResult, Cell
from cvtrain.sweeps.image_verdict import ImagePairResult
from cvtrain.sweeps.leaderboard import JobResult
from cvtrain.sweeps.verdict import ComparisonResult, PairResult


@dataclass(frozen=True)
class StoredComparison:
    """What a comparison showed.

    Args:
        arms: Best first.
        pairs: Every pair of arms that have a result, over seeds.
        image_pairs: Every pair of single models, over the same images; empty where arms have several runs.
        sentences: What was said.
        winner: The arm that is better than every other one: of settings, or of models where there are image pairs.
    """

    arms: tuple[ArmResult, ...]
    pairs: tuple[PairResult, ...]
    image_pairs: tuple[ImagePairResult, ...]
    sentences: tuple[str, ...]
    winner: str | None

    @property
    def jobs(self) -> list[JobResult]:
        """Of all arms."""
        return [job for arm in self.arms for cell in arm.arm.cells for job in cell.jobs]


def stored(comparison: ComparisonResult) -> StoredComparison:
    """A comparison that was just made, as it would be read back."""
    return StoredComparison(comparison.arms, comparison.pairs, (), comparison.sentences, comparison.winner)


def comparison_from_json(plain: Mapping[str, Any], path: Path) -> StoredComparison:
    """Reads what `as_json.comparison_json` wrote.

    Args:
        plain: The content.
        path: Of the file, for what is said of it.

    Raises:
        CheckpointError: It is something else.
    """
    try:
        images = plain.get("images") or {}
        return StoredComparison(
            arms=tuple(_arm(arm, images.get("verdicts", {})) for arm in plain["arms"]),
            pairs=tuple(_pair(pair) for pair in plain["pairs"]),
            image_pairs=tuple(_image_pair(pair) for pair in images.get("pairs", ())),
            sentences=tuple(map(str, plain["sentences"])),
            winner=images["better"] if images else plain["winner"],
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CheckpointError(
            f"{path} is no comparison of runs, or is damaged: {type(error).__name__}: {error}"[:200]
        ) from None


def _arm(plain: Mapping[str, Any], image_verdicts: Mapping[str, Any]) -> ArmResult:
    cells = tuple(
        Cell(cell["lr"], tuple(map(_job, cell["runs"])), tuple(cell.get("seed_keys", ()))) for cell in plain["cells"]
    )
    arm = Arm(str(plain["name"]), dict(plain["settings"]), cells)
    below = plain["below_the_best"]
    return ArmResult(
        arm=arm,
        test=_mean(plain["test"]),
        difference=_paired(below) if below else None,
        p_value=plain["holm_p_value"],
        verdict=image_verdicts.get(arm.name, plain["verdict"]),
        time_share=plain["time_share"],
    )


def _job(plain: Mapping[str, Any]) -> JobResult:
    names = {field.name for field in fields(JobResult)} - {"overrides", "run_dir"}
    run = plain["run"]
    return JobResult(
        overrides=dict(plain["words"]),
        run_dir=None if run is None else Path(run),
        **{name: plain[name] for name in names if name in plain},
    )


def _mean(plain: Mapping[str, Any] | None) -> MeanResult | None:
    return MeanResult(**plain) if plain else None


def _paired(plain: Mapping[str, Any]) -> PairedDifferenceResult:
    names = [field.name for field in fields(PairedDifferenceResult)]
    return PairedDifferenceResult(**{**{name: plain[name] for name in names}, "difference": _mean(plain["difference"])})


def _pair(plain: Mapping[str, Any]) -> PairResult:
    return PairResult(str(plain["first"]), str(plain["second"]), _paired(plain), plain["holm_p_value"])


def _image_pair(plain: Mapping[str, Any]) -> ImagePairResult:
    names = [field.name for field in fields(PairedPredictionsResult)]
    paired = PairedPredictionsResult(**{name: plain[name] for name in names})
    return ImagePairResult(str(plain["first"]), str(plain["second"]), paired, plain["holm_p_value"])
