"""A checkpoint may come from anybody: whatever is in it, no code runs, nothing crashes, and little memory is taken."""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from cvtrain.engine.checkpoint import list_checkpoints, read_checkpoint
from cvtrain.errors import CheckpointError
from cvtrain.resume import check_state, load_best

_spec = importlib.util.spec_from_file_location(
    "hostile_checkpoints", Path(__file__).with_name("checkpoints_for_tests.py")
)
hostile = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hostile)

WORDS = ("model=mlp", "model.hidden=[32]", "optimizer=momentum", "trainer.ema=0.9", "trainer.device=cpu")
BRIEF = ("trainer.steps=2", "data.max_per_class=20")

# Everything is loaded and done once; then each command runs in a copy of the process, which may crash, and tells how
# much it grew.
SERVER = """
import contextlib, io, json, os, resource, signal, sys
import cvtrain
from cvtrain.cli import dispatch
from cvtrain.ending import exit_code_of

def work(words):
    load = lambda: cvtrain.load(words[1], device="cpu").predict("picture.png")
    return exit_code_of(load if words[0] == "load" else lambda: dispatch(words))

def child(words):
    os.dup2(os.open("out.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 1)
    os.dup2(1, 2)
    signal.alarm(300)
    most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    before = most()
    code = work(words)
    sys.stdout.flush(), sys.stderr.flush()
    print("grown", most() - before, flush=True)
    os._exit(code)

for line in sys.stdin:
    here, words = json.loads(line)
    if here:
        with contextlib.redirect_stdout(io.StringIO()):
            code = work(words)
        print(code, flush=True)
        continue
    pid = os.fork()
    if not pid:
        child(words)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("hostile")


@pytest.fixture(scope="module")
def command(folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", SERVER], cwd=folder, env=environment, **pipes) as process:

        def command(*words, here=False):
            process.stdin.write(json.dumps([here, [str(word) for word in words]]) + "\n")
            process.stdin.flush()
            code = int(process.stdout.readline())
            if here:
                return code
            lines = (folder / "out.txt").read_text(errors="replace").splitlines()
            grown_mb = int(lines.pop().split()[1]) / 1024 if lines and lines[-1].startswith("grown ") else None
            return code, lines, grown_mb

        yield command
        process.stdin.close()


@pytest.fixture(scope="module")
def run(folder, command):
    assert command(*WORDS, *BRIEF, f"output_dir={folder}/base", here=True) == 0
    Image.new("RGB", (8, 8)).save(folder / "picture.png")
    return next(folder.glob("base/train/*/*"))


@pytest.fixture(scope="module")
def state(run):
    return read_checkpoint(list_checkpoints(run / "checkpoints", "best")[-1].path)


def put(folder, content, kind="best"):
    """Writes a file with the right checksum in its name."""
    path = folder / f"{kind}-000000002-{hashlib.sha256(content).hexdigest()[:16]}.ckpt"
    path.write_bytes(content)
    return path


def assert_refused(found, *, kind, usual_mb):
    code, lines, grown_mb = found
    assert code == 4, (kind, lines)
    assert 1 <= len(lines) <= 6, (kind, lines)
    assert lines[0].startswith("error: "), kind
    assert not any(word in "\n".join(lines) for word in ("Traceback", "weights_only", "internal error")), kind
    assert grown_mb <= usual_mb + 64, (kind, grown_mb, usual_mb)


def commands(path, folder, run):
    """Every way to use a checkpoint file."""
    yield "load", path
    yield "task=evaluate", f"checkpoint={path}", f"output_dir={folder}/out"
    yield "task=predict", f"checkpoint={path}", "input=picture.png", f"output_dir={folder}/out"
    yield *WORDS, *BRIEF, f"model.init_from={path}", f"output_dir={folder}/out"
    copy = shutil.copytree(run, folder / "copy", dirs_exist_ok=True)
    shutil.rmtree(copy / "checkpoints")
    (copy / "checkpoints").mkdir()
    put(copy / "checkpoints", path.read_bytes(), "step")
    yield f"resume={copy}", "trainer.steps=4"


@pytest.fixture(scope="module")
def usual_mb(command, folder, run, state):
    """By way, how much a process grows with a checkpoint that is none of these."""
    grown = {}
    for words in commands(put(folder, hostile.saved(state)), folder, run):
        assert command(*words, here=True) == 0  # what a process loads at first counts for none
    for words in commands(put(folder, hostile.saved(state)), folder, run):
        code, lines, grown[way_of(words)] = command(*words)
        assert code == 0, lines
    return grown


def way_of(words):
    return words[0].partition("=")[0] if "task=" not in words[0] else words[0]


def test_code_in_a_checkpoint_does_not_run_whatever_the_checkpoint_is_used_for(command, usual_mb, folder, run, state):
    marker = folder / "marker"
    files = hostile.with_code(state, marker)
    assert len(files) >= 35
    for kind, content in files.items():
        path = put(folder, content)
        assert_refused(command("load", path), kind=kind, usual_mb=usual_mb["load"])
        assert not marker.exists(), kind
    for kind in ("code at config/choices", "code in the hooks of a tensor"):
        for words in commands(put(folder, files[kind]), folder, run):
            assert_refused(command(*words), kind=(kind, words[0]), usual_mb=usual_mb[way_of(words)])
            assert not marker.exists(), kind
    torch.load(put(folder, files["code at config/choices"]), weights_only=False)
    assert marker.exists(), "the attack is one"


def test_files_that_lie_about_what_they_hold_are_refused_before_they_take_memory(command, usual_mb, folder, state):
    for kind, content in hostile.damaged_files(state).items():
        assert_refused(command("load", put(folder, content)), kind=kind, usual_mb=usual_mb["load"])
    folder_of_shards = folder / "shards"
    (folder_of_shards / "checkpoints").mkdir(parents=True)
    (folder_of_shards / ".metadata").write_bytes(b"cos\nmkdir\n(Vmarker\ntR.")
    assert_refused(command("load", folder_of_shards), kind="a folder of shards", usual_mb=usual_mb["load"])


def test_states_that_are_not_what_they_say_are_refused(command, usual_mb, folder, state):
    files = hostile.odd_states(state)
    assert len(files) > 70
    for kind, content in files.items():
        assert_refused(command("load", put(folder, content)), kind=kind, usual_mb=usual_mb["load"])


@pytest.mark.parametrize("kind", ["weight of huge claimed shape", "config/choices/model 0: ../../out"])
def test_odd_states_are_refused_whatever_they_are_used_for(command, usual_mb, folder, run, state, kind):
    for words in commands(put(folder, hostile.odd_states(state)[kind]), folder, run):
        assert_refused(command(*words), kind=(kind, words[0]), usual_mb=usual_mb[way_of(words)])


def test_odd_states_of_training_are_refused_by_resume(command, usual_mb, folder, run, state):
    for kind, content in hostile.odd_for_resume(state).items():
        *_, words = commands(put(folder, content), folder, run)
        assert_refused(command(*words), kind=kind, usual_mb=usual_mb[way_of(words)])


@pytest.mark.parametrize("place", hostile.GONE_ON_WITH)
def test_every_value_that_a_run_goes_on_with_is_looked_at(place, state):
    check_state(state)
    for value in hostile.GONE_ON_WITH[place]:
        with pytest.raises(ValueError, match=f"^{place.replace('/', '.')} is no "):
            check_state(hostile.changed(state, place, value))
    if place not in hostile.LATER:
        with pytest.raises(ValueError, match=f"^{place.replace('/', '.')} is missing"):
            check_state(hostile.without(state, place))
    else:
        check_state(hostile.without(state, place))


def test_every_value_of_a_state_is_looked_at_somewhere(state):
    by_the_model_or_optimizer = {"format", "torch", "precision", "config", "facts", "trainer"}
    assert state.keys() == {place.partition("/")[0] for place in hostile.GONE_ON_WITH} | by_the_model_or_optimizer


@pytest.mark.parametrize(
    ("place", "value"), [("trainer", 3), ("trainer/model", 3), ("seconds", "x"), ("trainer/step", "x")]
)
def test_best_checkpoint_that_is_none_is_refused_at_the_end(place, value, state, tmp_path):
    put(tmp_path, hostile.saved(hostile.changed(state, place, value)))
    with pytest.raises(CheckpointError, match="best-000000002"):
        load_best(torch.nn.Linear(2, 2), tmp_path, 2, note=print)


def test_best_checkpoint_that_is_none_is_told_when_a_run_goes_on(command, folder, run, state):
    shutil.copytree(run, folder / "told")
    for path in (folder / "told/checkpoints").glob("best-*"):
        path.unlink()
    put(folder / "told/checkpoints", hostile.saved({**state, "trainer": 3}))
    later = {**state, "is_best": False}
    for path in (folder / "told/checkpoints").glob("step-*"):
        path.unlink()
    put(folder / "told/checkpoints", hostile.saved(later), "step")
    code, lines, _ = command(f"resume={folder}/told", "trainer.steps=3")
    assert code in (0, 4), lines  # whether step 3 is better, and the best of step 2 is not asked for
    assert any("the best checkpoint, of step 2, cannot be used" in line for line in lines)
