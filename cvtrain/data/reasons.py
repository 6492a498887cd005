"""Says in a few plain words why something failed.

Does not know what was tried.
"""

from __future__ import annotations

_MAX_CHARACTERS = 120


def reason(cause: object) -> str:
    """What went wrong, on one line, without codes, control characters or great length.

    Args:
        cause: An exception, or what a library gives in the place of one.
    """
    text = (cause.strerror if isinstance(cause, OSError) else None) or str(cause) or type(cause).__name__
    return "".join(c if c.isprintable() else "?" for c in text)[:_MAX_CHARACTERS]
