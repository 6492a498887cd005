"""How the processes that train one model come together and part.

Knows the team and how errors are put into words; not what is trained.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from cvtrain.ending import internal_error
from cvtrain.engine.distributed.board import Failure, quietly
from cvtrain.engine.distributed.rank import Rank
from cvtrain.engine.distributed.team import Team, join
from cvtrain.errors import CvtrainError
from cvtrain.last_words import expect_end
from cvtrain.record import memory_limit_of
from cvtrain.signals import Interruption

if TYPE_CHECKING:
    import torch


@contextlib.contextmanager
def joined(rank: Rank | None, device: torch.device) -> Iterator[Team | None]:
    """The team for the time of the block; None where there is one process.

    When the block fails in one process, the others hear why, and their blocks fail too.

    Args:
        rank: Of this process, or None.
        device: Where its model will be.

    Raises:
        ProcessFailedError: Another process has failed.
    """
    if rank is None:
        yield None
        return
    team, has_failed = join(rank, device), True
    try:
        yield team
        if team.is_first:
            quietly(lambda: team.board.post_end(0))
        has_failed = False
    except BaseException as error:
        expect_end()
        failure = _failure_of(error, rank)
        quietly(lambda: team.board.post_failure(failure))
        raise
    finally:
        team.leave(has_failed=has_failed)


def _failure_of(error: BaseException, rank: Rank) -> Failure:
    if isinstance(error, Interruption):
        error = error.error
    if not isinstance(error, CvtrainError) and isinstance(error, Exception):
        error = memory_limit_of(error) or error
    if isinstance(error, CvtrainError):
        return Failure(rank.number, error.exit_code, error.message, error.hint)
    lines = internal_error(error) if isinstance(error, Exception) else [type(error).__name__]
    return Failure(rank.number, 1, "\n".join(lines), None)
