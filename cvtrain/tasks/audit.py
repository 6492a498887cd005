"""`task=audit`: look at every image once and tell, in one table, what is wrong with the data.

Reads like a recipe; knows settings, a folder and a console. The images are read, never written.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cvtrain import build, workers
from cvtrain.check import check
from cvtrain.config import Config, save_text
from cvtrain.console import Console, duration
from cvtrain.data.audit.findings import ALIKE, HEADER, KINDS, SAME, Finding, class_counts, findings_of
from cvtrain.data.audit.inspection import Seen, inspect_files, inspect_pixels
from cvtrain.data.audit.likeness import CANDIDATE_COSINE, SAME_DETAIL
from cvtrain.data.audit.survey import Survey, alike_pictures, same_pictures, sets_of, survey
from cvtrain.data.images import ImageData, MemoryImages
from cvtrain.data.labelled_images import FileImages
from cvtrain.engine.runtime import available_cores
from cvtrain.errors import DataError
from cvtrain.outputs import RunDir
from cvtrain.plain_text import csv_text
from cvtrain.record import new_card, recorded
from cvtrain.signals import Interruption, StopRequest

TABLE_NAME, SUMMARY_NAME = "audit.csv", "audit.json"

_FILES_PER_ITEM = 256
_FEW_FILES = 2000
"""Looked at in this process: to start others takes as long."""
_IMBALANCED = 10


def run(config: Config) -> None:
    """Audits the chosen data.

    Raises:
        DataError: There are no images, they lie in no known layout, or, where `data.on_bad=error`, some cannot be
            read: then after all have been looked at and everything is written.
    """
    check(config)
    build.limit_threads()
    run_dir = RunDir.create(Path(config["output_dir"]) / "audit" / build.data_name(config), suffix=config["name"])
    card, console = new_card(config), Console(run_dir.log)
    with StopRequest() as stop, recorded(run_dir, card, discard_if_config_is_wrong=True):
        run_dir.write_text(run_dir.config_path, save_text(config))
        started = time.monotonic()
        data = build.read_data(listed_only(config), progress=console.progress)
        images = survey(data, look(data, console, stop=stop))
        findings, likeness = compare(images, console)
        summary = summarise(images, findings, likeness=likeness) | {"seconds": round(time.monotonic() - started, 2)}

        run_dir.write_text(run_dir.path / TABLE_NAME, csv_text(HEADER, [finding.row() for finding in findings]))
        run_dir.write_text(run_dir.path / SUMMARY_NAME, json.dumps(summary, indent=2, ensure_ascii=False) + "\n")
        card.update(data_fingerprint=data.fingerprint, class_names=list(data.class_names), warnings=list(data.warnings))
        card.update({key: summary[key] for key in ("num_images", "num_findings", "seconds")})
        show(console, config, data, findings, summary)
        console.say(f"results  {run_dir.path / TABLE_NAME}")
        refuse_unreadable(config, findings, summary)


def listed_only(config: Config) -> Config:
    """The same settings, but that image files of our own sources are listed, and none is read or left out."""
    settings = config["data"]
    is_ours = str(settings.get("_target_")).startswith("cvtrain.")
    return {**config, "data": {**settings, "loader": "list"}} if is_ours and "loader" in settings else config


# ----------------------------------------------------------------------------------------------------------- looking


def look(data: ImageData, console: Console, *, stop: StopRequest) -> list[Seen | str]:
    """What is seen of the images of all splits, in a row; the reason in the place of one that cannot be read."""
    stores = [images.images for images in sets_of(data).values()]
    total, paths = sum(store.shape[0] for store in stores), []
    found: list[Seen | str] = []
    for store in stores:
        if isinstance(store, FileImages):
            paths += store.paths
        else:
            found += look_into_memory(store, console, total=total)
    assert not (paths and found), "a source has files or pixels, not both"
    return found or look_at_files(paths, console, stop=stop)


def look_into_memory(store: MemoryImages, console: Console, *, total: int) -> list[Seen | str]:
    """What is seen of images whose pixels are held in memory."""
    found: list[Seen | str] = []
    for block in store.pixels.split(_FILES_PER_ITEM):
        found += inspect_pixels(block.numpy())
        console.progress(len(found), total, "looking at images")
    return found


def look_at_files(
    paths: Sequence[str], console: Console, *, stop: StopRequest, inspect: workers.WorkFn = inspect_files
) -> list[Seen | str]:
    """What is seen of files, in several processes if there are many; one that ends its process is unreadable."""
    chunks = [list(paths[start : start + _FILES_PER_ITEM]) for start in range(0, len(paths), _FILES_PER_ITEM)]
    results: dict[int, list[Seen | str]] = {}
    done = 0
    slots = available_cores() if len(paths) >= _FEW_FILES else 1
    for start, chunk in _looked_at(chunks, inspect, stop=stop, slots=slots):
        results[start] = chunk
        done += len(chunk)
        console.progress(done, len(paths), "looking at images")
    if stop.signum is not None:  # it came while others were at work
        raise Interruption(stop.signum)
    return [seen for start in range(len(chunks)) for seen in results[start]]


def _looked_at(
    chunks: Sequence[list[str]], inspect: workers.WorkFn, *, stop: StopRequest, slots: int
) -> Iterator[tuple[int, list[Seen | str]]]:
    """Number and looks of each list of files, in any order; a list whose process ended is gone through one by one."""
    items = [workers.WorkItem(str(number), chunk) for number, chunk in enumerate(chunks)]
    if slots == 1:
        for number, chunk in enumerate(chunks):
            yield number, inspect(None, chunk)
        return
    work = workers.run_all(inspect, items, shared=None, slots=slots, on_message=_ignore, stop=stop)
    for result in work:
        number = int(result.key)
        if result.error is not None:
            raise result.error
        if result.lost is None:
            yield number, result.value
        elif len(chunks[number]) == 1:
            yield number, [f"ends the process that decodes it (exit code {result.lost})"]
        else:
            single = _looked_at([[path] for path in chunks[number]], inspect, stop=stop, slots=slots)
            yield number, [seen for _, looks in sorted(single) for seen in looks]


def _ignore(_key: str, _message: object) -> None:
    """There is nothing to hear of before a list is done."""


def compare(images: Survey, console: Console) -> tuple[list[Finding], float]:
    """Everything that is wrong, the gravest first; and from which likeness on pictures count as nearly the same."""
    same, numbers = same_pictures(images)
    alike, likeness = alike_pictures(
        images, numbers, progress=lambda done, total: console.progress(done, total, "comparing images")
    )
    return findings_of(images, [*same, *alike]), likeness


# ----------------------------------------------------------------------------------------------------------- telling


def summarise(images: Survey, findings: Sequence[Finding], *, likeness: float) -> dict[str, Any]:
    """The figures of audit.json."""
    counts = class_counts(images)
    leaks = Counter(
        (f.split, f.other_split, "same" if f.kind in SAME else "alike") for f in _by_image(findings) if f.is_leak
    )
    looks = [seen for _, seen in images.readable()]
    return {
        "num_images": {split: sum(found.values()) for split, found in counts.items()},
        "num_findings": {kind: count for kind in KINDS if (count := sum(f.kind == kind for f in findings))},
        "leaks": [
            {"split": split, "other_split": other, "kind": kind, "num_images": count}
            for (split, other, kind), count in sorted(leaks.items())
        ],
        "two_labels": {
            "same": sum(f.has_two_labels for f in findings if f.kind in SAME),
            "alike": sum(f.has_two_labels for f in findings if f.kind in ALIKE),
        },
        "class_counts": counts,
        "imbalance": {split: _imbalance(found) for split, found in counts.items()},
        "modes": dict(Counter(seen.mode for seen in looks if seen.mode).most_common()),
        "sizes": {
            f"{width}x{height}": n for (width, height), n in Counter((s.width, s.height) for s in looks).most_common(20)
        },
        "thresholds": {"candidate_cosine": CANDIDATE_COSINE, "same_detail": likeness},
    }


def _by_image(findings: Sequence[Finding]) -> list[Finding]:
    """The first finding of every image and other split of each kind: an image with two twins in train leaks once."""
    first: dict[tuple[str, ...], Finding] = {}
    for f in findings:
        first.setdefault((f.split, f.path, f.other_split, "same" if f.kind in SAME else "alike"), f)
    return list(first.values())


def _imbalance(counts: dict[str, int]) -> float | None:
    """How many times more images the largest class has than the smallest."""
    present = [count for count in counts.values() if count]
    return round(max(present) / min(present), 2) if present else None


def show(
    console: Console, config: Config, data: ImageData, findings: Sequence[Finding], summary: dict[str, Any]
) -> None:
    """Prints the most important first, and what to do about it."""
    sizes = ", ".join(f"{count:,} {split}" for split, count in summary["num_images"].items())
    console.say(f"{build.data_name(config)}: {sizes}; {len(data.class_names)} classes; {duration(summary['seconds'])}")
    for warning in data.warnings:
        console.warn(warning)
    rows, advice = rows_of(findings)
    if summary["thresholds"]["same_detail"] > SAME_DETAIL:
        advice.append("pictures of different classes look alike here: only those that hardly differ count as the same")
    imbalance = summary["imbalance"].get("train") or 1
    if imbalance >= _IMBALANCED:
        advice.append(f"the largest class has {imbalance:g} times the images of the smallest: loss.class_weights=auto")
    if not rows:
        console.say("nothing is wrong with these images")
    else:
        console.say()
        console.say("  images")
    for count, title, example in rows:
        console.say(f"{count:>8,}  {title}, such as {example}")
    console.say()
    for sentence in advice:
        console.say(sentence)


def rows_of(findings: Sequence[Finding]) -> tuple[list[tuple[int, str, str]], list[str]]:
    """Number of images, what is wrong with them, an example; and a sentence on each grave kind of finding."""
    groups: dict[str, list[Finding]] = {}
    advice: dict[str, None] = {}
    for finding in findings:
        title, sentence = _title(finding)
        groups.setdefault(title, []).append(finding)
        if finding.has_two_labels:
            groups.setdefault("one picture, two labels", []).append(finding)
            advice["two labels: decide which one is right, or remove both"] = None
        if sentence:
            advice[sentence] = None
    rows = [
        (len({(f.split, f.path or f.class_name) for f in found}), title, _example(found[0]))
        for title, found in groups.items()
    ]
    return rows, list(advice)


def _title(finding: Finding) -> tuple[str, str]:
    """What a finding counts as, and what to do about it."""
    alike = "nearly the same picture" if finding.kind in ALIKE else "the same picture"
    if finding.is_leak:
        return (
            f"in {finding.split} and {finding.other_split}: {alike}",
            f"leaks: remove them from {finding.split}, whose accuracy they raise by what was learnt by heart",
        )
    if finding.kind in SAME + ALIKE:
        shared = finding.split == "train" and "copies in train: a validation split carved from train shares them"
        return f"within {finding.split}: {alike}", shared or ""
    return KINDS[finding.kind], ""


def _example(finding: Finding) -> str:
    if finding.other_path:
        return f"{finding.path} and {finding.other_path}"
    return f"{finding.path or finding.class_name}: {finding.detail or finding.split}"


def refuse_unreadable(config: Config, findings: Sequence[Finding], summary: dict[str, Any]) -> None:
    """Ends as a training with these settings would.

    Raises:
        DataError: Images cannot be read, and are not to be left out.
    """
    bad = [finding for finding in findings if finding.kind == "unreadable"]
    if bad and config["data"].get("on_bad") != "skip":
        shown = [f"  {finding.path}: {finding.detail}" for finding in bad[:3]]
        head = f"{len(bad):,} of {sum(summary['num_images'].values()):,} images cannot be read:"
        more = [f"  ... and {len(bad) - 3:,} more, all in {TABLE_NAME}"] if len(bad) > 3 else []
        hint = "mend or remove them, or leave them out: data.on_bad=skip"
        raise DataError("\n".join([head, *shown, *more]), hint=hint)
