"""Training with data that are there asks nobody: no socket of the network is opened, and no server is started."""

import os
import re
import shutil
import subprocess
import sys

import pytest

WORDS = ("experiment=smoke", "trainer.device=cpu")


def run(folder, *before):
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    command = [*before, sys.executable, "-m", "cvtrain", *WORDS]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


@pytest.mark.skipif(not shutil.which("strace"), reason="needs strace")
def test_training_opens_no_socket_of_the_network(tmp_path):
    trace = tmp_path / "trace"
    done = run(tmp_path, "strace", "-f", "-qq", "-o", str(trace), "-e", "trace=socket,connect,bind,listen")
    if "ptrace" in done.stderr:
        pytest.skip("needs the right to trace processes")
    assert done.returncode == 0, done.stderr
    assert not re.findall(r".*(?:AF_INET|listen\().*", trace.read_text())


def test_training_needs_no_network(tmp_path):
    if not shutil.which("unshare") or subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode:
        pytest.skip("needs unshare, and the right to leave the network")
    done = run(tmp_path, "unshare", "-n")
    assert done.returncode == 0, done.stderr
