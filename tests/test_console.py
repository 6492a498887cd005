import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import termios
import threading

import pytest

from cvtrain.console import Console, duration, percent, print_error
from cvtrain.engine.events import Evaluation


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


@contextlib.contextmanager
def terminal(monkeypatch):
    """Puts standard output and error on a pseudo-terminal of 80 columns; yields a list that is given the text."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    written, text = [], []

    def listen():
        while not written or not written[-1].endswith(b"\0"):
            written.append(os.read(master, 4096))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    with open(slave, "w", encoding="utf-8") as stream, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        patch.setattr(sys, "stderr", stream)
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
    assert re.search(r"training  25 % \|.*\| 50 of 200, .* left", text[0])
    assert not any("training" in line for line in screen(text[0]))
    assert screen(text[0])[-2:] == ["the end", ""]


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
