"""Pages: one HTML file each, with its style, script, charts and pictures inside, that asks no network for anything.

Knows templates and text; neither runs nor what a page says.

A page is a template in `templates/` that fills three blocks:

    {% extends "base.html" %}
    {% import "parts.html" as parts %}
    {% block headline %}<p class="headline">83.1 %</p>{% endblock %}
    {% block content %}
    {% call parts.section("curves", "Learning curves", "What was measured after each epoch.") %}
    {{ parts.chart(curves, "The line of validation should not rise again.") }}
    {% endcall %}
    {% endblock %}

and `write_page(folder / "report.html", "run.html", title="...", again="cvtrain ...", curves=...)` fills it.
Each section is an entry of the page's navigation. All that a template puts out is escaped, and shows characters that
cannot be seen as `\\x..`; what comes from `cvtrain.report.charts` and from macros already is. Names that are not given
are errors.
Filters: `percent`, `count`, `number`, `seconds`; functions: `interval(value, low, high)`, `Cell`, `Column`.
Templates hold no `style=`, no `on...=` and no address of another machine: the page's own policy forbids them.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cvtrain
from cvtrain.engine.durable import write_durably
from cvtrain.errors import OutputError
from cvtrain.plain_text import printable
from cvtrain.report import words
from cvtrain.report.page_parts import Cell, Column, cell_of

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_PAGE_BYTES = 3_000_000
"""What mail programs and phones take without complaint."""

TEMPLATES_DIR = Path(__file__).parent / "templates"


class PageTooLargeError(OutputError):
    """A page over `MAX_PAGE_BYTES`; fewer pictures make it smaller."""


def write_page(path: Path, template: str, *, title: str, again: str = "", **content: Any) -> Path:
    """Fills a template and replaces the file `path` in one move.

    Args:
        path: The HTML file; its folder exists.
        template: Name of a file in `templates/`, e.g. `run.html`.
        title: Of the page, its tab and its first heading.
        again: The command that makes the page again, for its foot.
        content: What the template names.

    Returns:
        `path`.

    Raises:
        PageTooLargeError: It would have over `MAX_PAGE_BYTES` bytes; nothing is written.
        OutputError: The disk is full or not writable.
        jinja2.UndefinedError: The template names something that is not given.
    """
    data = render_page(template, title=title, again=again, **content).encode("utf-8", "backslashreplace")
    if len(data) > MAX_PAGE_BYTES:
        raise PageTooLargeError(
            f"{path.name} would have {len(data) / 1e6:.1f} MB, more than {MAX_PAGE_BYTES / 1e6:.0f} MB"
        )
    try:
        write_durably(path, data, temporary=path.with_name(f".{path.name}.tmp"))
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from None
    return path


def render_page(template: str, *, title: str, again: str = "", **content: Any) -> str:
    """The text of a page; the arguments are those of `write_page`."""
    from markupsafe import Markup

    style, script = _asset("page.css"), _asset("page.js")
    frame = {
        "title": title,
        "again": again,
        "version": cvtrain.__version__,
        "policy": _policy(style, script),
        "style": Markup(style),
        "script": Markup(script),
    }
    return _environment().get_template(template).render(**content, **frame).strip() + "\n"


def _environment() -> Environment:
    """A new one for each page, because the list of its sections is filled while it is rendered."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES_DIR, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "percent": words.percent,
        "count": words.count,
        "number": words.number,
        "seconds": words.seconds,
    }
    environment.globals |= {
        "Cell": Cell,
        "Column": Column,
        "cell_of": cell_of,
        "interval": words.interval,
        "sections": [],
    }
    return environment


def _shown(value: Any) -> Any:
    """A value as it is put out, before it is escaped: nothing for None, no unseen character but ends of lines."""
    from markupsafe import Markup

    if isinstance(value, Markup):
        return value
    if value is None:
        return ""
    return "\n".join(map(printable, str(value).split("\n")))


@cache
def _asset(name: str) -> str:
    return (TEMPLATES_DIR / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """What a browser may do with the page: use this style and this script, show pictures inside it, nothing else.

    Source: W3C, Content Security Policy Level 3.
    """
    return (
        f"default-src 'none'; img-src data:; style-src {_hash(style)}; script-src {_hash(script)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
