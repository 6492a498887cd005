"""`python -m docs`: writes what stands in the docs and is made from the source, so that it cannot be out of date.

Knows which page is made by which module; `--check` writes nothing, and ends with 1 where a page is out of date.
"""

from __future__ import annotations

import sys
from pathlib import Path

from docs import config_reference, tree

ROOT = Path(__file__).resolve().parents[1]


def pages() -> dict[Path, str]:
    """Each page that is made, and what it should hold."""
    return {
        ROOT / "docs" / "config.md": config_reference.page(),
        ROOT / "docs" / "tree.md": tree.page(),
        ROOT / "README.md": tree.readme(),
    }


def main() -> None:
    """Writes the pages that have changed, and names them."""
    old = {path: text for path, text in pages().items() if not path.is_file() or path.read_text("utf-8") != text}
    names = ", ".join(str(path.relative_to(ROOT)) for path in old)
    if "--check" in sys.argv[1:]:
        sys.exit(f"out of date: {names}; type python -m docs" if old else 0)
    for path, text in old.items():
        path.write_text(text, encoding="utf-8")
    print(f"written: {names}" if old else "all pages are up to date")


if __name__ == "__main__":
    main()
