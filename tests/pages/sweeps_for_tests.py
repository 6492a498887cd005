"""Folders of sweeps for tests of their pages, written by the package's own writers; and what a page holds."""

import html
import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

from cvtrain.jobs.ledger import Command, Ledger
from cvtrain.outputs import RunDir
from cvtrain.sweeps.job_folder import JobRecord

METRICS = (
    "epoch,step,train_loss,train_accuracy,val_loss,val_accuracy,lr,seconds,images_per_second,val_cross_entropy\n"
    "1,3,2,0.3,{first_loss},{first},0.1,0.5,1000,1.9\n"
    "2,6,1,0.6,{last_loss},{last},0.05,0.5,1000,1.2\n"
)


@dataclass(frozen=True)
class JobForTests:
    """A job as its folder is to tell it."""

    words: dict
    val: float = 0.5
    test: float = 0.5
    status: str = "done"
    error: str | None = None
    exit_code: int | None = 0
    seconds: float = 10.0
    num_parameters: int = 100
    card: dict = field(default_factory=dict)


def write_sweep(path, jobs, *, settings=("optimizer=sgd,adam",), swept=("optimizer", "seed"), waiting=()):
    """Writes the folder of a sweep; jobs have folders of the names `0000000000000000`, `0000000000000001` and so on."""
    path.mkdir(parents=True)
    ledger = Ledger(path)
    ledger.write_command(Command(list(settings), None, "config", has_secrets=False))
    for number, job in enumerate(jobs):
        write_job(ledger, f"{number:016d}", job)
    ledger.write_leaderboard(ledger.results({f"w{i}": words for i, words in enumerate(waiting)}), swept=swept)
    return path


def write_job(ledger, name, job):
    folder = ledger.folder(name)
    folder.path.mkdir()
    folder.write(JobRecord(job.words, "train", job.status, job.exit_code, job.error, job.val, attempts=1))
    folder.log_path.write_text("a log\n")
    seed = int(job.words.get("seed", 0))
    card = {"status": job.status, "task": "train", "data": "digits", "seed": seed, "split_hash": f"split {seed}"}
    card |= {"seconds": job.seconds, "images_per_second": 100.0, "num_parameters": job.num_parameters, "device": "cpu"}
    if job.status == "done":
        card["best"] = {"epoch": 2, "step": 6, "val_loss": 1.0, "val_accuracy": job.val}
        card["test"] = {"accuracy": job.test, "loss": 1.0, "num_images": 200}
    run = RunDir(folder.path)
    run.write_card(card | job.card)
    losses = {"first_loss": 2.3, "last_loss": 2.3 - job.val}
    run.metrics_path.write_text(METRICS.format(first=job.val / 2, last=job.val, **losses))


def grid_of_two(*, num_seeds=2, **others):
    """Jobs of two optimizers, adam ahead by 0.1 in test accuracy."""
    return [
        JobForTests({"optimizer": name, "seed": str(seed)}, val + seed / 100, val + seed / 100 - 0.01, **others)
        for name, val in (("sgd", 0.7), ("adam", 0.8))
        for seed in range(num_seeds)
    ]


class _Tables(HTMLParser):
    """The cells of tables by the section that they stand in."""

    def __init__(self):
        super().__init__()
        self.rows, self._section, self._cell = {}, "", None

    def handle_starttag(self, tag, attributes):
        if tag == "section":
            self._section = dict(attributes)["id"]
            self.rows[self._section] = []
        elif tag == "tr" and self._section:
            self.rows[self._section].append([])
        elif tag in ("td", "th") and self._section:
            self._cell = []

    def handle_data(self, data):
        if self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag):
        if tag in ("td", "th") and self._cell is not None:
            self.rows[self._section][-1].append("".join(self._cell).strip())
            self._cell = None
        elif tag == "section":
            self._section = ""


def tables_of(path):
    """Rows of cells by section, headings first."""
    parser = _Tables()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser.rows


def text_of(path):
    """What a reader sees: without tags, script, style and drawings, and with entities resolved."""
    page = re.sub(r"<(script|style|svg)\b.*?</\1>", " ", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page)).split())


def series_of(path, title):
    """Names and values of the series of the chart with such a heading."""
    page = path.read_text(encoding="utf-8")
    chart = page[page.index(f"<h3>{title}</h3>") :].partition("</figure>")[0]
    found = re.findall(r'data-name="([^"]*)" data-values="([^"]*)"', chart)
    return {html.unescape(name): json.loads(html.unescape(values)) for name, values in found}
