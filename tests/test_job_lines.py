import contextlib
import fcntl
import os
import pty
import random
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest
from rich.cells import cell_len

from cvtrain import job_lines as job_lines_module
from cvtrain.console import Console
from cvtrain.job_lines import REDRAW_SECONDS, JobLines
from cvtrain.job_rows import clock, fit_names, folded, job_rows
from cvtrain.signals import described

JOB = "job {} of 20: optimizer=sgd optimizer.lr=0.1 seed={}"


class Screen:
    """What a terminal shows of the text that was written to it; it knows the few codes that are used here.

    Args:
        columns: Cells of a row.
        rows: That can be seen.
        wide: Characters that it gives two cells, whatever others think.
    """

    def __init__(self, columns, rows, *, wide=""):
        self.columns, self.height, self.wide = columns, rows, wide
        self.scrolled, self.rows = [], [{}]  # of each row the character at each column
        self.row = self.column = 0
        self.folds = True

    def feed(self, text):
        for code, character in re.findall(r"(\x1b\[\??\d*[A-Za-z])|(.)", text, flags=re.DOTALL):
            self._obey(code) if code else self._put(character)

    def _obey(self, code):
        if code == "\x1b[J":
            del self.rows[self.row + 1 :]
        if code in ("\x1b[J", "\x1b[K"):
            self.rows[self.row] = {c: text for c, text in self.rows[self.row].items() if c < self.column}
        elif code.endswith("A"):
            self.row = max(self.row - int(code[2:-1]), 0)
        elif code in ("\x1b[?7l", "\x1b[?7h"):
            self.folds = code.endswith("h")
        else:
            raise AssertionError(f"unknown code {code!r}")

    def _put(self, character):
        assert character in "\r\n" or character.isprintable(), f"{character!r} would drive the terminal"
        if character == "\r":
            self.column = 0
        elif character == "\n":
            self._go_down()
        else:
            width = 2 if character in self.wide else cell_len(character)
            if self.column + width > self.columns and self.folds:
                self.column = 0
                self._go_down()
            self.column = min(self.column, self.columns - width)
            self.rows[self.row][self.column] = character
            self.column += width

    def _go_down(self):
        self.row += 1
        if self.row == len(self.rows):
            self.rows.append({})
        if len(self.rows) > self.height:
            self.scrolled.append(self.rows.pop(0))
            self.row -= 1

    def lines(self):
        """The rows that can be seen, from the top."""
        return [self._text(row) for row in self.rows]

    def history(self):
        """All rows, those that scrolled out at the top included."""
        return [self._text(row) for row in (*self.scrolled, *self.rows)]

    @staticmethod
    def _text(row):
        text = ""
        for column, character in sorted(row.items()):
            text += " " * (column - cell_len(text)) + character
        return text.rstrip()


class Terminal:
    """A pseudo-terminal, and what is to be seen on it."""

    def __init__(self, columns, rows):
        self.master, self.slave = pty.openpty()
        self.screen = Screen(columns, rows)
        self._received, self._num_fed, self._num_asked, self._num_ends = b"", 0, 0, 0
        self.resize(columns, rows)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def resize(self, columns, rows):
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.screen.columns, self.screen.height = columns, rows

    def _listen(self):
        while not self._received.endswith(b"\x04"):
            self._received += os.read(self.master, 65536)
            self._num_ends = self._received.count(b"\0")
        os.close(self.master)

    def close(self):
        """Takes the terminal away from those who write to it."""
        if self._listener.is_alive():
            os.write(self.slave, b"\x04")
            self._listener.join(10)
            os.close(self.slave)

    def shown(self):
        """The screen after all that has been written."""
        self._num_asked += 1
        os.write(self.slave, b"\0")
        end = time.monotonic() + 10
        while self._num_ends < self._num_asked:
            assert time.monotonic() < end
            time.sleep(0.001)
        text = self._received[self._num_fed :]
        self._num_fed += len(text)
        self.screen.feed(text.replace(b"\0", b"").decode())
        return self.screen.lines()

    @property
    def num_bytes(self):
        return len(self._received)


