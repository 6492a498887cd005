import json
import os
import subprocess
import sys

import pytest
from search_for_tests import opened, run_all, run_one

from cvtrain.errors import CheckpointError, ConfigError, OutputError


def test_half_a_line_of_a_killed_process_is_cut_off(tmp_path):
    first = run_all(opened(tmp_path, num_trials=4))
    journal = tmp_path / "search.journal"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code":6,"worker_id":"x","tri')
    assert run_all(opened(tmp_path, num_trials=4)) == []
    assert journal.read_bytes().startswith(whole)
    assert all(json.loads(line) for line in journal.read_bytes().splitlines())
    assert len(run_all(opened(tmp_path, num_trials=6))) == 2
    assert len(first) == 4


@pytest.mark.parametrize(
    "content",
    [
        b"optuna\n",
        b"optuna",
        b"\x00" * 512,
        b"\xff\xfe\x00\x01\n",
        b"[1, 2]\n",
        b'{"op_code": "0"}\n',
        b'{"op_code": 4, "worker_id": "x"}\n',
        b'{"op_code": 99}\n',
        b"SQLite format 3\x00\n",
    ],
)
def test_file_that_is_no_journal_is_refused_in_words_and_left_as_it_is(tmp_path, content):
    journal = tmp_path / "search.journal"
    journal.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"search\.journal") as raised:
        opened(tmp_path)
    assert "move it away" in raised.value.hint
    assert journal.read_bytes() == content


def test_journal_damaged_in_the_middle_is_refused_with_its_line(tmp_path):
    run_all(opened(tmp_path, num_trials=3))
    journal = tmp_path / "search.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join([*lines[:4], lines[4][:20] + b"\n", *lines[5:]]))
    with pytest.raises(CheckpointError, match="damaged in line 5"):
        opened(tmp_path, num_trials=5)


def test_studies_of_others_in_the_file_are_left_alone(tmp_path):
    import optuna

    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "search.journal"))
    study = optuna.create_study(storage=optuna.storages.JournalStorage(backend), study_name="mine")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    assert len(run_all(opened(tmp_path, num_trials=3))) == 3


def test_second_process_that_searches_here_is_refused(tmp_path):
    stream = opened(tmp_path, num_trials=4)
    run_one(stream, stream.next_job())
    with pytest.raises(ConfigError, match="another process searches in") as raised:
        opened(tmp_path, num_trials=4)
    assert "sweep.jobs=N" in raised.value.hint
    stream.close()
    assert len(run_all(opened(tmp_path, num_trials=4))) == 3


def test_lock_ends_with_its_process_although_a_child_lives_on(tmp_path):
    script = (
        "import os, sys, signal; from pathlib import Path; from cvtrain.search.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "heard, says = os.pipe()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os.write(says, b'!'); sys.stdin.read(); os._exit(0)\n"
        "os.read(heard, 1)\n"
        "print(child, flush=True); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    program = [sys.executable, "-W", "ignore", "-c", script, str(tmp_path / "search.journal")]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert parent.wait(timeout=60) == -9
        os.kill(child, 0)
        stream = opened(tmp_path)
        assert stream.next_job() is not None
        stream.abandon()
        parent.stdin.close()


def test_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(OutputError, match=r"search\.journal could not be written: No such file"):
        opened(tmp_path / "gone")
