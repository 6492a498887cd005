"""A page with one of every part, for tests of the frame that all pages share."""

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from cvtrain.report import page
from cvtrain.report.charts import Axis, Band, Mark, Series, bar_chart, line_chart, matrix_chart, point_chart
from cvtrain.report.page_parts import Cell, Column, Picture

HOSTILE = (
    "<script>document.title='taken'</script>",
    "</script><img src=x onerror=document.title='taken'>",
    "\"'><b onmouseover=document.title='taken'>",
    "javascript:document.title='taken'",
    "{{ 7 * 191 }}{% raw %}",
    "]]>--><!--",
    "right \u202eto left",
    "line\nbreak",
)
"""Names that a page must show as text; nobody may find the page's title `taken`."""

TEMPLATE = """
{% extends "base.html" %}
{% import "parts.html" as parts %}
{% block headline %}
<p class="headline">{{ interval(0.8312, 0.823, 0.838) }} <small>n = {{ 10000 | count }}</small></p>
{{ parts.warnings(names) }}
{{ parts.facts([("Model", names[0], names[1]), ("Time", 125 | seconds)]) }}
{% endblock %}
{% block content %}
{% call parts.section("figures", "Figures", names[0]) %}
{{ parts.table(columns, rows, "Classes") }}
{{ parts.table(["Nothing"], [], empty="Nothing to show.") }}
{% endcall %}
{% call parts.section("charts", "Charts") %}
{% for chart in charts %}
<div id="{{ chart[0] }}">
{{ parts.chart(chart[1], names[1]) }}
</div>
{% endfor %}
{% endcall %}
{% call parts.section("pictures", "Pictures") %}
{{ parts.pictures(pictures) }}
{{ parts.link(names[3], names[3]) }}
{% endcall %}
{% call parts.section("command", "Command") %}
{{ parts.command(names[0]) }}
{% call parts.details(names[1]) %}{{ parts.text(names[7]) }}{% endcall %}
{% endcall %}
{% endblock %}
"""


def page_of_every_part(folder: Path, *, names: tuple[str, ...] = HOSTILE, template: str = TEMPLATE, **changed) -> Path:
    """Writes the page into a folder; `changed` replaces what it says."""
    templates_dir = shutil.copytree(page.TEMPLATES_DIR, folder / "templates", dirs_exist_ok=True)
    (templates_dir / "every_part.html").write_text(template, encoding="utf-8")
    content = {"names": names, "columns": COLUMNS, "rows": rows_of(names), "charts": charts_of(names)}
    content |= {"pictures": [Picture(png(), names[1], (names[0], names[6]), "bad")]}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "TEMPLATES_DIR", templates_dir)
        words = {"title": "Every part", "again": "cvtrain task=report run=RUN"}
        return page.write_page(folder / "report.html", "every_part.html", **(words | content | changed))


COLUMNS = ["Class", Column("Images", "count"), Column("Recall", "percent", "share that was found"), Column("Note")]


def rows_of(names):
    rows = [[f"class {i}", 10 * (i * 7 % 15), i / 14, ["b", "A", "", "c 10", "c 9"][i % 5]] for i in range(15)]
    rows[3][2] = rows[8][2] = None
    rows[5][1] = Cell("failed")
    rows[6][2] = Cell("42.9 % [40.0, 45.0]", 6 / 14)
    rows[7][3] = Cell(names[3], path=names[3])
    return [*rows, *([name, 1000 + i, 0.5, name] for i, name in enumerate(names))]


def charts_of(names):
    epochs = list(range(1, 11))
    epoch, accuracy = Axis("epoch", "count"), Axis("accuracy", "percent")
    lines = [
        Series("train", epochs, [0.05 * e + 0.4 for e in epochs]),
        Series(names[0], epochs, [0.5 if e != 5 else None for e in epochs], low=[0.45] * 10, high=[0.55] * 10),
    ]
    marks = [Mark(3, names[1]), Mark(0.6, names[2], "y")]
    dots = [Series("seeds", [0, 0, 1, 2], [0.5, 0.6, 0.7, 0.8], words=[names[0], "seed 1", "", ""])]
    bars = [Series("train", [0, 1, 2], [30, 20, 10]), Series("test", [0, 1, 2], [3, 2, None])]
    many = [Series(f"job {i}", epochs, [i + e for e in epochs]) for i in range(8)]
    categories = Axis("class", names=names[:3])
    cost, loss = Axis("time", "seconds", log=True), Axis("loss", log=True)
    return [
        ("lines", line_chart(lines, title=names[2], x=epoch, y=accuracy, bands=[Band(2, 4, names[3])], marks=marks)),
        ("points", point_chart(dots, title="Points", x=categories, y=accuracy)),
        ("cost", point_chart([Series("jobs", [3, 40, 500, 6000], [1e-3, 0.2, 3, 1e4])], title="Cost", x=cost, y=loss)),
        ("bars", bar_chart(bars, title="Bars", x=categories, y=Axis("images", "count"))),
        ("matrix", matrix_chart([[8, 2, 0], [0, 9, 1], [0, 0, 0]], names[:3], title="Matrix")),
        ("many", line_chart(many, title="Many", x=epoch, y=Axis("loss"), wide=True)),
    ]


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 60, 20)).save(buffer, "PNG")
    return buffer.getvalue()
