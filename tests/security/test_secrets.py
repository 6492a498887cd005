"""What must not be told is told to nobody: neither files, nor the terminal, nor the list of processes."""

import json
import os
import subprocess
import sys

import pytest

from cvtrain.config import masked

SECRETS = {
    name: f"5ecret-{name}-8f3a"
    for name in ("environment", "setting", "url", "home", "token", "proxy", "netrc", "config")
}


@pytest.fixture
def planted(tmp_path):
    """A home folder, an environment and configs that hold secrets; returns the environment."""
    home = tmp_path / f"home-{SECRETS['home']}"
    home.mkdir()
    (home / ".netrc").write_text(f"machine example.org login me password {SECRETS['netrc']}\n")
    (home / "token").write_text(SECRETS["token"])
    own = tmp_path / "own" / "model"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text(
        f"defaults: [mlp]\ninit_from: null\nactivation: relu\n# password: {SECRETS['config']}\n"
    )
    proxy = f"http://me:{SECRETS['proxy']}@127.0.0.1:9"
    return {
        **os.environ,
        "HOME": str(home),
        "AWS_SECRET_ACCESS_KEY": SECRETS["environment"],
        "HF_TOKEN_PATH": str(home / "token"),
        "https_proxy": proxy,
        "HTTPS_PROXY": proxy,
        "OMP_NUM_THREADS": "1",
    }


def run(folder, environment, *words, own=True):
    command = [sys.executable, "-m", "cvtrain", *(["--config-dir", "../own"] if own else []), *words]
    folder.mkdir(exist_ok=True)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


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


def test_secrets_of_the_machine_and_of_the_command_are_in_no_file_and_on_no_terminal(planted, tmp_path):
    mirror = f"data.mirror=https://me:{SECRETS['url']}@127.0.0.1:9/x"
    brief = ("trainer.steps=2", "trainer.device=cpu", "data.max_per_class=20")
    (work := tmp_path / "work").mkdir()
    trained = run(work, planted, "model=mine", *brief)
    assert trained.returncode == 0, trained.stderr
    failed = run(work, planted, "data=mnist", "data.root=data", mirror, own=False)
    assert failed.returncode == 3, failed.stderr
    swept = run(work, planted, "--multirun", "model=mine", *brief, "seed=1,2", "sweep.name=s", "sweep.jobs=1")
    assert swept.returncode == 0, swept.stderr
    assert len(list(work.rglob("config.yaml"))) >= 3
    assert not hits(work, *(text for done in (trained, failed, swept) for text in (done.stdout, done.stderr)))


def test_a_typed_secret_is_masked_wherever_settings_are_written(tmp_path):
    words = ["model=timm", "model.name=resnet18", f"+model.kwargs.api_token={SECRETS['setting']}", "--cfg", "job"]
    shown = run(tmp_path / "work", {**os.environ}, *words, own=False)
    assert SECRETS["setting"] not in shown.stdout + shown.stderr


def test_secrets_are_masked_at_any_depth():
    nested = {"model": {"kwargs": {"token": [SECRETS["token"]]}}, "data": {"mirror": f"https://a:{SECRETS['url']}@b/c"}}
    text = json.dumps(masked(nested))
    assert not [secret for secret in SECRETS.values() if secret in text]
