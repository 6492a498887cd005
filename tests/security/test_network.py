"""Training with data that are there asks nobody: no socket of the network is opened, and no server is started."""

import os
import re
import shutil
import subprocess
import sys

import pytest

WORDS = ("experiment=smoke", "trainer.device=cpu")
STRACE = ("strace", "-f", "--seccomp-bpf", "-qq", "-e", "trace=socket,connect,bind,listen")


def works(*command):
    return shutil.which(command[0]) and not subprocess.run([*command, "true"], capture_output=True).returncode


def run(folder, *before):
    proxy = "http://127.0.0.1:9"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HTTPS_PROXY": proxy, "https_proxy": proxy}
    command = [*before, sys.executable, "-m", "cvtrain", *WORDS]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


def test_training_needs_no_network_and_opens_no_socket_of_it(tmp_path):
    leaves_network, traces = works("unshare", "-n"), works(*STRACE)
    if not (leaves_network or traces):
        pytest.skip("needs unshare or strace, and the right to leave the network or to trace processes")
    trace = tmp_path / "trace"
    before = ("unshare", "-n") if leaves_network else ()
    done = run(tmp_path, *before, *((*STRACE, "-o", str(trace)) if traces else ()))
    assert done.returncode == 0, done.stderr
    assert not traces or not re.findall(r".*(?:AF_INET|listen\().*", trace.read_text())
