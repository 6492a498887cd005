import contextlib
import fcntl
import itertools
import os
import pty
import re
import struct
import sys
import termios
import threading
import time

import pytest
from rich.cells import cell_len

from cvtrain.cli import dispatch
from cvtrain.console import Console, duration, percent, print_error, terminal_size
from cvtrain.ending import exit_code_of
from cvtrain.engine.events import Evaluation, RunningFigures
from cvtrain.evaluation_rows import EvaluationRows
from cvtrain.progress_bar import bar_shape


def evaluation(step, *, val=True, **changes):
    figures = {
        "epoch": step / 100 if step % 100 else step // 100,
        "step": step,
        "train_loss": 2.30259,
        "train_accuracy": 0.1159,
        "val_loss": 1.5 if val else None,
        "val_accuracy": 0.48252 if val else None,
        "lr": 0.0452,
        "seconds": 0.0712,
        "images_per_second": 1814.6,
    }
    return Evaluation(**figures | changes)


def resize(descriptor, columns):
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


@contextlib.contextmanager
def terminal(monkeypatch, *, columns=80, name="xterm"):
    """Puts standard output and error on a pseudo-terminal; yields a list that is given the text."""
    master, slave = pty.openpty()
    resize(slave, columns)
    written, text = [], []

    def listen():
        while not written or not written[-1].endswith(b"\0"):
            written.append(os.read(master, 4096))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    with open(slave, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
        patch.setenv("TERM", name)
        yield text
        stream.write("\0")
        stream.flush()
        listener.join(5)
    os.close(master)
    text.append(b"".join(written).decode().removesuffix("\0"))


def screen(text):
    """The lines that stay on a screen."""
    lines = []
    for line in text.replace("\r\n", "\n").split("\n"):
        shown = ""
        for part in re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line).split("\r"):
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


# ------------------------------------------------------------------------------------------------ no terminal


def test_without_a_terminal_there_is_one_plain_line_per_evaluation(capsys):
    console = Console()
    console.training_starts(step=0, total_steps=300, steps_per_epoch=100, evaluate_every=50)
    for step in range(1, 301):
        console.step(step)
    console.progress(3, 10, "reading")
    console.evaluation(evaluation(100), is_best=True)
    console.evaluation(evaluation(150), is_best=False)
    console.evaluation(evaluation(300, val=False, seconds=123.4), is_best=True)
    console.end_bar()
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "epoch 1.00/3.00  step  100  train  2.3026  11.6 %  val  1.5000  48.3 % *  lr 0.0452    0.07 s  1,815 images/s",
        "epoch 1.50/3.00  step  150  train  2.3026  11.6 %  val  1.5000  48.3 %    lr 0.0452    0.07 s  1,815 images/s",
        "epoch 3.00/3.00  step  300  train  2.3026  11.6 %  lr 0.0452    2 min 03 s  1,815 images/s",
    ]
    assert err == ""


def test_thousands_of_evaluations_are_thinned_and_that_is_said_once(capsys):
    logged = []
    console = Console(logged.append)
    console.training_starts(step=0, total_steps=3000, steps_per_epoch=100, evaluate_every=1)
    for step in range(1, 3001):
        console.evaluation(evaluation(step), is_best=False)
    lines = capsys.readouterr().out.splitlines()
    assert lines == logged
    assert lines[0] == "3,000 evaluations: one in 20 is shown, metrics.csv holds all"
    steps = [int(re.search(r"step +(\d+)", line)[1]) for line in lines[1:]]
    assert steps == [1, *range(20, 3001, 20)]


@pytest.mark.parametrize(("num_evaluations", "num_lines"), [(1, 1), (200, 200), (201, 102), (1000, 201), (10**4, 201)])
def test_two_hundred_evaluations_are_shown_at_most_and_one_more(num_evaluations, num_lines):
    lengths = {"total_steps": 7 * num_evaluations - 3, "steps_per_epoch": 100, "evaluate_every": 7}
    rows = EvaluationRows(step=0, **lengths)
    steps = [*range(7, 7 * num_evaluations - 3, 7), 7 * num_evaluations - 3]
    assert sum(rows.is_shown(evaluation(step)) for step in steps) == num_lines
    assert (rows.notice is None) == (num_evaluations <= 200)


def test_last_evaluations_of_a_resumed_run_are_all_shown():
    lengths = {"total_steps": 3000, "steps_per_epoch": 100, "evaluate_every": 1}
    assert EvaluationRows(step=2900, **lengths).notice is None


