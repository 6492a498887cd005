"""Whole runs for the tests of this folder: how to start them, stop them in mid-step, and compare what they leave."""

import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from cvtrain.engine.checkpoint import list_checkpoints, read_checkpoint

DATA = ["data=synthetic", "data.num_classes=4", "data.per_class=60", "data.image_size=16", "data.val_fraction=0.2"]
MODEL = ["augment=flip_crop", "model=block_cnn", "model.widths=[8,16]", "model.dropout=0.2", "trainer.precision=fp32"]
TRAINING = [
    "optimizer=momentum",
    "scheduler=plateau",
    "scheduler.patience=1",
    "trainer.batch_size=16",
    "trainer.ema=0.9",
    "trainer.early_stopping.patience=30",
    "trainer.checkpoint.every_minutes=0.001",
    "output_dir=out",
]
TIMES = {"seconds", "images_per_second"}
"""What no two runs share, wherever it stands; the length of metrics.csv depends on it."""

# A process that has loaded everything once and is copied for each run: a run of its own starts in 2 ms, not 2 s.
# A copy can be killed, sent a signal, or made to see an error, at its N-th call of the functions that write.
SERVER = """
import contextlib, errno, io, itertools, json, os, signal, sys
from cvtrain import cli

WRITING = ("open", "write", "fsync", "rename", "replace", "link", "unlink", "truncate", "mkdir")

def install(fault, counted):
    numbers = itertools.count(1)
    def wrapped(name, real):
        def call(*args, **kwargs):
            if name == "open" and not args[1] & (os.O_WRONLY | os.O_RDWR):
                return real(*args, **kwargs)
            number = next(numbers)
            counted.append(name)
            if fault.get("first", 0) <= number <= fault.get("last", -1) and name in fault.get("names", WRITING):
                if fault["kind"] == "kill":
                    if name == "write":
                        real(args[0], bytes(args[1])[: len(args[1]) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                if fault["kind"].startswith("SIG"):
                    signal.raise_signal(getattr(signal, fault["kind"]))
                    return real(*args, **kwargs)
                raise OSError(getattr(errno, fault["kind"]), os.strerror(getattr(errno, fault["kind"])))
            return real(*args, **kwargs)
        return call
    for name in WRITING:
        setattr(os, name, wrapped(name, getattr(os, name)))

def child(job):
    os.chdir(job["cwd"])
    for descriptor, name in ((1, "stdout.txt"), (2, "stderr.txt")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), descriptor)
    counted = []
    install(job["fault"], counted)
    try:
        cli.main(job["words"])
    except SystemExit as end:
        sys.stdout.flush(), sys.stderr.flush()
        with open("calls.json", "w") as file:
            json.dump(counted, file)
        os._exit(end.code)

with contextlib.redirect_stdout(io.StringIO()):
    cli.run(json.loads(sys.argv[1]))  # imports all that a run imports
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        child(json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """A process that has ended; `code` is negative when a signal killed it."""

    code: int
    stdout: str
    stderr: str
    calls: list


class Server:
    """Runs commands in copies of one prepared process."""

    def __init__(self, folder):
        warm_up = [*DATA, *MODEL, *TRAINING, "trainer.steps=1"]
        command = [sys.executable, "-c", SERVER, json.dumps(warm_up)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(), cwd=folder
        )
        self._one_at_a_time = threading.Lock()

    def __call__(self, words, *, cwd, **fault):
        """Runs a command line; `kind`, `first`, `last` and `names` say what fails at which calls."""
        cwd.mkdir(parents=True, exist_ok=True)
        calls = cwd / "calls.json"
        calls.unlink(missing_ok=True)
        job = {"words": [str(w) for w in words], "cwd": str(cwd), "fault": fault}
        with self._one_at_a_time:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
            code = int(self._process.stdout.readline())
        texts = [(cwd / name).read_text() for name in ("stdout.txt", "stderr.txt")]
        return Ended(code, *texts, json.loads(calls.read_text()) if calls.exists() else [])

    def close(self):
        self._process.stdin.close()
        self._process.wait(timeout=10)
        self._process.stdout.close()


def environment():
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="session")
def servers(tmp_path_factory):
    """Two servers, for two cores."""
    servers = [Server(tmp_path_factory.mktemp("server")) for _ in range(2)]
    yield servers
    for server in servers:
        server.close()


@pytest.fixture(scope="session")
def server(servers):
    """Runs command lines fast, each in a process of its own: `server(words, cwd=...)`."""
    return servers[0]


@pytest.fixture(scope="session")
def words():
    """The settings of a small run that has everything, some of them replaced: `words(..., steps=..., every=...)`."""

    def settings(*more, steps, every=7):
        chosen = {word.partition("=")[0] for word in more}
        kept = [w for w in [*DATA, *MODEL, *TRAINING] if not chosen & {w.partition("=")[0], w.partition(".")[0]}]
        return [*kept, f"trainer.steps={steps}", f"trainer.evaluate_every={every}", *more]

    return settings


@pytest.fixture(scope="session")
def start():
    """Starts `python -m cvtrain` for real: `with start(words, cwd=...) as process`."""

    @contextmanager
    def started(words, *, cwd, **options):
        cwd.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "cvtrain", *(str(w) for w in words)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, cwd=cwd, env=environment(), **{**pipes, **options})
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()

    return started


@pytest.fixture(scope="session")
def only_run():
    """The one run folder below a working folder, or None."""

    def find(cwd):
        found = sorted(cwd.glob("out/train/*/*"))
        assert len(found) <= 1, found
        return found[0] if found else None

    return find


@pytest.fixture(scope="session")
def end_of():
    """What a run has come to, apart from times, as hashes by name: equal runs give equal dictionaries."""

    def end(run):
        step = read_checkpoint(list_checkpoints(run / "checkpoints", "step")[-1].path)
        best = list_checkpoints(run / "checkpoints", "best")[-1]
        found = {f"{key}": state_hash(value) for key, value in parts(step)}
        found["best"] = state_hash(read_checkpoint(best.path)["trainer"])
        found["metrics.csv"] = metrics_without_times(run)
        if (run / "predictions.csv").exists():
            found["predictions.csv"] = (run / "predictions.csv").read_text()
        return found

    return end


def parts(state):
    left_out = {"config", "metrics_num_bytes", *TIMES}  # the config holds how the command was typed
    for key, value in state.items():
        if key == "trainer":
            yield from value.items()
        elif key not in left_out:
            yield key, value


def state_hash(value):
    """SHA-256 over every tensor's bytes and every plain value of a state, times left out."""
    digest = hashlib.sha256()

    def add(item):
        if isinstance(item, dict):
            for key in item:
                if key not in TIMES:
                    digest.update(repr(key).encode())
                    add(item[key])
        elif isinstance(item, list | tuple):
            digest.update(f"{len(item)} items".encode())
            for one in item:
                add(one)
        elif isinstance(item, torch.Tensor):
            digest.update(f"{item.dtype} {tuple(item.shape)}".encode())
            digest.update(item.detach().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(repr(item).encode())

    add(value)
    return digest.hexdigest()[:16]


def metrics_without_times(run):
    with open(run / "metrics.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    kept = [i for i, name in enumerate(rows[0]) if name not in TIMES]
    text = io.StringIO()
    csv.writer(text).writerows([row[i] for i in kept] for row in rows)
    return text.getvalue()


@pytest.fixture(scope="session")
def uninterrupted(server, words, end_of, only_run, tmp_path_factory):
    """The end of a run that nobody stopped: `uninterrupted(steps=..., every=...)`; each is made once."""
    made: dict = {}

    def end(*more, **length):
        key = json.dumps([more, length])
        if key not in made:
            cwd: Path = tmp_path_factory.mktemp("uninterrupted")
            ended = server(words(*more, **length), cwd=cwd)
            assert ended.code == 0, ended.stderr
            made[key] = end_of(only_run(cwd))
        return made[key]

    return end


@pytest.fixture(scope="session")
def read_card():
    """The run card of a run, as strict JSON."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return lambda run: json.loads((run / "run.json").read_text(), parse_constant=refuse)


@pytest.fixture(scope="session")
def images():
    """Makes a small tree of PNG files: `images(folder)`."""

    def make(root, *, per_class=20):
        from PIL import Image

        generator = np.random.default_rng(0)
        for split, count in (("train", per_class), ("test", 4)):
            for label, name in enumerate("abc"):
                folder = root / split / name
                folder.mkdir(parents=True)
                for i in range(count):
                    pixels = generator.integers(0, 120, (16, 16, 3)) + 60 * (np.arange(3) == label)
                    Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i:03d}.png")
        return root

    return make
