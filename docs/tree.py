"""The tree of the checkout, a line per file: each line is the first sentence of the file itself, so that it stays true.

Reads the source as text; imports nothing of it.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {
    "configs": "one folder per group, one small YAML per option: what it is, every key, its default",
    "cvtrain": "the package",
    "hydra_plugins": "what Hydra finds of ours: hydra/launcher=isolated, hydra/sweeper=grid and search",
    "tests": "mirrors cvtrain/; faults/ and planted/ are commands of their own",
    "benchmarks": "speed against pure compute and the textbook loop, and the other measurements; a command each",
    "docs": "the guides; config.md, tree.md and this tree are written by `python -m docs`",
}
"""What stands at the top of the checkout. Of `cvtrain`, `hydra_plugins`, `benchmarks` and `docs` each file is shown."""

_HEAD = """\
# Every file, a line each

Written by `python -m docs` from the first sentence of each file. [CONTRIBUTING.md](../CONTRIBUTING.md) says how they
hang together.

"""


def page() -> str:
    """docs/tree.md: every module of the package and of the tools beside it."""
    parts = [_HEAD]
    for name in ("cvtrain", "hydra_plugins", "benchmarks", "docs"):
        lines = [f"## {name}/", "", "| file | what it holds |", "|---|---|"]
        lines += [
            f"| `{path}` | {sentence.replace('|', chr(92) + '|')} |" for path, sentence in _all_files(ROOT / name)
        ]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def readme_tree() -> str:
    """The tree of README.md: the top of the checkout, and of the package each file and folder."""
    lines = []
    for name, meaning in FOLDERS.items():
        lines.append(f"{name + '/':<21}{meaning}")
        if name == "cvtrain":
            lines += [f"    {path:<21}{sentence}" for path, sentence in _top_of(ROOT / name)]
    return "\n".join(lines)


def readme() -> str:
    """README.md with the tree as it is now, between the fences below its summary."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    before, summary, after = text.partition("<summary>The tree, a line per file</summary>\n\n```\n")
    return before + summary + readme_tree() + "\n" + after[after.index("```\n") :]


def _top_of(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.iterdir()):
        if path.suffix == ".py" and path.name != "__init__.py":
            yield path.name, first_sentence(path)
        elif (path / "__init__.py").is_file():
            yield f"{path.name}/", first_sentence(path / "__init__.py")


def _all_files(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.rglob("*.py"), key=lambda p: (str(p.parent), p.name)):
        yield str(path.relative_to(folder)), first_sentence(path)


def first_sentence(path: Path) -> str:
    """What a module says of itself, up to its first full stop."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.split("\n\n")[0].split())
    return paragraph.partition(". ")[0].rstrip(".")
