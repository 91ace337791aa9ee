"""The crop tools of the published systems: which pixels a request gives.

Some rewards ask whether a crop came back, and a model that was trained with one tool meets another in
evaluation. Each module says for one system what box its tool would cut; None where the original refuses or
raises. Nothing here opens a picture.
"""

from lfpc_rewards.presets.tools import chain_of_focus, deepeyes, ergo, mini_o3, pixel_reasoner

__all__ = ["chain_of_focus", "deepeyes", "ergo", "mini_o3", "pixel_reasoner"]


def __dir__() -> list[str]:
    return __all__
