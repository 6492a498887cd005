"""The wheel holds all that is needed and nothing else, and runs from any folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("cvtrain", "hydra_plugins")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel built from the checkout, without a network."""
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The folder that the wheel was installed into."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(folder)]
    done = subprocess.run([*pip, str(wheel)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder


def run(installed: Path, cwd: Path, *words: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "cvtrain", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def test_wheel_holds_the_package_the_configs_the_templates_and_the_digits(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    code = {str(path.relative_to(ROOT)) for name in PACKAGES for path in (ROOT / name).rglob("*.py")}
    configs = {f"cvtrain/{path.relative_to(ROOT)}" for path in (ROOT / "configs").rglob("*.yaml")}
    assert len(configs) > 60
    templates = {str(path.relative_to(ROOT)) for path in (ROOT / "cvtrain/report/templates").iterdir()}
    assert len(templates) > 8
    assert {name for name in names if ".dist-info/" not in name} == {
        *code,
        *configs,
        *templates,
        "cvtrain/data/digits.npz",
    }


def test_wheel_names_its_command_licence_and_dependencies(wheel):
    with zipfile.ZipFile(wheel) as archive:
        texts = {name.rpartition(".dist-info/")[2]: name for name in archive.namelist() if ".dist-info/" in name}
        entry_points = archive.read(texts["entry_points.txt"]).decode()
        metadata = archive.read(texts["METADATA"]).decode()
        assert "licenses/LICENSE" in texts
    assert "cvtrain = cvtrain.cli:main" in entry_points
    for line in ("Requires-Python: >=3.11", "License-Expression: MIT", "Requires-Dist: torch>=2.11"):
        assert line in metadata


def test_installed_wheel_runs_from_any_folder(installed, tmp_path):
    page = run(installed, tmp_path, "--help")
    assert page.returncode == 0, page.stderr
    assert str(installed / "cvtrain" / "configs") in page.stdout
    printed = run(installed, tmp_path, "--cfg", "job", "model=vgg16_bn", "data=cifar10")
    assert printed.returncode == 0, printed.stderr
    assert "_target_: cvtrain.models.vgg.vgg16_bn" in printed.stdout
    trained = run(installed, tmp_path, "experiment=smoke")
    assert trained.returncode == 0, trained.stderr
    assert list(tmp_path.glob("outputs/train/digits-lenet/*/run.json"))


@pytest.mark.long
def test_installed_wheel_brings_its_launcher_and_sweepers(installed, tmp_path):
    swept = run(installed, tmp_path, "--multirun", "experiment=smoke", "model=linear", "seed=1,2", "sweep.name=a")
    assert swept.returncode == 0, swept.stderr
    assert "2 of 2 jobs done" in swept.stdout
    searched = run(installed, tmp_path, "--multirun", "hydra/sweeper=search", "seed=1", "sweep.name=b")
    assert searched.returncode == 2
    assert "nothing to search" in searched.stderr
