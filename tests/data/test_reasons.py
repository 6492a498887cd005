import pytest

from cvtrain.data.reasons import reason


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (PermissionError(13, "Permission denied", "/some/path"), "Permission denied"),
        (OSError("no code"), "no code"),
        (ValueError("two\nlines and \x1b[31mcolour"), "two?lines and ?[31mcolour"),
        (EOFError(), "EOFError"),
        ("already words", "already words"),
        (ValueError("long" * 100), "long" * 30),
    ],
)
def test_reason_is_one_short_line(cause, words):
    assert reason(cause) == words