@pytest.fixture
def terminal(monkeypatch):
    """Puts standard output and error on a pseudo-terminal: `terminal(columns=80, rows=24)`."""
    with contextlib.ExitStack() as stack:

        def make(columns=80, rows=24, *, encoding="utf-8", redraw_seconds=0.01):
            terminal = Terminal(columns, rows)
            stack.callback(terminal.close)
            stream = stack.enter_context(open(os.dup(terminal.slave), "w", encoding=encoding))
            monkeypatch.setattr(sys, "stdout", stream)
            monkeypatch.setattr(sys, "stderr", stream)
            monkeypatch.setenv("TERM", "xterm")
            monkeypatch.setattr(job_lines_module, "REDRAW_SECONDS", redraw_seconds)
            return terminal

        yield make
        monkeypatch.undo()


@contextlib.contextmanager
def job_lines(console=None, *, num_jobs=20, num_slots=2):
    with JobLines(console or Console(), num_jobs=num_jobs, num_slots=num_slots) as lines:
        yield lines


def wait_and_refresh(lines):
    time.sleep(job_lines_module.REDRAW_SECONDS)
    lines.refresh()


# ------------------------------------------------------------------------------------------------ on a terminal


def test_running_jobs_have_a_line_each_and_all_have_one(terminal):
    screen = terminal()
    with job_lines(num_slots=3) as lines:
        lines.skips(5)
        for i in range(3):
            lines.begins(f"ended {i}", JOB.format(i, i))
            lines.ends(f"ended {i}", f"job {i} of 20 {'failed' if i == 2 else 'done'}", seconds=60, is_failed=i == 2)
        lines.begins("a", "job 9 of 20: optimizer=sgd optimizer.lr=0.1 seed=1")
        lines.begins("b", "job 10 of 20: optimizer=sgd optimizer.lr=0.01 seed=1")
        lines.begins("c", "job 11 of 20: optimizer=adam optimizer.lr=0.01 seed=1")
        lines.moves("a", step=900, total_steps=2000)
        lines.moves("b", step=19, total_steps=2000)
        lines.evaluates("a", val_accuracy=0.7123)
        lines.evaluates("a", val_accuracy=None)
        wait_and_refresh(lines)
        assert screen.shown() == [
            "job 0 of 20 done",
            "job 1 of 20 done",
            "job 2 of 20 failed",
            "",
            "optimizer=sgd optimizer.lr=0.1    45 %  step 900 of 2000  val 71.2 %  0:00",
            "optimizer=sgd optimizer.lr=0.01    0 %   step 19 of 2000              0:00",
            "optimizer=adam optimizer.lr=0.01                starting              0:00",
            "7 of 20 done, 1 failed, 3 running, about 4 min left",
        ]


def begin_three(lines):
    for i, lr in enumerate((0.1, 0.01, 0.001)):
        lines.begins(str(i), f"job {i + 1} of 20: model=conv_pool optimizer=sgd optimizer.lr={lr} seed=12")
        lines.moves(str(i), step=900, total_steps=2000)
        lines.evaluates(str(i), val_accuracy=0.7)
    wait_and_refresh(lines)


def test_wide_terminal_shows_names_as_they_were_given(terminal):
    screen = terminal(columns=120)
    with job_lines() as lines:
        begin_three(lines)
        name = "job 1 of 20: model=conv_pool optimizer=sgd optimizer.lr=0.1 seed=12"
        assert screen.shown()[1] == f"{name}    45 %  step 900 of 2000  val 70.0 %  0:00"


@pytest.mark.parametrize(
    ("columns", "first", "last"),
    [
        (80, "optimizer.lr=0.1 seed=12    45 %  step 900 of 2000  val 70.0 %  0:00", ["0 of 20 done, 3 running"]),
        (60, "optimizer.lr=0.1 seed=12    45 %  val 70.0 %  0:00", ["0 of 20 done, 3 running"]),
        (40, "optimizer.lr=0.1    45 %  val 70.0 %", ["0 of 20 done, 3 running"]),
        (20, "lr=0.1    45 %", ["0 of 20 done,", "3 running"]),
    ],
)
def test_narrow_terminal_loses_words_and_columns_but_no_figure_is_cut(terminal, columns, first, last):
    screen = terminal(columns=columns)
    with job_lines() as lines:
        begin_three(lines)
        shown = screen.shown()
        assert shown[1] == first
        assert shown[4:] == last
        assert all(row.endswith(first[-6:].strip()) for row in shown[1:4])


