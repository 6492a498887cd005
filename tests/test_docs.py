"""The documentation is true: links lead somewhere, commands compose, snippets run, made pages are up to date."""

import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cvtrain.arguments import parse_arguments
from cvtrain.compose import JobComposer
from cvtrain.config import RESUME_MAY_CHANGE, config_dir
from cvtrain.errors import ConfigError
from cvtrain.help import GROUPS, options_of
from cvtrain.jobs.grid import alternatives

ROOT = Path(__file__).parents[1]
MADE_PAGES = ("config.md", "tree.md")
PAGES = sorted([*ROOT.glob("*.md"), *(path for path in ROOT.glob("docs/*.md") if path.name not in MADE_PAGES)])
TEXTS = {path: path.read_text(encoding="utf-8") for path in [*PAGES, *(ROOT / "docs" / name for name in MADE_PAGES)]}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_ENDINGS = (".onnx", ".pt2", ".safetensors", ".json")
OWN_OPTIONS = {"model=tiny", "loss=brier", "data=scans"}
"""Options of a user's own that README.md shows how to write."""


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def prose_of(text: str) -> str:
    return FENCE.sub("", text)


# ------------------------------------------------------------------------------------------------------- made pages


def test_pages_made_from_the_source_are_up_to_date(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    from docs.__main__ import pages

    old = [name_of(path) for path, text in pages().items() if path.read_text(encoding="utf-8") != text]
    assert not old, f"out of date: {', '.join(old)}; type python -m docs"


def test_reference_names_every_group_option_and_key():
    page = TEXTS[ROOT / "docs" / "config.md"]
    for group in GROUPS:
        section = re.split(r"^## ", page.partition(f"## `{group}`\n")[2], flags=re.MULTILINE)[0]
        for option in options_of(group, config_dir()):
            assert f"| `{option}`" in section, f"{group}={option}"
    for key in ("seed", "sweep.job_timeout", "trainer.early_stopping.patience", "optimizer.adamw_betas", "split"):
        assert f"| `{key}`" in page, key


def test_reference_shows_what_an_option_takes_over_and_where_it_differs():
    page = TEXTS[ROOT / "docs" / "config.md"]
    row = next(line for line in page.splitlines() if line.startswith("| `augment.flip` |"))
    assert "| `none`; `random` (cutmix, flip, flip_crop, flip_crop_cutout, mixup, strong) |" in row
    row = next(line for line in page.splitlines() if line.startswith("| `trainer.epochs` |"))
    assert "| `30`; `null` (" in row
    assert "a whole number from 1 to 999999999 or null | passes over the training images ... |" in row


# ------------------------------------------------------------------------------------------------------------ links


def anchors_of(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose_of(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(TEXTS[page])):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        found = (page.parent / file).resolve() if file else page
        assert found.exists(), target
        assert not anchor or anchor in anchors_of(TEXTS[found]), target


def test_index_links_every_page():
    index = TEXTS[ROOT / "docs" / "README.md"]
    for path in ROOT.glob("docs/*.md"):
        assert path.name == "README.md" or f"]({path.name})" in index, path.name


# --------------------------------------------------------------------------------------------------------- commands


@dataclass(frozen=True)
class Command:
    """A command that a page shows, in words."""

    page: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}: cvtrain {' '.join(self.words)}"


def commands_of(page: Path) -> list[Command]:
    """The `cvtrain` commands of a page, in blocks and between lines; those cut short with `...` are left out."""
    text = TEXTS[page]
    blocks = "\n".join(block for language, block in FENCE.findall(text) if language in ("", "bash", "sh"))
    lines = re.findall(r"^(?:.*-m )?cvtrain(?: +.*)?$", blocks.replace("\\\n", " "), re.MULTILINE)
    lines += [" ".join(code.split()) for code in re.findall(r"`((?:cvtrain|torchrun) [^`]*)`", prose_of(text))]
    found = []
    for line in lines:
        if "..." in line.partition("  #")[0] or any(word in line for word in ("<Tab>", "GROUP", "=NAME")):
            continue
        words = shlex.split(re.sub(r"<[^>]*>", "RUN", line), comments=True)
        found.append(Command(name_of(page), tuple(words[words.index("cvtrain") + 1 :])))
    return found


COMMANDS = [command for page in PAGES for command in commands_of(page)]
NO_SETTINGS = ("--help", "--version", "-sc", "--cfg")


@pytest.fixture(scope="module")
def trained_run(tmp_path_factory):
    """A run of the smallest kind, for commands that need one."""
    from cvtrain.cli import dispatch

    folder = tmp_path_factory.mktemp("docs")
    dispatch(["experiment=smoke", "model=linear", f"output_dir={folder}", "trainer.device=cpu"])
    (run,) = folder.glob("train/*/*")
    return run


def with_one_value(word: str, *, is_multirun: bool) -> str:
    return alternatives(word)[0] if is_multirun else word


def settings_of(command: Command, run: Path) -> list[str]:
    """The settings of a command, with a run that there is and one value where several are swept."""
    is_multirun = "--multirun" in command.words
    words = [word for word in command.words if not word.startswith(("-", "hydra/", "hydra.", "plugins="))]
    words = [f"checkpoint={run}" if word.startswith("checkpoint=") else word for word in words]
    return [with_one_value(word, is_multirun=is_multirun) for word in words]


def is_of_users_own(command: Command) -> bool:
    return any(word in OWN_OPTIONS or word == "--config-dir" for word in command.words)


def is_an_experiment_alone(words: list[str]) -> bool:
    """Whether the options test and those of the experiments have seen all of a command."""
    return all(word.partition("=")[0] in ("experiment", "sweep.name") for word in words)


def composed_problems(commands: list[Command], run: Path) -> list[str]:
    """What is wrong with the settings of commands, each composed as it would be typed."""
    by_settings = {tuple(settings_of(c, run)): c for c in commands}
    by_settings = {words: c for words, c in by_settings.items() if not is_an_experiment_alone(list(words))}
    results = JobComposer(parse_arguments([])).compose_all([list(words) for words in by_settings])
    paired = zip(by_settings.values(), results, strict=True)
    return [f"{command}: {result}" for command, result in paired if isinstance(result, ConfigError)]


FRESH = [
    command
    for command in COMMANDS
    if not any(word.startswith(("resume=", *NO_SETTINGS)) for word in command.words) and not is_of_users_own(command)
]
FIRST_PAGES = ("README.md", "docs/own_images.md")


def test_commands_of_the_first_pages_compose(trained_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = [command for command in FRESH if command.page in FIRST_PAGES]
    assert len(first) > 20
    assert composed_problems(first, trained_run) == []


@pytest.mark.long  # composing anew for each choice of options takes 0.2 s
def test_commands_of_all_pages_compose(trained_run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert composed_problems(FRESH, trained_run) == []


def known_keys() -> set[str]:
    return set(re.findall(r"^\| `([\w.]+)`", TEXTS[ROOT / "docs" / "config.md"], re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_set_keys_that_exist(page):
    known = {*known_keys(), *GROUPS, "task"}
    for command in (command for command in FRESH if command.page == name_of(page)):
        for key in (word.partition("=")[0] for word in command.words if "=" in word):
            assert key.startswith(("-", "hydra")) or key in known, f"{command}: {key}"


def test_commands_that_continue_set_what_a_resume_may_change():
    continued = [c for c in COMMANDS if any(word.startswith("resume=") for word in c.words)]
    assert len(continued) > 5
    for command in continued:
        for word in command.words:
            key = word.partition("=")[0]
            known = (*RESUME_MAY_CHANGE, "resume", "trainer", "tracker", "sweep.job_timeout", "sweep.retry_failed")
            assert key in known, f"{command}: {key}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_that_pages_name_exist(page):
    groups = "|".join(GROUPS)
    for group, option in re.findall(rf"(?<![\w.$/-])({groups})=([a-z]\w*)(?![\w(<])", TEXTS[page]):
        known = options_of(group, config_dir())
        assert option in known or f"{group}={option}" in OWN_OPTIONS, f"{group}={option}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_keys_that_pages_name_exist(page):
    known = known_keys()
    nodes = {key[:i] for key in known for i, letter in enumerate(key) if letter == "."}
    groups = "|".join([*GROUPS, "sweep", "budget"])
    for key in re.findall(rf"`((?:{groups})\.[a-z][\w.]*)(?:=[^`]*)?`", TEXTS[page]):
        is_file = key.endswith(FILE_ENDINGS)
        assert is_file or key in known | nodes, key


# --------------------------------------------------------------------------------------------------------- snippets


@pytest.fixture
def own_files(tmp_path, monkeypatch):
    """The files that README.md shows under "Your own model, loss or data set", as a user writes them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    section = TEXTS[ROOT / "README.md"].partition("## Your own model, loss or data set\n")[2].partition("\n## ")[0]
    for language, block in FENCE.findall(section):
        first, _, rest = block.partition("\n")
        if language in ("python", "yaml"):
            path = tmp_path / first.removeprefix("# ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(rest, encoding="utf-8")
    (tmp_path / "scans").mkdir()
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        images = random.integers(0, 256, (20, 16, 16, 1), dtype=np.uint8)
        np.savez(tmp_path / "scans" / f"{split}.npz", images=images, labels=np.arange(20) % 2)
    yield [command for command in COMMANDS if command.page == "README.md" and is_of_users_own(command)]
    sys.modules.pop("mine", None)


def test_own_model_loss_and_data_of_the_readme_train(own_files, command):
    model_alone, all_three = own_files
    summary = command(*model_alone.words, "task=summary")
    assert summary.code == 0, summary.errors
    assert "parameters  1,290 " in summary.out  # 64 * 9 + 64 of the convolution, 64 * 10 + 10 of the linear layer
    trained = command(*all_three.words, "trainer=smoke", "data.max_per_class=8", "trainer.device=cpu")
    assert trained.code == 0, trained.errors
    assert "2 classes" in trained.out


def test_python_of_the_readme_predicts(trained_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((32, 32), np.uint8)).save(name)
    section = TEXTS[ROOT / "README.md"].partition("## What a run leaves\n")[2]
    (snippet,) = (block for language, block in FENCE.findall(section.partition("\n## ")[0]) if language == "python")
    exec(re.sub(r'"outputs/[^"]*"', repr(os.fspath(trained_run)), snippet), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[0].split()[0] in "0123456789"
