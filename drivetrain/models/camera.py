"""Pictures to features: uint8 [..., H, W, C] in, [..., width] out. Nobody else scales them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def as_channels(pictures: Tensor) -> Tensor:
    """uint8 [..., H, W, C] -> float [N, C, H, W] between -1 and 1: a white ground at 1 would drown what stands on it."""
    flat = pictures.reshape(-1, *pictures.shape[-3:])
    # In memory the channels stay last, as the picture has them: convolutions take half the time, and no copy is made.
    return flat.to(torch.float32).div_(127.5).sub_(1).permute(0, 3, 1, 2)


class CameraEncoder(nn.Module):
    """Three strided convolutions and a linear layer (Mnih et al. 2015, with padding so that small pictures pass)."""

    def __init__(self, shape: tuple[int, ...], width: int = 256, channels: tuple[int, int, int] = (32, 64, 64)):
        super().__init__()
        first, second, third = channels
        self.trunk = nn.Sequential(
            nn.Conv2d(shape[-1], first, 8, stride=4, padding=2),
            nn.ReLU(),
            nn.Conv2d(first, second, 4, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(second, third, 3, stride=1, padding=1),
            nn.ReLU(),
            nn.Flatten(),
        )
        with torch.no_grad():
            size = self.trunk(torch.zeros(1, shape[-1], *shape[:2])).shape[-1]
        self.out = nn.Sequential(nn.Linear(size, width), nn.ReLU())
        self.width = width
        self.apply(orthogonal)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.out(self.trunk(as_channels(pictures))).reshape(*pictures.shape[:-3], self.width)


def orthogonal(layer: nn.Module) -> None:
    """Weights that keep the size of what passes; PyTorch's own lose two thirds of it in every layer."""
    if isinstance(layer, nn.Conv2d | nn.Linear):
        nn.init.orthogonal_(layer.weight, 2**0.5)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


class TransformerEncoder(nn.Module):
    """A small transformers ViT, from its configuration; the mean over its patch tokens."""

    def __init__(self, shape: tuple[int, ...], width: int = 64, patch: int = 10, layers: int = 2):
        super().__init__()
        from transformers import ViTConfig, ViTModel

        config = ViTConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=max(width // 32, 1),
            intermediate_size=2 * width,
            image_size=[shape[0], shape[1]],
            patch_size=patch,
            num_channels=shape[-1],
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.vit = ViTModel(config, add_pooling_layer=False)
        self.width = width

    def forward(self, pictures: Tensor) -> Tensor:
        tokens = self.vit(pixel_values=as_channels(pictures)).last_hidden_state  # [N, tokens, width]
        return tokens.mean(1).reshape(*pictures.shape[:-3], self.width)
