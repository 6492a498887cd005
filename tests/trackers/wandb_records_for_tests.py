"""Reads back what wandb has written into a run folder.

The format is LevelDB's log: blocks of 32 KiB, records of checksum, length and kind. Source: LevelDB, `log_format.md`.
"""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_HEADER_BYTES, _BLOCK_BYTES = 7, 32768
_WHOLE, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass
class WandbPart:
    """What one process has written of a run."""

    run_id: str = ""
    group: str = ""
    project: str = ""
    tags: list[str] = field(default_factory=list)
    config: dict = field(default_factory=dict)
    rows: list[dict] = field(default_factory=list)
    summary: dict = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    exit_code: int | None = None


def wandb_parts(run: Path) -> list[WandbPart]:
    """All parts of a run, by the time when they were begun."""
    return [_part(path) for path in sorted(run.glob("wandb/offline-run-*/*.wandb"))]


def _part(path: Path) -> WandbPart:
    from wandb.proto import wandb_internal_pb2

    part = WandbPart()
    for data in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(data)
        kind = record.WhichOneof("record_type")
        if kind == "run":
            part.run_id, part.group, part.project = record.run.run_id, record.run.run_group, record.run.project
            part.tags = list(record.run.tags)
            part.config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
        elif kind == "history":
            part.rows.append({_name(item): json.loads(item.value_json) for item in record.history.item})
        elif kind == "summary":
            part.summary |= {_name(item): json.loads(item.value_json) for item in record.summary.update}
        elif kind == "artifact":
            part.files = [entry.local_path for entry in record.artifact.manifest.contents]
        elif kind == "exit":
            part.exit_code = record.exit.exit_code
    return part


def _name(item) -> str:
    return item.key or ".".join(item.nested_key)


def _records(data: bytes) -> Iterator[bytes]:
    at, whole = _HEADER_BYTES, b""
    while at + _HEADER_BYTES <= len(data):
        if _BLOCK_BYTES - at % _BLOCK_BYTES < _HEADER_BYTES:
            at += _BLOCK_BYTES - at % _BLOCK_BYTES
            continue
        _checksum, length, kind = struct.unpack_from("<IHB", data, at)
        part = data[at + _HEADER_BYTES : at + _HEADER_BYTES + length]
        at += _HEADER_BYTES + length
        whole = part if kind in (_WHOLE, _FIRST) else whole + part
        if kind in (_WHOLE, _LAST):
            yield whole
