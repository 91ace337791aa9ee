"""The same rewards in other frameworks: as a TRL reward function, verl's `compute_score`, an ms-swift ORM.

Every reward here takes a batch of columns and returns an array or a named tuple of arrays. An adapter says
which column of the framework each argument comes from, and returns what the framework expects. No
framework is imported: what they call is a calling convention, and `docs/how-to/use-rewards-elsewhere.md`
has the versions with which each was run.

NaN ("does not apply", or a judge that failed) becomes None if the framework supports None. If not, it raises
unless the caller gives a number for it: it never becomes a 0, which would punish the model.
"""

from lfpc_rewards.adapters.binding import CropsOf
from lfpc_rewards.adapters.swift import swift_orm
from lfpc_rewards.adapters.trl import TrlReward
from lfpc_rewards.adapters.verl import VerlScore, verl_group_score

__all__ = ["CropsOf", "TrlReward", "VerlScore", "swift_orm", "verl_group_score"]


def __dir__() -> list[str]:
    return __all__