def test_nothing_is_left_of_the_lines_in_the_end(terminal):
    screen = terminal()
    before = threading.enumerate()
    with job_lines() as lines:
        lines.begins("a", JOB.format(1, 1))
        lines.begins("b", JOB.format(2, 2))
        lines.ends("a", "job 1 of 20 done", seconds=3.0, is_failed=False)
    Console().say("what comes after")
    assert screen.shown() == ["job 1 of 20 done", "what comes after", ""]
    assert set(threading.enumerate()) <= set(before), "no thread of the lines"


def test_lines_above_may_be_longer_than_the_screen_is_wide_and_stay_whole(terminal):
    screen = terminal(columns=30, rows=8)
    line = "job 1 of 20 done: optimizer=sgd optimizer.lr=0.1 seed=1  71.2 %"
    assert len(line) % 30 < 5  # its last row is shorter than what stood there
    with job_lines() as lines:
        lines.begins("a", JOB.format(1, 1))
        for _ in range(5):
            lines.say(line)
    screen.shown()
    assert "".join(screen.screen.history()).replace(" ", "") == 5 * line.replace(" ", "")


@pytest.mark.parametrize(
    ("num_jobs", "rows", "num_shown"), [(64, 24, 21), (64, 80, 64), (3, 4, 1), (3, 3, 0), (3, 1, 0)]
)
def test_no_more_lines_than_the_screen_is_high(terminal, num_jobs, rows, num_shown):
    screen = terminal(rows=rows)
    with job_lines(num_jobs=99, num_slots=64) as lines:
        for i in range(num_jobs):
            lines.begins(str(i), JOB.format(i, i))
        for i in range(3):
            wait_and_refresh(lines)
            lines.say(f"said {i}")
        shown = screen.shown()
        assert len(shown) <= rows
        assert sum("starting" in row for row in shown) == num_shown
        if rows > 2:
            more = [] if num_shown == num_jobs else [f"and {num_jobs - num_shown} more"]
            assert shown[-1 - len(more) :] == [*more, f"0 of 99 done, {num_jobs} running"]
    screen.shown()
    assert screen.screen.history() == ["said 0", "said 1", "said 2", ""]  # nothing scrolled out but what was said


@pytest.mark.parametrize(
    "name",
    [
        "data.root=/图像/" + "网络" * 60,
        "data.root=" + "e\u0301" * 100,
        "\x1b[2J\x1b[31mred\x07",
        "a\nb\rc\td",
        "\u202ereversed",
        "\ud800",
        "x" * 500,
        "👩\u200d👩\u200d👧" * 30,
        "",
        "   ",
        "%s {} [bold]",
    ],
)
def test_odd_names_drive_nothing_and_fold_nothing(terminal, name):
    screen = terminal(columns=60, rows=10)
    with job_lines() as lines:
        lines.begins("a", name)
        lines.begins("b", JOB.format(2, 2))
        for step in (1, 2):
            lines.moves("a", step=step, total_steps=7)
            wait_and_refresh(lines)
        shown = screen.shown()
        assert len(shown) == 4
        assert re.search(r"28 %.* 0:00$", shown[1])
        assert shown[3] == "0 of 20 done, 2 running"


def test_names_that_the_encoding_lacks_are_written_in_ascii(terminal):
    screen = terminal(encoding="ascii")
    with job_lines() as lines:
        lines.begins("a", "model=图")
        assert screen.shown()[1].startswith("model=\\u56fe ")


def test_what_others_write_stays_above_the_lines(terminal):
    screen = terminal()
    with job_lines() as lines:
        lines.begins("a", JOB.format(1, 1))
        print("a foreign line", flush=True)
        os.write(screen.slave, b"^C")  # what a terminal shows of Ctrl-C
        wait_and_refresh(lines)
        assert [row for row in screen.shown() if "job" not in row] == ["a foreign line", "", "0 of 20 done, 1 running"]


