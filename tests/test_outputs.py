import csv
import errno
import fcntl
import io
import json
import math
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cvtrain.engine.trainer import Evaluation
from cvtrain.errors import CheckpointError, ConfigError, OutputError
from cvtrain.outputs import METRICS_HEADER, RunDir
from cvtrain.plain_text import csv_text, printable

EVALUATION = Evaluation(
    epoch=1,
    step=7,
    train_loss=0.1 + 0.2,
    train_accuracy=0.5,
    val_loss=None,
    val_accuracy=None,
    lr=1e-9,
    seconds=1.25,
    images_per_second=1000.0,
)


@pytest.fixture
def run_dir(tmp_path):
    run_dir = RunDir.create(tmp_path / "parent")
    yield run_dir
    run_dir.close()


def fail(number):
    def call(*_args, **_kwargs):
        raise OSError(number, os.strerror(number))

    return call


def a_part_then_full():
    """A disk that takes five bytes more."""
    calls, real = [], os.write

    def write(descriptor, data):
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(descriptor, bytes(data[:5]))

    return write


# ------------------------------------------------------------------------------------------------ folders


def test_folder_is_named_by_the_time_and_the_name_given(tmp_path):
    run_dir = RunDir.create(tmp_path / "a" / "b", suffix="my-run")
    assert run_dir.path.parent == tmp_path / "a" / "b"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-\d{6}-my-run", run_dir.path.name)
    assert run_dir.checkpoint_dir.is_dir()
    run_dir.close()


MAKE_MANY = """
import sys, time
from pathlib import Path
from cvtrain.outputs import RunDir
time.sleep(max(0, float(sys.argv[2]) - time.time()))
for _ in range(50):
    print(RunDir.create(Path(sys.argv[1])).path)
"""


def test_processes_that_start_together_get_folders_of_their_own(tmp_path):
    command = [sys.executable, "-c", MAKE_MANY, str(tmp_path / "runs"), str(time.time() + 1)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    paths = [line for process in processes for line in process.communicate(timeout=30)[0].split()]
    assert len(paths) == len(set(paths)) == 300


@pytest.mark.parametrize("kind", ["a file", "a folder below a file"])
def test_folder_that_cannot_be_made_is_told_with_what_to_type(kind, tmp_path):
    (tmp_path / "file").write_text("x")
    parent = tmp_path / "file" if kind == "a file" else tmp_path / "file" / "below"
    with pytest.raises(OutputError, match=f"cannot write to the output folder {parent}") as raised:
        RunDir.create(parent)
    assert raised.value.exit_code == 4
    assert "output_dir=FOLDER" in raised.value.hint


@pytest.mark.parametrize("call", ["open", "fsync", "mkdir"])
def test_folder_that_could_not_be_made_whole_is_not_left(call, tmp_path, monkeypatch):
    real, calls = getattr(os, call), []

    def fail_once(*args, **kwargs):
        calls.append(args)
        if str(args[0]).endswith("checkpoints") if call == "mkdir" else len(calls) == 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail_once)
        with pytest.raises(OutputError, match="No space left on device"):
            RunDir.create(tmp_path / "a" / "b")
    assert calls
    assert list(tmp_path.iterdir()) == []


def test_folder_on_a_share_that_syncs_no_folders_can_be_used(tmp_path, monkeypatch):
    real = os.fsync

    def only_files(descriptor):
        if Path(f"/proc/self/fd/{descriptor}").is_dir():
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    run_dir = RunDir.create(tmp_path)
    run_dir.write_card({"status": "done"})
    assert run_dir.read_card() == {"status": "done"}
    run_dir.close()


def test_folder_without_a_run_cannot_be_reopened(tmp_path):
    with pytest.raises(CheckpointError, match="holds no run"):
        RunDir.reopen(tmp_path)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------ the lock


def test_folder_in_use_is_refused_with_the_process_and_free_after_it(run_dir):
    run_dir.write_text(run_dir.config_path, "x: 1\n")
    with pytest.raises(ConfigError, match=f"is in use by process {os.getpid()} on "):
        RunDir.reopen(run_dir.path)
    run_dir.close()
    again = RunDir.reopen(run_dir.path)
    again.close()
    again.close()


