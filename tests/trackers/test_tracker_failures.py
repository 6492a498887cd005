"""Trackers that fail, each in its own way: a warning, an exit code of 0, and a run that is whole."""

import contextlib
import json
import os
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
import yaml

from cvtrain.cli import dispatch
from cvtrain.console import Console
from cvtrain.ending import exit_code_of
from cvtrain.errors import InterruptedBySignal
from cvtrain.signals import StopRequest
from cvtrain.tracking import Tracking
from tests.trackers.tracked_for_tests import TINY, journal, start, track, wait_until

pytest.importorskip("tensorboard", reason="needs tensorboard", exc_type=ImportError)


@pytest.fixture
def silent_server():
    """A server that takes every connection, and answers none."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a run that nobody was told of."""
    words = [*TINY, "trainer.epochs=1", f"output_dir={tmp_path_factory.mktemp('trained')}"]
    assert exit_code_of(lambda: dispatch(words)) == 0
    (run,) = Path(words[-1].partition("=")[2]).glob("train/*/*")
    return run


@pytest.fixture
def tracking(trained):
    """Trackers of that run, beside this process: `tracking({"mlflow": {...}}, card, stop=StopRequest())`."""

    def track_run(options: dict, card: dict, *, stop: StopRequest) -> Tracking:
        config = yaml.safe_load((trained / "config.yaml").read_text())
        (trained / "config.yaml").write_text(yaml.safe_dump(config | {"tracker": options}))
        shutil.rmtree(trained / "trackers", ignore_errors=True)
        return Tracking(options, trained, card=card, console=Console(), stop=stop)

    yield track_run
    assert processes_of(trained) == []


def processes_of(run: Path) -> list[int]:
    """Those that were started for a run folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            found += [int(path.parent.name)] if str(run).encode() in path.read_bytes() else []
    return found


def mlflow_at(uri: str, **more: object) -> dict:
    settings = {"uri": uri, "experiment": "cvtrain", "tags": {}, "checkpoints": "best", "wait_seconds": 60}
    return {"mlflow": settings | more}


def test_folder_that_cannot_be_made_costs_a_warning(tmp_path, command):
    (tmp_path / "file").write_text("")
    done = command(*TINY, "trainer.epochs=2", "tracker=tensorboard", "tracker.tensorboard.dir=file")
    assert (done.code, done.errors) == (0, [])
    assert done.out.count("warning: tracker=tensorboard has failed") == 1
    assert "Traceback" not in done.out
    (run,) = tmp_path.glob("outputs/train/*/*")
    card = json.loads((run / "run.json").read_text())
    assert card["trackers"]["tensorboard"]["status"] == "failed"
    assert "file" in card["trackers"]["tensorboard"]["error"]
    assert card["status"] == "done"
    assert card["test"]["num_images"] > 0


def test_server_that_never_answers_is_not_waited_for(tracking, silent_server, capsys):
    card: dict = {}
    began = time.monotonic()
    with tracking(mlflow_at(silent_server, wait_seconds=1), card, stop=StopRequest()) as trackers:
        for _ in range(50_000):  # more words than a pipe holds
            trackers.tell_of_evaluation()
    assert time.monotonic() - began < 30
    assert "warning: tracker=mlflow has failed" in capsys.readouterr().out
    assert card["trackers"]["mlflow"]["error"].startswith("it has not taken all ")


def test_stopped_run_waits_for_no_server(tracking, silent_server, monkeypatch):
    card: dict = {}
    monkeypatch.setattr("cvtrain.tracking._STOPPED_WAIT_SECONDS", 0.5)
    with pytest.raises(InterruptedBySignal), tracking(mlflow_at(silent_server), card, stop=StopRequest()):
        raise InterruptedBySignal("stopped", signum=signal.SIGTERM)
    assert card["trackers"]["mlflow"]["status"] == "failed"


def test_signal_ends_the_wait(tracking, silent_server):
    card: dict = {}
    with StopRequest() as stop, tracking(mlflow_at(silent_server, wait_seconds=600), card, stop=stop):
        stop.listening = True
        threading.Timer(0.5, lambda: signal.raise_signal(signal.SIGTERM)).start()
    assert card["trackers"]["mlflow"]["error"].startswith("it has not taken all ")


def test_process_of_a_tracker_that_is_killed_costs_a_warning(tracking, capsys, trained):
    card: dict = {}
    with tracking({"tensorboard": {"dir": None, "plots": True}}, card, stop=StopRequest()) as trackers:
        wait_until(lambda: journal(trained, "tensorboard"))
        (pid,) = processes_of(trained)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: trackers.tell_of_evaluation() or card)
    assert "its process has ended with code -9" in card["trackers"]["tensorboard"]["error"]
    assert capsys.readouterr().out.count("warning") == 1


def test_tracker_that_cannot_be_started_costs_a_warning(tracking, capsys, trained):
    card: dict = {}
    trackers = tracking({"tensorboard": {"dir": None, "plots": True}}, card, stop=StopRequest())
    (trained / "trackers").write_text("a file where a folder should be made")
    with trackers:
        trackers.tell_of_evaluation()
    (trained / "trackers").unlink()
    assert card["trackers"]["tensorboard"]["status"] == "failed"
    assert "warning: tracker=tensorboard has failed" in capsys.readouterr().out


def test_library_that_ends_its_process_costs_a_warning(tracking, trained, tmp_path, monkeypatch):
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "__init__.py").write_text("import sys; print('{}'); sys.exit(3)")
    monkeypatch.syspath_prepend(tmp_path)
    card: dict = {}
    with tracking({"tensorboard": {"dir": None, "plots": True}}, card, stop=StopRequest()):
        pass
    assert card["trackers"]["tensorboard"]["error"] == "it has ended its process with code 3"


@pytest.mark.long
def test_dead_server_of_a_whole_command_costs_a_warning(tmp_path, silent_server):
    quick = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
    words = [*TINY, "trainer.epochs=2", "tracker=[mlflow,tensorboard]", f"tracker.mlflow.uri={silent_server}"]
    done = track(tmp_path, *words, **quick)
    assert done.code == 0, done.err
    assert done.out.count("warning: tracker=mlflow has failed") == 1
    assert {name: t["status"] for name, t in done.card["trackers"].items()} == {
        "mlflow": "failed",
        "tensorboard": "done",
    }


@pytest.mark.long
def test_interrupted_run_leaves_no_process_of_a_tracker(tmp_path):
    process = start(*TINY, "trainer.epochs=100000", "tracker=[tensorboard,wandb]", cwd=tmp_path)
    wait_until(lambda: any(tmp_path.glob("outputs/train/*/*/trackers/wandb.json")))
    (run,) = tmp_path.glob("outputs/train/*/*")
    process.send_signal(signal.SIGINT)
    _out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT, err
    assert "the state is saved" in err
    assert {journal(run, option)["status"] for option in ("tensorboard", "wandb")} == {"stopped"}
    assert processes_of(run) == []
