"""A file that is there only if it answers as the model does: written aside, read back, compared, then given its name.

Knows formats and files, not settings or consoles.
"""

from __future__ import annotations

import copy
import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cvtrain.engine.device import is_out_of_memory
from cvtrain.engine.durable import sync_folder, write_durably
from cvtrain.errors import ConfigError, CvtrainError, OutputError
from cvtrain.export.description import as_json
from cvtrain.export.exported_model import ExportedModel
from cvtrain.export.formats import FORMATS, Answer

BATCH_SIZES = (1, 4, 7)
"""Compared one after the other; what is left of the inputs comes as one batch more."""


@dataclass(frozen=True)
class CheckResult:
    """How an exported file answers beside the model that it was made from.

    Args:
        num_inputs: Compared.
        batch_sizes: In which they were given.
        max_difference: The largest of a probability, 0..1.
        num_same_class: Inputs of which both name the same class.
    """

    num_inputs: int
    batch_sizes: tuple[int, ...]
    max_difference: float
    num_same_class: int


@dataclass(frozen=True)
class ExportResult:
    """A file that was exported.

    Args:
        path: Of the file; its description lies beside it, as `description_path`.
        num_bytes: Its length.
        is_replacing: Whether there was a file of that name.
        check: How it answers.
    """

    path: Path
    num_bytes: int
    is_replacing: bool
    check: CheckResult

    @property
    def description_path(self) -> Path:
        """What a person, or a program of any language, reads about it."""
        return self.path.with_name(f"{self.path.name}.json")


def compare(answer: Answer, inputs: Tensor, expected: Tensor) -> CheckResult:
    """Gives inputs to an exported model in batches of several sizes.

    Args:
        answer: The exported model.
        inputs: float32, `(N, C, H, W)` or `(N, D)`, more than all `BATCH_SIZES` together.
        expected: float32 `(N, K)`: what the model itself says.
    """
    sizes = (*BATCH_SIZES, len(inputs) - sum(BATCH_SIZES))
    with torch.no_grad():
        found = torch.cat([answer(batch) for batch in inputs.split(sizes)])
    if found.shape != expected.shape:
        raise OutputError(f"the exported model gives {tuple(found.shape)} numbers instead of {tuple(expected.shape)}")
    same = (found.argmax(1) == expected.argmax(1)).sum()
    return CheckResult(len(inputs), sizes, (found - expected).abs().max().item(), int(same))


def export_verified(
    exported: ExportedModel,
    description: Mapping[str, Any],
    *,
    format_name: str,
    path: Path,
    inputs: Tensor,
    expected: Tensor,
    tolerance: float,
) -> ExportResult:
    """Writes a model to a file, if what its runtime reads there answers as the model does.

    Args:
        exported: The model.
        description: Goes into the file, and beside it with what was found.
        format_name: One of `FORMATS`.
        path: Of the file; one that is there is replaced in one move.
        inputs: See `compare`.
        expected: See `compare`.
        tolerance: Largest difference of a probability that is allowed.

    Raises:
        ConfigError: The model cannot be had in this format.
        OutputError: It answers otherwise, or cannot be written or read back; then there is no new file.
    """
    made = _made(exported, as_json(description), format_name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".export-", dir=path.parent) as aside:
            temporary, part = Path(aside) / path.name, Path(aside) / "part"
            write_durably(temporary, made, temporary=part)
            check = _checked(exported, format_name, temporary, inputs, expected, tolerance)
            result = ExportResult(path, len(made), path.exists(), check)
            found = {
                "file": _file_facts(path, made, FORMATS[format_name].holds),
                "check": _check_facts(check, tolerance),
            }
            beside = Path(aside) / result.description_path.name
            write_durably(beside, (as_json({**description, **found}, indent=2) + "\n").encode(), temporary=part)
            os.replace(temporary, path)
            os.replace(beside, result.description_path)
            sync_folder(path.parent)
    except OSError as error:
        raise OutputError(
            f"{path} could not be written: {error.strerror or error}", hint="choose another place with output=FOLDER"
        ) from None
    return result


def _made(exported: ExportedModel, description: str, format_name: str) -> bytes:
    try:
        return FORMATS[format_name].to_bytes(exported, description)
    except CvtrainError:
        raise
    except Exception as error:  # of exporters, whatever a model does that they do not know
        if is_out_of_memory(error):
            raise
        words = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:160]}"
        hint = None if format_name == "safetensors" else "format=safetensors holds the weights of any model"
        raise ConfigError(f"format={format_name} cannot hold this model: {words}", hint=hint) from error


def _checked(
    exported: ExportedModel, format_name: str, path: Path, inputs: Tensor, expected: Tensor, tolerance: float
) -> CheckResult:
    try:
        check = compare(FORMATS[format_name].open(path, exported), inputs, expected)
    except (CvtrainError, OSError):
        raise
    except Exception as error:  # of runtimes, in their own kinds
        if is_out_of_memory(error):
            raise
        words = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise OutputError(f"the exported model cannot be used: {words}; no {path.name} was kept") from error
    if not check.max_difference <= tolerance:  # NaN is no agreement either
        raise OutputError(
            f"{path.name} answers otherwise than the model: probabilities differ by {check.max_difference:.3g}"
            f" over {check.num_inputs} inputs, tolerance={tolerance:g}; it was not kept",
            hint=f"{check.num_same_class} of {check.num_inputs} classes are the same"
            f"{_own_rounding(exported, inputs, tolerance)}; a larger tolerance= accepts it",
        )
    return check


def _own_rounding(exported: ExportedModel, inputs: Tensor, tolerance: float) -> str:
    """A few words where the model itself, in float32, is further from exact answers than is to be tolerated."""
    try:
        with torch.no_grad():
            exact = copy.deepcopy(exported).double()(inputs.double())
            rounding = (exported(inputs) - exact).abs().max().item()
    except Exception:  # of a model that computes in float32 alone: then there is nothing to say
        return ""
    return f"; float32 itself rounds this model by {rounding:.1g}" if rounding > tolerance else ""


def _file_facts(path: Path, content: bytes, holds: str) -> dict[str, Any]:
    sha256 = hashlib.sha256(content).hexdigest()
    return {"name": path.name, "holds": holds, "num_bytes": len(content), "sha256": sha256}


def _check_facts(check: CheckResult, tolerance: float) -> dict[str, Any]:
    return {
        "num_inputs": check.num_inputs,
        "batch_sizes": list(check.batch_sizes),
        "max_difference": check.max_difference,
        "num_same_class": check.num_same_class,
        "tolerance": tolerance,
    }
