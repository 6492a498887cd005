"""What must not be told is told to nobody: neither files, nor the terminal, nor the list of processes."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from cvtrain.config import masked

SECRETS = {
    name: f"5ecret-{name}-8f3a"
    for name in ("environment", "setting", "url", "home", "token", "proxy", "netrc", "config", "address")
}
MODEL = """
import os
from torch import nn

class Net(nn.Module):
    def __init__(self, *, num_classes, in_channels, image_size, password, address, fails_on=None):
        super().__init__()
        assert password.startswith("5ecret-") and "5ecret-address" in address
        self.fails_on, self.password = fails_on, password
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes))

    def forward(self, x):
        mine, theirs = self.password, os.environ.get("AWS_SECRET_ACCESS_KEY")
        if self.training and x.device.type == self.fails_on:
            raise KeyError("a mistake in the model")
        return self.layers(x)
"""


@pytest.fixture
def own(tmp_path):
    """A model of the user's own, whose settings hold a password, and an address with one."""
    (tmp_path / "own/model").mkdir(parents=True)
    (tmp_path / "own/model/mine.yaml").write_text(
        f"_target_: model_with_password.Net\npassword: {SECRETS['config']}\n"
        f"address: https://me:{SECRETS['address']}@example.org/x\nfails_on: null\n# {SECRETS['config']}\n"
    )
    (tmp_path / "model_with_password.py").write_text(MODEL)
    return ("--config-dir", str(tmp_path / "own"), "plugins=[model_with_password]", "model=mine")


@pytest.fixture
def planted(tmp_path):
    """A home folder and an environment that hold secrets; returns the environment."""
    home = tmp_path / f"home-{SECRETS['home']}"
    home.mkdir()
    (home / ".netrc").write_text(f"machine example.org login me password {SECRETS['netrc']}\n")
    (home / "token").write_text(SECRETS["token"])
    proxy = f"http://me:{SECRETS['proxy']}@127.0.0.1:9"
    return {
        **os.environ,
        "HOME": str(home),
        "AWS_SECRET_ACCESS_KEY": SECRETS["environment"],
        "HF_TOKEN_PATH": str(home / "token"),
        "https_proxy": proxy,
        "HTTPS_PROXY": proxy,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }


@dataclass(frozen=True)
class Watched:
    """A command that has ended, and the command lines of all processes that it started, but copies of itself."""

    code: int
    text: str
    children: set[str]


def run(folder, environment, *words):
    """Runs a command, and looks at its processes as `ps` does."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "cvtrain", *words]
    children, own_line = set(), "\0".join(command) + "\0"
    with open(folder.parent / "printed", "w+b") as printed:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=printed, stderr=printed)
        while process.poll() is None:
            children |= lines_of_children(process.pid)
            time.sleep(0.05)
        printed.seek(0)
        return Watched(process.returncode, printed.read().decode(), children - {own_line})


def lines_of_children(pid):
    """The command lines of all descendants of a process."""
    found, left = set(), [pid]
    while left:
        folder = Path("/proc", str(left.pop()))
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for children in folder.glob("task/*/children"):
                left += (numbers := children.read_text().split())
                for number in numbers:
                    with contextlib.suppress(OSError):
                        found.add(Path("/proc", number, "cmdline").read_bytes().decode())
    return found


def hits(folder, *texts):
    """Where a secret stands: file names too."""
    found = [f"{name} is printed" for text in texts for name, secret in SECRETS.items() if secret in text]
    for path in folder.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        found += [
            f"{name} in {path.relative_to(folder)}"
            for name, s in SECRETS.items()
            if s.encode() in content + bytes(path)
        ]
    return found


BRIEF = ("trainer.steps=2", "trainer.device=cpu", "trainer.batch_size=8", f"model.password={SECRETS['setting']}")


def test_secrets_are_in_no_file_on_no_terminal_and_in_no_list_of_processes(planted, own, tmp_path, write_images):
    write_images(tmp_path / "photos", {"train/a": 12, "train/b": 12}, size=8)
    work = tmp_path / "work"
    files = ("data=image_folder", f"data.root={tmp_path}/photos", "data.loader=files", "data.num_workers=2")
    trained = run(work, planted, *own, *BRIEF, *files)
    assert trained.code == 0, trained.text
    assert len(list(work.rglob("config.yaml"))) == 1
    assert not hits(work, trained.text, *trained.children)


@pytest.mark.long
def test_secrets_of_a_sweep_are_nowhere_either(planted, own, tmp_path):
    work = tmp_path / "work"
    jobs = ("--multirun", "data.max_per_class=20", "seed=1,2", "sweep.name=s", "sweep.jobs=2")
    swept = run(work, planted, *own, *BRIEF, *jobs)
    assert swept.code == 0, swept.text
    assert len(list(work.rglob("config.yaml"))) >= 2
    assert any("cvtrain" in line for line in swept.children) or not Path("/proc").is_dir()
    assert not hits(work, swept.text, *swept.children)


def test_password_of_an_address_is_told_to_nobody_and_to_no_name_server(command, tmp_path, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: pytest.fail(f"asks for the address of {host}"))
    failed = command("data=mnist", "data.root=data", f"data.mirror=https://me:{SECRETS['url']}@127.0.0.1:9/x")
    assert failed.code == 3
    assert "an address with a password in it is not asked for" in failed.errors[0]
    assert "127.0.0.1:9/x" in failed.errors[1]
    assert not hits(tmp_path, failed.out, *failed.errors)


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_traceback_of_a_model_that_fails_tells_no_secret_that_it_held(device, command, own, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRETS["environment"])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    typed = (
        "trainer.steps=2",
        "trainer.device=cpu",
        f"model.password={SECRETS['setting']}",
        f"model.fails_on={device}",
    )
    failed = command(*own, *typed)
    assert failed.code == 1
    error = Path(failed.errors[1].partition("the traceback is in ")[2])
    assert error.is_relative_to("outputs") == (device == "cpu"), "before training there is no folder yet"
    assert 'KeyError("a mistake in the model")' in error.read_text()
    for path in (tmp_path / "own").rglob("*.yaml"):
        path.unlink()  # where the secret stands
    assert not hits(tmp_path, failed.out, *failed.errors)


def test_a_typed_secret_is_masked_wherever_settings_are_written(command):
    words = ["model=timm", "model.name=resnet18", f"+model.kwargs.api_token={SECRETS['setting']}", "--cfg", "job"]
    shown = command(*words)
    assert shown.code == 0, shown.errors
    assert "api_token: '***'" in shown.out
    assert SECRETS["setting"] not in shown.out + "".join(shown.errors)


def test_secrets_are_masked_at_any_depth():
    nested = {"model": {"kwargs": {"token": [SECRETS["token"]]}}, "data": {"mirror": f"https://a:{SECRETS['url']}@b/c"}}
    text = json.dumps(masked(nested))
    assert not [secret for secret in SECRETS.values() if secret in text]