def test_facts_stand_below_each_other_and_are_never_folded(capsys):
    path = "outputs/" * 30
    Console().facts([("test accuracy", "83.1 % [79.0, 86.7] of 360 images"), ("results", path)])
    assert capsys.readouterr().out.splitlines() == [
        "",
        "test accuracy  83.1 % [79.0, 86.7] of 360 images",
        f"results        {path}",
    ]


def test_everything_said_is_logged_without_empty_lines(capsys):
    logged = []
    console = Console(logged.append)
    console.say("one")
    console.say()
    console.warn("two")
    console.table("three", ("a", "b"), [("x", 1)])
    assert logged == ["one", "warning: two", "three", "a   b", "─────", "x   1"]
    assert capsys.readouterr().out.splitlines() == ["one", "", "warning: two", "", "three", "a   b", "─────", "x   1"]


def test_table_aligns_names_left_and_figures_right_without_trailing_spaces(capsys):
    Console().table("a table", ("layer", "output", "n"), [("conv", "20x28x28", "1,520"), ("a longer name", "-", 0)])
    assert capsys.readouterr().out.splitlines() == [
        "a table",
        "layer             output       n",
        "────────────────────────────────",
        "conv            20x28x28   1,520",
        "a longer name          -       0",
    ]


def test_long_names_stay_on_one_line_where_nobody_looks(capsys):
    name = "folder/" * 60 + "image.png"
    Console().table("t", ("image", "class"), [(name, "cat")])
    assert name in capsys.readouterr().out


@pytest.mark.parametrize("hostile", ["[/b] [red]", "\x1b[2J\x1b]0;owned\x07", "a\nb\rc", "\ud800", "[link=file:///]x"])
def test_hostile_names_are_shown_and_drive_nothing(capsys, hostile):
    console = Console()
    console.say(hostile)
    console.table(hostile, (hostile, "n"), [(hostile, 1)])
    print_error([hostile])
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 6
    assert len(err.splitlines()) == 1
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", out + err)
    if "[" in hostile and "\x1b" not in hostile:
        assert out.count(hostile) == 4


def test_characters_that_the_output_lacks_are_escaped(monkeypatch, tmp_path):
    with open(tmp_path / "out", "w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        console = Console()
        console.say("Katze \u00e4 \u732b")
        console.table("Tabelle \u00fc", ("\u00f6", "n"), [("\u00df", 1)])
    text = (tmp_path / "out").read_text("ascii")
    assert r"Katze \xe4 \u732b" in text
    assert r"Tabelle \xfc" in text


def test_errors_have_six_lines_at_most(capsys):
    print_error(["what was found", "what to type"])
    print_error([f"problem {i}" for i in range(9)])
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "error: what was found",
        "  what to type",
        "error: problem 0",
        *(f"  problem {i}" for i in range(1, 5)),
        "  ... and 4 more",
    ]


# ------------------------------------------------------------------------------------------------ terminal


def test_terminal_shows_aligned_rows_under_a_header(monkeypatch):
    with terminal(monkeypatch) as text:
        console = Console()
        is_terminal = console.is_terminal
        console.training_starts(step=0, total_steps=30_000, steps_per_epoch=300, evaluate_every=300)
        console.evaluation(evaluation(300, epoch=1), is_best=True)
        console.evaluation(
            evaluation(30_000, epoch=100, lr=0.000551, val_loss=12.3456, train_accuracy=1.0), is_best=False
        )
        console.evaluation(evaluation(30_000, epoch=100, val=False, seconds=89, images_per_second=1e6), is_best=False)
        console.end_bar()
    assert is_terminal
    assert screen(text[0]) == [
        "",
        "                          train       validation",
        "  epoch   step    loss accuracy    loss accuracy          lr    time  images/s",
        "  1/100    300   2.3026  11.6 %   1.5000  48.3 % *    0.0452  0.07 s     1,815",
        "100/100  30000   2.3026 100.0 %  12.3456  48.3 %    0.000551  0.07 s     1,815",
        "100/100  30000   2.3026  11.6 %        -       -      0.0452  89.0 s  1,000,000",
        "",
    ]


def test_terminal_shows_a_bar_while_training_and_takes_it_away(monkeypatch):
    with terminal(monkeypatch) as text:
        console = Console()
        console.training_starts(step=0, total_steps=200, steps_per_epoch=100, evaluate_every=100)
        console.step(50)
        console.evaluation(evaluation(100), is_best=True)
        console.end_bar()
        console.say("the end")
    assert re.search(r"training  25 % \|.*\|  50 of 200 steps, under 10 s left", text[0])
    assert not any("training" in line for line in screen(text[0]))
    assert screen(text[0])[-2:] == ["the end", ""]