def test_lines_follow_a_window_that_changes_its_size(terminal):
    screen = terminal(columns=100, rows=24)
    with job_lines(num_slots=8) as lines:
        for i in range(8):
            lines.begins(str(i), JOB.format(i, i))
        for columns in (40, 20):
            screen.shown()
            screen.resize(columns, 24)
            wait_and_refresh(lines)
            assert max(map(len, screen.shown())) < columns
        assert screen.shown()[-2:] == ["0 of 20 done,", "8 running"]
        screen.resize(200, 24)
        wait_and_refresh(lines)
        shown = screen.shown()
        assert shown[1].startswith(JOB.format(0, 0))
        assert shown[9:] == ["0 of 20 done, 8 running"]


def test_characters_that_the_terminal_takes_for_wider_fold_nothing(terminal):
    screen = terminal(columns=40)
    screen.screen.wide = "ä"
    with job_lines() as lines:
        lines.begins("a", "ä" * 40)
        for _ in range(3):
            wait_and_refresh(lines)
        assert len(screen.shown()) == 3
        lines.say("ä" * 21)
    assert [row.replace(" ", "") for row in screen.shown()] == ["ä" * 20, "ä", ""]  # a line that stays is whole


def test_terminal_without_a_size_is_taken_for_80_by_24(terminal):
    screen = terminal()
    screen.resize(0, 0)
    screen.screen.columns, screen.screen.height = 80, 24
    with job_lines() as lines:
        lines.begins("a", "x" * 200)
        assert len(screen.shown()[1]) == 79


# ------------------------------------------------------------------------------------------------ counts


def last_line(screen):
    return screen.shown()[-1]


def test_job_that_begins_again_is_counted_once_and_starts_anew(terminal):
    screen = terminal()
    with job_lines() as lines:
        lines.begins("a", JOB.format(1, 1))
        lines.moves("a", step=5, total_steps=10)
        lines.ends("a", "job 1 failed", seconds=3.0, is_failed=True)
        lines.begins("a", JOB.format(1, 1))
        assert "starting" in screen.shown()[2]
        assert last_line(screen) == "0 of 20 done, 1 running"
        lines.begins("a", JOB.format(1, 1))
        assert last_line(screen) == "0 of 20 done, 1 running"
        lines.ends("a", "job 1 done", seconds=3.0, is_failed=False)
        assert last_line(screen) == "1 of 20 done, about 30 s left"


def test_messages_of_a_job_that_has_ended_change_nothing(terminal):
    screen = terminal()
    with job_lines() as lines:
        lines.begins("a", JOB.format(1, 1))
        lines.ends("a", "job 1 failed", seconds=None, is_failed=True)
        lines.moves("a", step=3, total_steps=4)
        lines.evaluates("a", val_accuracy=0.5)
        lines.moves("of nobody", step=3, total_steps=4)
        wait_and_refresh(lines)
        assert screen.shown() == ["job 1 failed", "", "0 of 20 done, 1 failed"]
        lines.ends("a", "job 1 failed", seconds=None, is_failed=True)
        assert last_line(screen) == "0 of 20 done, 1 failed"


def test_job_that_never_began_is_counted_when_it_ends(terminal):
    screen = terminal()
    with job_lines() as lines:
        lines.ends("a", "job 1 failed: no such model", seconds=None, is_failed=True)
        assert last_line(screen) == "0 of 20 done, 1 failed"


def test_search_of_unknown_length_tells_what_is_done_and_estimates_nothing(terminal):
    screen = terminal()
    with job_lines(num_jobs=None) as lines:
        for i in range(7):
            lines.begins(str(i), JOB.format(i, i))
            lines.ends(str(i), "done", seconds=60.0, is_failed=False)
        lines.begins("a", JOB.format(8, 8))
        assert last_line(screen) == "7 done, 1 running"


def test_nothing_is_estimated_from_jobs_that_failed(terminal):
    screen = terminal()
    with job_lines() as lines:
        lines.ends("a", "job 1 failed", seconds=600.0, is_failed=True)
        lines.begins("b", JOB.format(1, 1))
        assert last_line(screen) == "0 of 20 done, 1 failed, 1 running"


