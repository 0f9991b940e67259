"""The configurations of some published models, by hub id: enough to count and plan without a network.

    config = config_of("Qwen/Qwen2-1.5B")      from here; any other name from its folder, or from the hub
    model = empty(config)                      the real architecture on the meta device: shapes, and no memory

A test holds each one's number of parameters against the published figure.
"""

from __future__ import annotations

from typing import Any

import torch

from drivetrain.errors import MissingExtra
from drivetrain.models.hub import read_config, where
from drivetrain.models.vlm import KINDS

CLIP_LARGE_336 = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
GIT_LARGE_VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
}
CLIP_LARGE_TEXT = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
LLAMA_7B = {"model_type": "llama", "vocab_size": 32064, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}


def qwen2(
    width: int, inner: int, layers: int, heads: int, groups: int, rows: int = 151936, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": "qwen2",
        "vocab_size": rows,
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "max_position_embeddings": 131072,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0},
        "tie_word_embeddings": True,
        **more,
    }


PUBLISHED: dict[str, dict[str, Any]] = {
    "microsoft/git-base": {"model_type": "git"},  # transformers' own defaults are this model's
    "microsoft/git-large": {"model_type": "git", "vision_config": GIT_LARGE_VISION},
    "llava-hf/llava-1.5-7b-hf": {"model_type": "llava", "vision_config": CLIP_LARGE_336, "text_config": LLAMA_7B},
    "google/siglip-base-patch16-224": {"model_type": "siglip"},  # as with git-base
    "openai/clip-vit-large-patch14-336": {
        "model_type": "clip",
        "projection_dim": 768,
        "vision_config": CLIP_LARGE_336,
        "text_config": CLIP_LARGE_TEXT,
    },
    "Qwen/Qwen2-0.5B": qwen2(896, 4864, 24, 14, 2),
    "Qwen/Qwen2-1.5B": qwen2(1536, 8960, 28, 12, 2),
    "Qwen/Qwen2-7B": qwen2(3584, 18944, 28, 28, 4, 152064, tie_word_embeddings=False),
}


def config_of(name: str) -> Any:
    """The configuration of a model of the table, of the catalog, of a folder, or of a hub id that can be reached."""
    try:
        from transformers import AutoConfig
    except ImportError:
        raise MissingExtra("transformers", "vlm", f"the backbone {name}") from None
    said = PUBLISHED.get(name.removesuffix("-Instruct"))
    return AutoConfig.for_model(**said) if said else read_config(where(name))


def empty(config: Any) -> Any:
    """A model of this configuration without memory for its weights."""
    import transformers

    with torch.device("meta"):
        if config.model_type in KINDS:
            return getattr(transformers, KINDS[config.model_type])(config)
        auto = "AutoModel" if hasattr(config, "vision_config") else "AutoModelForCausalLM"
        return getattr(transformers, auto).from_config(config)