def test_bar_shows_the_running_loss_and_speed_and_keeps_them_until_there_are_new_ones(monkeypatch):
    waits = []
    with terminal(monkeypatch, columns=120) as text:
        console = Console()
        console.training_starts(step=0, total_steps=200, steps_per_epoch=100, evaluate_every=100)
        console.step(1, lambda: RunningFigures(train_loss=2.25, images_per_second=12345.6))
        time.sleep(0.12)
        console.step(60, lambda: waits.append("asked"))  # None: it would be to wait for the device
        console.end_bar()
    assert "1 of 200 steps, loss 2.2500, 12,346 images/s" in text[0]
    assert "60 of 200 steps, loss 2.2500, 12,346 images/s, under 10 s left" in text[0]
    assert waits == ["asked"]


def test_figures_are_read_ten_times_a_second_at_most(monkeypatch):
    asked = []
    with terminal(monkeypatch) as text:
        console = Console()
        console.training_starts(step=0, total_steps=10**9, steps_per_epoch=100, evaluate_every=100)
        end, step = time.monotonic() + 0.35, 0
        while time.monotonic() < end:
            step += 1
            console.step(step, lambda: asked.append("asked") or RunningFigures(1.0, 1.0))
        console.end_bar()
    assert step > 100
    assert 1 <= len(asked) <= 4
    assert text[0].count("training ") <= 6