@pytest.mark.parametrize("named", ["process", "another process"])
def test_lock_that_was_just_taken_does_not_name_who_had_it_before(run_dir, named):
    run_dir.write_text(run_dir.config_path, "x: 1\n")
    run_dir.close()
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    lock = run_dir.path / ".lock"
    lock.write_text(f"process {ended.pid} on {socket.gethostname()}")
    with open(lock, "r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # as its new holder does, which writes its name a moment later
        words = f"process {os.getpid()} on {socket.gethostname()}" if named == "process" else lock.read_text()
        later = threading.Timer(0.2, lock.write_text, [words])
        later.start()
        with pytest.raises(ConfigError, match=f"is in use by {named}") as refused:
            RunDir.reopen(run_dir.path)
        later.join()
    assert str(ended.pid) not in str(refused.value)


def test_lock_of_a_process_that_is_gone_is_taken_over(run_dir):
    run_dir.write_text(run_dir.config_path, "x: 1\n")
    run_dir.close()
    (run_dir.path / ".lock").write_text("process 1 on this very machine, and a long line that must not stay")
    again = RunDir.reopen(run_dir.path)
    assert (run_dir.path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
    assert "stay" not in (run_dir.path / ".lock").read_text()
    again.close()


OWN_AND_FORK = """
import os, sys, time
from pathlib import Path
from cvtrain.outputs import RunDir
run_dir = RunDir.create(Path(sys.argv[1]))
run_dir.write_text(run_dir.config_path, "x: 1")
if os.fork():
    time.sleep(60)
print(run_dir.path, flush=True)
time.sleep(60)
"""


def test_worker_that_outlives_its_killed_parent_does_not_keep_the_lock(tmp_path):
    owner = subprocess.Popen([sys.executable, "-c", OWN_AND_FORK, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    path = Path(owner.stdout.readline().strip())
    with pytest.raises(ConfigError, match=f"is in use by process {owner.pid} on "):
        RunDir.reopen(path)
    (worker,) = (int(pid) for pid in Path(f"/proc/{owner.pid}/task/{owner.pid}/children").read_text().split())
    owner.kill()
    owner.wait()
    try:
        RunDir.reopen(path).close()
    finally:
        os.kill(worker, signal.SIGKILL)
        owner.stdout.close()


# ------------------------------------------------------------------------------------------------ single files


def test_file_is_replaced_whole_or_not_at_all(run_dir, monkeypatch):
    run_dir.write_text(run_dir.config_path, "old")
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail(errno.ENOSPC))
            with pytest.raises(OutputError, match=r"config.yaml could not be written: No space left on device"):
                run_dir.write_text(run_dir.config_path, "new")
        assert run_dir.config_path.read_text() == "old"
        assert not list(run_dir.path.glob(".*.tmp"))
    run_dir.write_text(run_dir.config_path, "new é\n")
    assert run_dir.config_path.read_text(encoding="utf-8") == "new é\n"


def test_card_is_strict_json_whatever_it_holds(run_dir):
    run_dir.write_card({"loss": math.nan, "list": [math.inf, {"x": -math.inf}], "tuple": (1, 2), 3: "ü", "big": 1e300})
    text = run_dir.card_path.read_text(encoding="utf-8")
    card = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert re.fullmatch("[0-9a-f]{16}", card.pop("checksum"))
    assert card == {"loss": None, "list": [None, {"x": None}], "tuple": [1, 2], "3": "ü", "big": 1e300}
    assert run_dir.read_card() == card
    run_dir.write_card(run_dir.read_card() | {"more": 1})
    assert run_dir.read_card() == card | {"more": 1}


@pytest.mark.parametrize("content", [b'{"status": "runn', b"", b"[]", b"5", b"\xff\xfe", b"[" * 100_000])
def test_card_that_is_missing_or_no_card_is_empty(content, run_dir):
    assert run_dir.read_card() == {}
    run_dir.card_path.write_bytes(content)
    assert run_dir.read_card() == {}


def test_card_that_a_disk_has_changed_is_never_taken_for_what_was_written(run_dir):
    written = {"status": "done", "test": {"accuracy": 0.8732, "num_images": 360}, "class_names": ["cat", "dög"]}
    run_dir.write_card(written)
    content, rng, num_refused = run_dir.card_path.read_bytes(), random.Random(0), 0
    for _ in range(300):
        changed = bytearray(content)
        changed[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        run_dir.card_path.write_bytes(changed)
        found = run_dir.read_card()
        refused = found == {}
        is_the_same = {key: found.get(key) for key in written} == written  # it hit the layout, or the checksum's name
        assert refused or is_the_same, changed
        num_refused += refused
    assert num_refused > 240


def test_card_without_a_checksum_is_of_an_older_version(run_dir):
    run_dir.card_path.write_text('{"status": "done"}')
    assert run_dir.read_card() == {"status": "done"}


def test_log_that_cannot_be_written_stops_nothing(run_dir):
    run_dir.log("one")
    assert run_dir.log_path.read_text().endswith(" one\n")
    run_dir.log_path.unlink()
    run_dir.log_path.mkdir()
    run_dir.log("two")


def test_leftovers_are_removed(run_dir):
    (run_dir.path / ".run.json.tmp").write_text("half")
    run_dir.write_text(run_dir.config_path, "x")
    run_dir.remove_leftovers()
    assert sorted(p.name for p in run_dir.path.iterdir()) == [".lock", "checkpoints", "config.yaml"]


# ------------------------------------------------------------------------------------------------ metrics.csv


def rows(run_dir):
    with open(run_dir.metrics_path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_metrics_have_one_header_and_a_row_per_evaluation(run_dir):
    assert run_dir.metrics_num_bytes() == 0
    run_dir.append_metrics(EVALUATION)
    run_dir.append_metrics(EVALUATION)
    assert rows(run_dir) == [
        list(METRICS_HEADER),
        *[["1", "7", "0.3", "0.5", "", "", "1e-09", "1.25", "1000", ""]] * 2,
    ]
    assert run_dir.metrics_num_bytes() == run_dir.metrics_path.stat().st_size


def test_rows_that_cannot_be_written_are_kept_and_written_later(run_dir, monkeypatch):
    run_dir.append_metrics(EVALUATION)
    length = run_dir.metrics_num_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail(errno.ENOSPC))
        run_dir.append_metrics(EVALUATION)
        run_dir.append_metrics(EVALUATION)
        with pytest.raises(OutputError, match=r"metrics.csv could not be written: No space left on device"):
            run_dir.sync_metrics()
    assert run_dir.metrics_path.stat().st_size == length
    assert run_dir.metrics_num_bytes() > length
    run_dir.sync_metrics()
    assert len(rows(run_dir)) == 4
    assert run_dir.metrics_num_bytes() == run_dir.metrics_path.stat().st_size


def test_half_a_row_is_taken_back(run_dir, monkeypatch):
    run_dir.append_metrics(EVALUATION)
    before = run_dir.metrics_path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", a_part_then_full())
        run_dir.append_metrics(EVALUATION)
        assert run_dir.metrics_path.read_bytes() == before
    run_dir.append_metrics(EVALUATION)
    assert len(rows(run_dir)) == 4


def test_half_a_row_that_could_not_be_taken_back_is_no_row(run_dir, monkeypatch):
    run_dir.append_metrics(EVALUATION)
    length = run_dir.metrics_num_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", a_part_then_full())
        patch.setattr(os, "ftruncate", fail(errno.EIO))
        run_dir.append_metrics(EVALUATION)
    assert run_dir.metrics_path.stat().st_size == length + 5
    assert run_dir.metrics_num_bytes() == 2 * length - len(",".join(METRICS_HEADER)) - 1
    run_dir.append_metrics(EVALUATION)
    assert rows(run_dir)[1:] == [rows(run_dir)[1]] * 3
    assert run_dir.metrics_num_bytes() == run_dir.metrics_path.stat().st_size


def test_disk_that_takes_a_little_at_a_time_gets_whole_rows(run_dir, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, bytes(data[:5])))
    run_dir.append_metrics(EVALUATION)
    run_dir.sync_metrics()
    assert len(rows(run_dir)) == 2


def test_metrics_that_cannot_be_looked_at_for_a_while_are_as_long_as_they_were(run_dir, monkeypatch):
    run_dir.append_metrics(EVALUATION)
    length = run_dir.metrics_num_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", fail(errno.EIO))
        assert run_dir.metrics_num_bytes() == length
    run_dir.append_metrics(EVALUATION)
    assert len(rows(run_dir)) == 3


@pytest.mark.parametrize("call", ["open", "fsync"])
def test_metrics_that_cannot_be_synced_are_told(call, run_dir, monkeypatch):
    run_dir.append_metrics(EVALUATION)
    monkeypatch.setattr(os, call, fail(errno.EIO))
    with pytest.raises(OutputError, match=r"metrics.csv could not be written: Input/output error"):
        run_dir.sync_metrics()


def test_checksum_of_the_metrics_is_of_all_rows_also_unwritten_ones(run_dir, monkeypatch):
    run_dir.append_metrics(EVALUATION)
    before = run_dir.metrics_checksum()
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail(errno.ENOSPC))
        run_dir.append_metrics(EVALUATION)
        unwritten = run_dir.metrics_checksum()
    run_dir.sync_metrics()
    assert run_dir.metrics_checksum() == unwritten != before
    run_dir.metrics_path.unlink()
    run_dir.metrics_path.mkdir()
    assert run_dir.metrics_checksum() is None


def test_rows_after_a_checkpoint_are_cut_and_missing_ones_are_told(run_dir):
    run_dir.append_metrics(EVALUATION)
    length = run_dir.metrics_num_bytes()
    run_dir.append_metrics(EVALUATION)
    assert run_dir.cut_metrics(length)
    assert run_dir.metrics_num_bytes() == length
    assert run_dir.cut_metrics(length)
    assert not run_dir.cut_metrics(length + 10)
    assert run_dir.metrics_num_bytes() == length, "a file is never made longer"
    run_dir.metrics_path.unlink()
    assert not run_dir.cut_metrics(length)
    assert run_dir.cut_metrics(0)


# ------------------------------------------------------------------------------------------------ text


def test_csv_cells_run_no_formula_and_drive_no_terminal():
    text = csv_text(("name",), [["=1+1"], ["+x"], ["-x"], ["@x"], ["a\x1b[31mb\x00"], ['a,"b'], [-1.5], [None]])
    cells = [row[0] if row else "" for row in csv.reader(io.StringIO(text))]
    assert cells == ["name", "'=1+1", "'+x", "'-x", "'@x", "a\\x1b[31mb\\x00", 'a,"b', "-1.5", ""]


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        (" =1", "' =1"),
        ("\t=1", "\\t=1"),
        ("\r=1", "\\r=1"),
        ("\uff1d1", "'\uff1d1"),
        ("-1e-05", "-1e-05"),
        ("-1+1", "'-1+1"),
    ],
)
def test_what_a_spreadsheet_takes_for_a_formula_is_text_and_a_number_is_one(cell, shown):
    assert list(csv.reader(io.StringIO(csv_text([cell], [[cell]])))) == [[shown], [shown]]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        *(("é 文", "é 文"), ("a\nb\t", "a\\nb\\t"), ("\udcff", "\\udcff"), ("\x9b", "\\x9b")),
        *(("a\u202eb", "a\\u202eb"), ("a\u3164", "a\\u3164"), ("a\ufe00", "a\\ufe00"), ("\U000e0100", "\\U000e0100")),
    ],
)
def test_printable_text_has_no_control_characters(text, shown):
    assert printable(text) == shown


def test_names_that_no_encoding_takes_can_be_written(run_dir):
    run_dir.write_predictions(("name",), [[os.fsdecode(b"\xff.png")]])
    assert run_dir.predictions_path.read_text(encoding="utf-8") == "name\n\\udcff.png\n"
    assert Path(run_dir.predictions_path).name == "predictions.csv"
