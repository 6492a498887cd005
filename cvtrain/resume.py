"""Whether a checkpoint may be gone on from: of the same settings, the same data, the same model.

Knows saved states and the words for what does not fit; not training, nor files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cvtrain import schema
from cvtrain.config import RESUME_MAY_CHANGE, TRAINED_GROUPS, Config, masked
from cvtrain.data.facts import DataFacts
from cvtrain.data.roles import changes_since, rewritten_since
from cvtrain.engine.checkpoint import load_newest
from cvtrain.engine.device import Compute, is_out_of_memory
from cvtrain.engine.distributed.team import Team
from cvtrain.errors import CheckpointError, ConfigError, CvtrainError, DivergedError
from cvtrain.prepared import PreparedData


def check_state(state: Mapping[str, Any]) -> None:
    """Looks at every value of a state that a run goes on with, apart from those that are loaded by what they belong to.

    Checkpoints of earlier versions lack some, which may then be missing; `cvtrain.saved_model` looks at the model.

    Raises:
        ValueError: In words that name the value.
    """
    for place, (is_right, wanted) in _VALUES.items():
        value: Any = state
        for key in place.split("."):
            value = value.get(key, _MISSING) if isinstance(value, Mapping) else _MISSING
        if value is _MISSING and place in _LATER:
            continue
        if not is_right(value):
            raise ValueError(f"{place} is {'missing' if value is _MISSING else f'no {wanted}: {str(value)[:40]!r}'}")


def _is_whole(value: Any) -> bool:
    return type(value) is int and 0 <= value <= 2**62


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_amount(value: Any) -> bool:
    """Of anything: seconds, images."""
    return _is_number(value) and 0 <= value < 2**62


def _are_figures(value: Any) -> bool:
    """Those of an evaluation, or None where there was none."""
    if value is None:
        return True
    is_plain = isinstance(value, Mapping) and _is_whole(value.get("step")) and _is_number(value.get("epoch"))
    return is_plain and all(figure is None or _is_number(figure) for figure in value.values())


def _are_words(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(word, str) for pair in value.items() for word in pair)


def _optional(is_right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or is_right(value)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


_MISSING = object()
_VALUES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "config": (_is_mapping, "settings"),
    "facts": (_is_mapping, "facts of data"),
    "circumstances": (_are_words, "texts by name"),
    "init_from": (_optional(_is_mapping), "description of first weights"),
    "total_steps": (_is_whole, "number of steps"),
    "seconds": (_is_amount, "number of seconds"),
    "metrics_num_bytes": (_is_whole, "number of bytes"),
    "metrics_sha256": (_optional(lambda value: isinstance(value, str)), "checksum"),
    "is_best": (lambda value: isinstance(value, bool), "yes or no"),
    "last": (_are_figures, "figures of an evaluation"),
    "selection.best": (_are_figures, "figures of an evaluation"),
    "selection.num_waited": (_is_whole, "number of evaluations"),
    "selection.reference": (_optional(_is_number), "number"),
    "diagnosis": (_optional(_is_mapping), "figures of training"),
    "trainer.step": (_is_whole, "number of steps"),
    "trainer.evaluated_at": (_is_whole, "number of steps"),
    "trainer.sums.loss": (_is_number, "sum of losses"),
    "trainer.sums.num_correct": (_is_amount, "number of images"),
    "trainer.sums.num_images": (_is_whole, "number of images"),
    "trainer.sums.seconds": (_is_amount, "number of seconds"),
    "trainer.num_parts": (_is_whole, "number of parts of a step"),
}
"""By dotted name: whether a value may be gone on with, and what it has to be."""
_LATER = ("circumstances", "init_from", "metrics_sha256", "diagnosis", "trainer.num_parts")


def check_run(state: Mapping[str, Any], config: Config, prepared: PreparedData, *, roles_path: Path) -> list[str]:
    """Refuses to go on with other settings or other images than a checkpoint was made with.

    Args:
        state: The checkpoint.
        config: Checked settings.
        prepared: The data as they are now.
        roles_path: Where the run has noted its files, if it has.

    Returns:
        Warnings: what may have changed, and cannot be told.

    Raises:
        ConfigError: With both values of every setting that differs.
        CheckpointError: The data or the split has changed.
        ValueError: The state is none that a run has saved.
    """
    check_state(state)
    _check_same_settings(state["config"], config)
    _check_same_data(state["facts"], prepared, roles_path)
    rewritten = rewritten_since(roles_path, prepared.source)
    return [rewritten] if rewritten else []


def _check_same_settings(saved: Mapping[str, Any], config: Config) -> None:
    """Settings may differ from those of the checkpoint when config.yaml was edited."""

    def defining(settings: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: masked(settings)[key] for key in ("seed", *TRAINED_GROUPS)}
        return {k: v for k, v in schema.leaves(kept) if k not in RESUME_MAY_CHANGE}

    before, now = defining(saved), defining(config)
    problems = [
        f"{key}={now.get(key)}: this run was made with {key}={before.get(key)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key)
    ]
    if problems:
        raise ConfigError(problems, hint="put config.yaml back as it was, or start a new run")


def _check_same_data(saved: Mapping[str, Any], prepared: PreparedData, roles_path: Path) -> None:
    before, facts = DataFacts.from_plain(dict(saved)), prepared.facts
    if before.class_names != facts.class_names:
        raise CheckpointError(
            f"the data have other classes than the checkpoint: {', '.join(facts.class_names)[:80]}"
            f" instead of {', '.join(before.class_names)[:80]}"
        )
    if (before.fingerprint, before.split_hash) != (facts.fingerprint, facts.split_hash):
        counts = f"{sum(facts.class_counts)} training images instead of {sum(before.class_counts)} or other content"
        changes = changes_since(roles_path, prepared.source) or counts
        raise CheckpointError(
            f"the data have changed since this run was started: {changes}",
            hint="start a new run, or put the data back",
        )


def circumstances(compute: Compute, team: Team | None) -> dict[str, str]:
    """What the last bits of a result depend on besides settings and data, in words."""
    found = {"torch": str(torch.__version__), "processes": str(team.size if team else 1)}
    if compute.device.type == "cuda":
        found["device"] = torch.cuda.get_device_name(compute.device)
        found["cuDNN"] = str(torch.backends.cudnn.version())
    elif compute.device.type == "cpu":
        found["device"] = f"cpu with {torch.backends.cpu.get_cpu_capability()}"
        found["threads"] = str(torch.get_num_threads())
    else:
        found["device"] = compute.device.type
    return found


def check_machine(state: Mapping[str, Any], config: Config, compute: Compute, team: Team | None) -> list[str]:
    """Compares what the last bits of a result depend on with what it was when a checkpoint was written.

    Returns:
        At most one warning.

    Raises:
        ConfigError: Something differs, and the run promises the same bits.
    """
    now = circumstances(compute, team)
    saved = state.get("circumstances", now)  # which checkpoints of earlier versions lack
    changed = [name for name in (saved | now) if saved.get(name) != now.get(name)]
    if not changed:
        return []
    words = ", ".join(f"{name} {now.get(name, 'unknown')} instead of {saved.get(name, 'unknown')}" for name in changed)
    if not config["trainer"]["deterministic"]:
        return [f"goes on with {words}: its last bits may differ from those of a run without a stop"]
    hint = "trainer.deterministic=false goes on all the same, with bits that may differ"
    if changed == ["threads"] and "threads" in saved:
        hint = f"type OMP_NUM_THREADS={saved['threads']} before the command; {hint}"
    raise ConfigError(
        f"trainer.deterministic=true promises the same bits, and this run would go on with {words}", hint=hint
    )


def check_length(config: Config, *, step: int, steps_per_epoch: int) -> None:
    """Refuses a length that a run has passed already.

    Raises:
        ConfigError: Such a length.
    """
    length = config["trainer"]
    key, unit = ("epochs", steps_per_epoch) if length["epochs"] else ("steps", 1)
    if step > length[key] * unit:
        raise ConfigError(f"trainer.{key}={length[key]}: this run has taken {step / unit:g} {key} already")


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns whatever goes wrong while a state is taken over into a sentence about its file.

    Raises:
        CheckpointError: The state is not what it should be.
    """
    try:
        yield
    except DivergedError as error:
        raise CheckpointError(f"{path} cannot be used: {error.message}") from None
    except CvtrainError:
        raise
    except (RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        raise CheckpointError(f"{path} does not fit this run: {first_line(error)}") from error


def load_weights(model: nn.Module, state: Mapping[str, Any]) -> None:
    """Puts the weights of a checkpoint that are meant to be used, averaged ones if it has them, into a model.

    Raises:
        CheckpointError: They belong to another model.
    """
    trainer = state["trainer"]
    try:
        model.load_state_dict(trainer["model"])
        if trainer["average"] is not None:
            with torch.no_grad():
                for parameter, average in zip(model.parameters(), trainer["average"]["averages"], strict=True):
                    parameter.copy_(average)
    except (RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"the checkpoint belongs to another model: {first_line(error)}") from None


def load_best(model: nn.Module, folder: Path, step: int | None, *, note: Callable[[str], None]) -> None:
    """Puts the weights of the best checkpoint in a folder, which was made at `step`, into a model.

    Raises:
        CheckpointError: There is none, it is damaged, or it is another one.
    """
    best = load_newest(folder, "best")
    if best is None:
        raise CheckpointError(f"there is no best checkpoint in {folder}")
    for sentence in best.notes:
        note(sentence)
    with explained(best.path):
        check_state(best.state)
        if best.state["trainer"]["step"] != step:
            raise CheckpointError(f"{best.path} is not the best checkpoint of this run, which was made at step {step}")
        load_weights(model, best.state)


def first_line(error: BaseException) -> str:
    """The first two lines of a foreign error, as one."""
    return " ".join(line.strip() for line in str(error).splitlines()[:2]) or type(error).__name__
