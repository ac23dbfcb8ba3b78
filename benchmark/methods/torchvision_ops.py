"""Import torchvision from here. Its Linux wheels hold CUDA builds of compiled operators, which do not load beside a
CPU-only torch, and then importing it fails: "operator torchvision::nms does not exist". The suite uses only its Python
parts, so declaring the two operators' schemas is enough."""

import torch

try:
    import torchvision
except RuntimeError:
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for _name in ("nms", "qnms"):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision

__all__ = ["torchvision"]