def test_no_time_is_left_when_all_is_done(terminal):
    screen = terminal()
    with job_lines(num_jobs=2) as lines:
        lines.skips()
        lines.ends("a", "job 1 done", seconds=600.0, is_failed=False)
        assert last_line(screen) == "2 of 2 done"


# ------------------------------------------------------------------------------------------------ cost and harm


def test_figures_are_written_four_times_a_second_at_most(terminal):
    screen = terminal(redraw_seconds=REDRAW_SECONDS)
    with job_lines() as lines:
        lines.begins("a", JOB.format(1, 1))
        screen.shown()
        before, end = screen.num_bytes, time.monotonic() + 3 * REDRAW_SECONDS
        num_calls = 0
        while time.monotonic() < end:
            lines.moves("a", step=num_calls, total_steps=10**9)
            num_calls += 1
        screen.shown()
        assert num_calls > 1000
        assert screen.num_bytes - before < 4 * 300


def test_terminal_that_is_closed_stops_nothing(terminal):
    said = []
    screen = terminal()
    with job_lines(Console(said.append)) as lines:
        lines.begins("a", "job 1")
        screen.shown()
        screen.close()
        wait_and_refresh(lines)
        lines.moves("a", step=3, total_steps=4)
        lines.begins("b", "job 2")
        lines.ends("a", "job 1 done", seconds=1.0, is_failed=False)
    assert said == ["job 1", "job 2", "job 1 done"]
    # What could not be written must not be written when the file is closed, into whatever has its number by then.
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, sys.stdout.fileno())
    os.close(devnull)


