"""Pictures to what a vision tower wants: resized, cropped and normalised as the model's image processor says.

The same arithmetic as transformers' processors, for a whole batch at once and without torchvision; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

MODES = {0: "nearest-exact", 2: "bilinear", 3: "bicubic"}  # PIL's numbers of resampling filters


class Pixels:
    """uint8 pictures [H, W, 3], of one size or of many -> float32 [B, 3, height, width]."""

    def __init__(self, processor: Any):
        self.resize = sizes(getattr(processor, "size", None)) if getattr(processor, "do_resize", True) else {}
        crop = getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", False) else None
        self.crop = sizes(crop)
        self.mode = MODES.get(int(getattr(processor, "resample", None) or 3), "bicubic")
        scale = float(processor.rescale_factor) if getattr(processor, "do_rescale", True) else 1.0
        normal = getattr(processor, "do_normalize", True)
        mean, std = (processor.image_mean, processor.image_std) if normal else ((0.0,) * 3, (1.0,) * 3)
        self.scale = scale / torch.tensor(std).view(3, 1, 1)
        self.shift = torch.tensor(mean).view(3, 1, 1) / torch.tensor(std).view(3, 1, 1)

    def __call__(self, pictures: np.ndarray | Tensor | Sequence[np.ndarray]) -> Tensor:
        if isinstance(pictures, np.ndarray | Tensor):
            return self._together(torch.as_tensor(pictures))
        shapes = {picture.shape for picture in pictures}
        if len(shapes) == 1:
            return self._together(torch.from_numpy(np.stack(pictures)))
        return torch.cat([self._together(torch.from_numpy(np.ascontiguousarray(p))[None]) for p in pictures])

    def _together(self, pictures: Tensor) -> Tensor:
        channels_first = pictures.permute(0, 3, 1, 2)  # [B, 3, H, W], uint8: rounded after resizing, as PIL does
        wanted = self._size(*channels_first.shape[-2:])
        if wanted != tuple(channels_first.shape[-2:]):
            antialias = self.mode != "nearest-exact"
            channels_first = F.interpolate(channels_first, wanted, mode=self.mode, antialias=antialias)
        if self.crop:
            channels_first = centre(channels_first, self.crop["height"], self.crop["width"])
        return channels_first.float().mul_(self.scale).sub_(self.shift)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        if not self.resize:
            return height, width
        if "shortest_edge" in self.resize:
            edge = self.resize["shortest_edge"]
            if height <= width:
                return edge, int(edge * width / height)
            return int(edge * height / width), edge
        return self.resize["height"], self.resize["width"]


def sizes(said: Any) -> dict[str, int]:
    """A processor's size as a plain dict: of an edge, or of height and width."""
    if said is None:
        return {}
    if isinstance(said, int):
        return {"height": said, "width": said}
    return {name: int(value) for name, value in dict(said).items() if value is not None}


def centre(pictures: Tensor, height: int, width: int) -> Tensor:
    """The middle of each picture; what is too small gets a black border."""
    tall, wide = pictures.shape[-2:]
    if tall < height or wide < width:
        top, left = max(height - tall, 0), max(width - wide, 0)
        pictures = F.pad(pictures, (left - left // 2, left // 2, top - top // 2, top // 2))  # as transformers does
        tall, wide = pictures.shape[-2:]
    top, left = (tall - height) // 2, (wide - width) // 2
    return pictures[..., top : top + height, left : left + width]
