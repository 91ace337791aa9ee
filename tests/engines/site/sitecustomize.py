"""Lets torchvision be imported beside a torch for CPUs, in the tests' process and in all that it starts.

The torchvision on PyPI is built for CUDA. Its compiled half does not load beside a torch for CPUs, and the
other half, which vLLM and transformers use, wants two of its operators to be known when it is imported.
"""

import sys
from importlib.abc import MetaPathFinder

_kept = []
"""The definitions end with their library."""


class _BeforeTorchvision(MetaPathFinder):
    def find_spec(self, name, *_):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "DEF")
            for operator in ("nms", "qnms"):
                library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            _kept.append(library)


sys.meta_path.insert(0, _BeforeTorchvision())
