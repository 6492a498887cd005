"""The frame of `python -m tests.faults`: what it prints, how it ends, that it can see a fault."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.faults import __main__ as frame
from tests.faults.figures import Figure, Settings
from tests.faults.lives import acknowledged_step, last_step_told
from tests.faults.processes import Ended
from tests.faults.signals import ways, wrong_stop

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("broken", [(), ("/folder/3: a step is lost",)])
def test_exit_code_and_folder_say_whether_anything_broke(broken, monkeypatch, capsys, tmp_path):
    def measure(settings):
        (settings.folder("tests.faults.some") / "trace").touch()
        return [Figure("a fault", 1200, 3, "nothing is lost", broken, measured="slow")]

    monkeypatch.setattr(frame, "PARTS", [SimpleNamespace(measure=measure)])
    monkeypatch.setattr(frame, "NAMES", ["some"])
    monkeypatch.setattr(frame.tempfile, "mkdtemp", lambda prefix: str(tmp_path / "made"))
    assert frame.main(["--seed", "7"]) == len(broken)
    out = capsys.readouterr().out
    assert f"a fault   1,200     3       {len(broken)}  nothing is lost" in out
    assert (tmp_path / "made" / "some" / "trace").exists() == bool(broken)
    assert ("The same again: python -m tests.faults --seed 7" in out) == bool(broken)


def test_what_is_random_depends_on_the_seed_and_the_names_alone(tmp_path):
    first, other = Settings(tmp_path), Settings(tmp_path, seed=1)
    assert first.random("kills", "0-1").random() == first.random("kills", "0-1").random()
    assert first.random("kills", "0-1").random() != first.random("kills", "0-2").random()
    assert first.random("kills", "0-1").random() != other.random("kills", "0-1").random()


def test_save_is_acknowledged_by_what_is_told_after_it():
    lines = "step 9  train 1.0\nstep 10  train 1.0\n"
    assert (last_step_told(lines), acknowledged_step(lines)) == (10, 9)
    lines += "epoch 0.83/1.67  step   10  train  2.3158\n"
    assert (last_step_told(lines), acknowledged_step(lines)) == (10, 10)
    assert acknowledged_step("") == 0


@pytest.mark.parametrize(
    ("code", "stderr", "complaint"),
    [
        (143, "error: stopped by signal 15", ""),
        (0, "", "ended with 0 instead of 143"),
        (130, "error: stopped by signal 2", "ended with 130 instead of 143"),
        (143, "Traceback (most recent call last):", "said Traceback"),
        (143, "line\n" * 7, "said line"),
    ],
)
def test_process_that_stops_in_another_way_is_seen(code, stderr, complaint):
    way = next(way for way in ways() if way.name == "SIGTERM")
    assert way.first == signal.SIGTERM
    assert wrong_stop(way, None, Ended(code, "writes to", stderr, []), 0).startswith(complaint)
    assert bool(wrong_stop(way, None, Ended(code, "writes to", stderr, []), 0)) == bool(complaint)


def test_command_finds_its_own_folder_beside_an_installed_package_called_tests(tmp_path):
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--only", "nothing"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "there is no part nothing: choose from kills, signals" in done.stderr
