"""The crop tools of the published systems: which pixels a request returns.

Some rewards depend on whether a crop was returned, and a model may be evaluated with another tool than in
training. Each module computes the box that the tool of one system would cut; None if the original refuses or
raises. Nothing here opens a picture.
"""

from lfpc_rewards.presets.tools import chain_of_focus, deepeyes, ergo, mini_o3, pixel_reasoner

__all__ = ["chain_of_focus", "deepeyes", "ergo", "mini_o3", "pixel_reasoner"]


def __dir__() -> list[str]:
    return __all__
