"""What is installed is what was tested: floors, pins and hashes agree, and a wheel has the same bytes twice."""

import hashlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKED = re.compile(r"([A-Za-z0-9._-]+)==(\S+) --hash=sha256:[0-9a-f]{64}")


def lines_of(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def pinned():
    return {
        canonicalize_name(name): version for name, version in (line.split("==") for line in lines_of("constraints.txt"))
    }


def test_every_pinned_package_is_locked_with_a_hash_in_the_same_version(pinned):
    matches = [LOCKED.fullmatch(line) for line in lines_of("requirements.lock")]
    assert all(matches)
    assert {canonicalize_name(m[1]): m[2].partition("+")[0] for m in matches} == pinned


def test_lock_names_no_place_to_fetch_from():
    assert not re.search(r"://|--index|--find-links|@", (ROOT / "requirements.lock").read_text(encoding="utf-8"))


def test_every_requirement_is_pinned_and_its_floor_is_met(pinned):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = (text for texts in project["optional-dependencies"].values() for text in texts)
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        if requirement.name == project["name"]:  # an extra that is made of others
            continue
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize(("name", "least"), [("torch", "2.10.0"), ("hydra-core", "1.3.8"), ("pillow", "11")])
def test_floors_keep_known_holes_out(name, least):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (found,) = [r for r in map(Requirement, project["dependencies"]) if r.name == name]
    assert max(Version(s.version) for s in found.specifier if s.operator == ">=") >= Version(least)


def test_wheel_has_the_same_bytes_twice(tmp_path):
    pytest.importorskip("hatchling")
    digests = set()
    for i in range(2):
        command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / str(i))]
        environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000", "PYTHONHASHSEED": str(i)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        (wheel,) = (tmp_path / str(i)).glob("*.whl")
        digests.add(hashlib.sha256(wheel.read_bytes()).hexdigest())
    assert len(digests) == 1