SCRIPT = """
import os, signal, sys, threading, time
from cvtrain.console import Console
from cvtrain.job_lines import JobLines
from cvtrain.signals import StopRequest
with StopRequest() as stop, JobLines(Console(), num_jobs=9, num_slots=2) as lines:
    lines.begins("a", "job 1 of 9: seed=1")
    lines.begins("b", "job 2 of 9: seed=2")
    assert threading.active_count() == 2, "the watch of the signals and no thread of the lines"
    while True:
        lines.moves("a", step=1, total_steps=9)
        time.sleep(0.01)
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_signal_leaves_a_clean_terminal(terminal, signum):
    screen = terminal()
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=screen.slave, stdout=screen.slave, stderr=screen.slave
    )
    try:
        end = time.monotonic() + 30
        while "2 running" not in " ".join(screen.shown()) and process.poll() is None and time.monotonic() < end:
            pass
        assert screen.shown()[1].startswith("job 1 of 9: seed=1")
        process.send_signal(signum)
        process.wait(30)
    finally:
        process.kill()
        process.wait()
    shown = screen.shown()
    assert shown[0]
    assert shown[-2:] == [f"cvtrain.errors.InterruptedBySignal: stopped by {described(signum)}", ""]
    assert not any("9 done" in row or "starting" in row for row in shown)
    assert screen.screen.folds


def test_exception_leaves_a_clean_terminal(terminal):
    screen = terminal()
    with pytest.raises(ZeroDivisionError), job_lines() as lines:  # noqa: PT012
        lines.begins("a", JOB.format(1, 1))
        _ = 1 / 0
    assert screen.shown() == [""]
    assert screen.screen.column == 0


# ------------------------------------------------------------------------------------------------ elsewhere


def everything(lines):
    lines.skips(2)
    lines.begins("a", JOB.format(3, 1))
    lines.moves("a", step=3, total_steps=4)
    lines.evaluates("a", val_accuracy=0.5)
    wait_and_refresh(lines)
    lines.say("a word")
    lines.ends("a", "job 3 of 20 done", seconds=1.0, is_failed=False)


def test_without_a_terminal_a_job_is_a_line_when_it_begins_and_one_when_it_ends(capsys):
    with job_lines() as lines:
        everything(lines)
    assert capsys.readouterr().out.splitlines() == [JOB.format(3, 1), "a word", "job 3 of 20 done"]


def test_dumb_terminal_gets_plain_lines(terminal, monkeypatch):
    screen = terminal()
    monkeypatch.setenv("TERM", "dumb")
    with job_lines() as lines:
        everything(lines)
        assert screen.shown() == [JOB.format(3, 1), "a word", "job 3 of 20 done", ""]


def test_quiet_console_shows_nothing(terminal):
    screen = terminal()
    with job_lines(Console(quiet=True)) as lines:
        everything(lines)
        assert screen.shown() == [""]


def test_log_is_the_same_whether_or_not_anyone_looks(terminal, capsys):
    logs = []
    for is_terminal in (False, True):
        if is_terminal:
            terminal()
        said = []
        with job_lines(Console(said.append)) as lines:
            everything(lines)
        logs.append(said)
    assert logs[0] == logs[1] == [JOB.format(3, 1), "a word", "job 3 of 20 done"]


def test_reader_that_has_gone_is_missed_by_no_job(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    stream = open(writer, "w")  # noqa: SIM115
    monkeypatch.setattr(sys, "stdout", stream)
    with job_lines() as lines:
        lines.begins("a", "job 1")
        lines.begins("b", "job 2")
    with contextlib.suppress(BrokenPipeError):
        stream.close()


# ------------------------------------------------------------------------------------------------ rows


@pytest.mark.parametrize(
    ("names", "width", "expected"),
    [
        (("job 3 of 12: seed=1",), 20, ("job 3 of 12: seed=1",)),
        (("job 3 of 12: seed=1",), 18, ("seed=1",)),
        (("job 3 of 12: loss=mse",), 8, ("loss=mse",)),
        (("job 3: seed=1", "job 12: seed=2"), 13, ("seed=1", "seed=2")),
        (("a.b=1 c=x d=1", "a.b=2 c=x d=1"), 11, ("a.b=1 d=1", "a.b=2 d=1")),
        (("a.b=1 c=x d=1", "a.b=2 c=x d=1"), 8, ("a.b=1", "a.b=2")),
        (("a.b=1 c=x", "a.b=1 c=y"), 8, ("c=x", "c=y")),
        (("loss=mse loss.beta=1 seed=2",), 20, ("mse beta=1 seed=2",)),
        (("same", "same"), 3, ("sam", "sam")),
        (("model=lenet", "model=lenet"), 5, ("lenet", "lenet")),
        (("a b", "a"), 2, ("a ", "a")),
        (("abcdefghijklmnop",), 9, ("abc...nop",)),
        (("图像网络图像网络",), 9, ("图像...络",)),
        (("abc",), 0, ("",)),
        ((), 5, ()),
    ],
)
def test_names_lose_what_tells_least_first(names, width, expected):
    assert fit_names(names, width) == expected


def test_names_fit_whatever_they_are():
    rng = random.Random(0)
    letters = "ab=.: 图é👩\u200d\ufe0f"
    for _ in range(2000):
        names = tuple("".join(rng.choices(letters, k=rng.randrange(30))) for _ in range(rng.randrange(5)))
        width = rng.randrange(40)
        assert max(map(cell_len, fit_names(names, width)), default=0) <= width


def test_figures_stand_below_each_other_beside_wide_characters():
    cells = {"share": "5 %", "step": "step 1 of 20", "val": "", "time": "0:01"}
    rows = job_rows(("图像", "a"), [cells, cells | {"share": "10 %"}], width=60)
    assert rows == ["图像   5 %  step 1 of 20  0:01", "a     10 %  step 1 of 20  0:01"]


def test_parts_of_the_last_line_are_folded_between_words_only():
    parts = ["7 of 20 done", "1 failed", "2 running", "about 12 min left"]
    assert folded(parts, width=80) == ["7 of 20 done, 1 failed, 2 running, about 12 min left"]
    assert folded(parts, width=40) == ["7 of 20 done, 1 failed, 2 running,", "about 12 min left"]
    for width in range(18, 80):
        rows = folded(parts, width=width)
        assert " ".join(rows) == ", ".join(parts)
        assert max(map(len, rows)) <= width


def test_clock_tells_hours_where_there_are_some():
    assert [clock(s) for s in (0.9, 20, 725, 3599, 11229)] == ["0:00", "0:20", "12:05", "59:59", "3:07:09"]
