"""Several processes that train one model: who they are, what they sum, what they agree on, how they end."""

from cvtrain.engine.distributed.rank import Rank, rank_from_environment

__all__ = ["Rank", "rank_from_environment"]