@pytest.mark.long
def test_real_training_shows_its_figures_on_a_narrow_terminal(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    with terminal(monkeypatch, columns=66) as text:
        words = ["model=mlp", "model.hidden=[8]", "trainer.epochs=9", "trainer.device=cpu", "data.max_per_class=60"]
        assert exit_code_of(lambda: dispatch(words)) == 0
    bars = [part for part in re.split(r"[\r\n]", text[0]) if part.startswith("training ")]
    assert any(re.search(r"\| loss \d\.\d{4}, .*under 10 s left", bar) for bar in bars), bars
    assert max(map(len, bars)) < 66
    rows = [line for line in screen(text[0]) if re.match(r" *\d+/9 ", line)]
    assert len(rows) == 9
    assert max(map(len, rows)) <= 66
    assert "\x1b[" not in re.sub(r"\x1b\[A", "", text[0]), "no colour, whether or not NO_COLOR asks for none"


def test_bar_takes_no_more_than_its_room_and_drops_what_matters_least():
    facts = {"count": "12,345 of 99,999 steps", "loss": "loss 0.1234", "speed": "5,555 images/s", "left": "12 min left"}
    for width, what in itertools.product(range(1, 130), ("training", "图像")):
        shape = re.sub(r"\{bar:(\d+)\}", lambda match: "#" * int(match[1]), bar_shape(what, facts, width=width))
        shown = shape.format(desc=what, percentage=100)
        assert cell_len(shown) <= max(width, cell_len(what) + len(" 100 %"))
        kept = [name for name in ("left", "loss", "speed", "count") if facts[name] in shown]
        assert kept == ["left", "loss", "speed", "count"][: len(kept)]
        assert len(kept) == 4 or width < 100


def test_columns_that_a_narrow_terminal_lacks_room_for_are_left_out(monkeypatch):
    heads = {}
    for columns in (120, 79, 68, 60, 46, 30):
        with terminal(monkeypatch, columns=columns) as text:
            console = Console()
            console.training_starts(step=0, total_steps=30_000, steps_per_epoch=300, evaluate_every=300)
            console.evaluation(evaluation(300, epoch=1), is_best=True)
            console.end_bar()
        lines = screen(text[0])
        assert max(map(len, lines)) <= columns
        heads[columns] = lines[2].split()
        assert lines[3].endswith("*") or columns > 46
    both = ["loss", "accuracy"]
    assert heads[120] == heads[79] == ["epoch", "step", *both, *both, "lr", "time", "images/s"]
    assert heads[68] == ["epoch", "step", *both, *both, "lr", "time"]
    assert heads[60] == ["epoch", "step", *both, *both, "lr"]
    assert heads[46] == ["epoch", *both, *both]
    assert heads[30] == ["epoch", *both]


def test_header_is_shown_again_where_the_window_has_become_narrower(monkeypatch):
    with terminal(monkeypatch) as text:
        console = Console()
        console.training_starts(step=0, total_steps=300, steps_per_epoch=100, evaluate_every=100)
        console.evaluation(evaluation(100), is_best=True)
        resize(sys.stdout.fileno(), 50)
        console.evaluation(evaluation(200), is_best=True)
        console.evaluation(evaluation(300), is_best=True)
        console.end_bar()
    lines = screen(text[0])
    assert [i for i, line in enumerate(lines) if line.split()[:1] == ["epoch"]] == [2, 5]
    assert max(map(len, lines[5:])) <= 50


def test_terminal_that_cannot_move_its_cursor_gets_rows_and_no_bar(monkeypatch):
    with terminal(monkeypatch, name="dumb") as text:
        console = Console()
        console.training_starts(step=0, total_steps=200, steps_per_epoch=100, evaluate_every=100)
        console.step(50)
        console.progress(1, 2, "reading")
        console.evaluation(evaluation(100), is_best=True)
        console.end_bar()
    assert "\x1b" not in text[0]
    assert "\r" not in text[0].replace("\r\n", "\n")
    assert "images/s" in text[0]
    assert "reading" not in text[0]


def test_sentences_are_broken_between_words_and_logged_whole(monkeypatch):
    logged, sentence = [], "caution: " + "more images may gain more " * 6
    with terminal(monkeypatch, columns=40) as text:
        Console(logged.append).say(sentence.strip(), wrap=True)
    lines = screen(text[0])
    assert max(map(len, lines)) <= 40
    assert " ".join(line.strip() for line in lines).strip() == sentence.strip()
    assert logged == [sentence.strip()]


def test_terminal_without_a_size_is_taken_for_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")  # of another window, perhaps: the terminal itself is asked
    with terminal(monkeypatch, columns=0):
        assert terminal_size() == (80, 24)


def test_resumed_training_starts_its_bar_where_it_stood(monkeypatch):
    with terminal(monkeypatch) as text:
        console = Console()
        console.training_starts(step=150, total_steps=200, steps_per_epoch=100, evaluate_every=100)
        console.end_bar()
    assert "training  75 % |" in text[0]


def test_columns_without_room_on_a_terminal_come_below_and_no_figure_is_folded(monkeypatch):
    columns = ("arm", "validation", "test", "below the best", "p (Holm)", "P(best > arm)")
    figures = ("50.0 % +- 23.6", "46.7 % +- 0.01", "3.3 [-60.2, 66.9]", "< 0.001", "0.50")
    with terminal(monkeypatch) as text:
        Console().table("arms", columns, [("model.activation=relu optimizer=adam", *figures), ("b", *figures)])
        Console().table("long", columns[:3], [("N" * 120, *figures[:2])])
    lines = screen(text[0])
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if line.startswith("model.activation=relu optimizer=adam ")]
    assert len(rows) == 3
    assert all(any(figure in row for row in rows) for figure in figures)
    heads = [line.split("  ")[0] for line in lines if "validation" in line or "P(best > arm)" in line]
    assert heads == ["arm"] * 3, "of the blocks with these columns"
    assert any(line.endswith("50.0 % +- 23.6   46.7 % +- 0.01") for line in lines), "names are folded instead"
    assert sum(line.count("N") for line in lines) == 120


def test_progress_shows_a_bar_per_kind_of_work(monkeypatch):
    with terminal(monkeypatch) as text:
        console = Console()
        console.progress(0, 10, "reading")
        console.progress(10, 10, "reading")
        console.progress(1, 5, "testing")
        console.end_bar()
    assert "reading" in text[0]
    assert "testing" in text[0]
    assert [line for line in screen(text[0]) if line] == []


# ------------------------------------------------------------------------------------------------ words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.004, "0.00 s"),
        (0.0712, "0.07 s"),
        (9.99, "9.99 s"),
        (12.34, "12.3 s"),
        (89.9, "89.9 s"),
        (125, "2 min 05 s"),
        (3600, "60 min 00 s"),
        (6000, "1 h 40 min"),
    ],
)
def test_durations_read_as_people_say_them(seconds, words):
    assert duration(seconds) == words


def test_shares_are_per_cent_with_one_digit():
    assert [percent(share) for share in (0, 0.12345, 1, None)] == ["0.0 %", "12.3 %", "100.0 %", "-"]


def test_quiet_console_logs_everything_and_prints_warnings_only(capsys):
    lines = []
    console = Console(lines.append, quiet=True)
    console.say("a line")
    console.warn("look here")
    console.table("title", ("a", "b"), [("x", 1)])
    assert capsys.readouterr().out == "warning: look here\n"
    assert lines[:2] == ["a line", "warning: look here"]
    assert any("x" in line for line in lines[2:])
