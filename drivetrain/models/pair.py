"""A vision tower and a language model of different houses, joined by a new projector: a LLaVA that is still to be aligned.

    vlm = join("google/siglip-base-patch16-224", "Qwen/Qwen2-1.5B", dtype="bfloat16")
    vlm.save("runs/siglip-qwen")              from now on a LLaVA like any other

Each is a hub id or a folder. Tower and language model keep their weights to the bit; new are the projector, drawn from
torch's random stream, and a row of the embeddings for `<image>` where there is none to spare. As in LLaVA-1.5 (Liu et al.
2023) pictures are read from the tower's last layer but one; CLIP's class token is left out, and SigLIP has none. SigLIP's
pooling head is not taken over: nothing would read it.
"""

from __future__ import annotations

from typing import Any

import torch

from drivetrain.errors import BadConfig, MissingExtra
from drivetrain.models.chat import IMAGE, end_of_turn, template
from drivetrain.models.hub import companion, read_config, weights
from drivetrain.models.vlm import VLM

STRATEGIES: dict[str, Any] = {
    "clip_vision_model": "default",
    "siglip_vision_model": "full",
}  # whether a class token is left out
ROWS = 64  # a table of embeddings that grows becomes a multiple of it, which matrix units like


def join(vision_model: str, llm_model: str, *, dtype: str = "float32", device: str = "cpu") -> VLM:
    name = f"{vision_model}+{llm_model}"
    try:
        from transformers import AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoTokenizer
    except ImportError:
        raise MissingExtra("transformers", "vlm", f"the backbone {name}") from None
    seen = tower_of(read_config(vision_model), vision_model)
    tower = weights(AutoModel, vision_model, dtype, part=True, config=seen)
    words = weights(AutoModelForCausalLM, llm_model, dtype)
    refuse_strange(words, llm_model)
    tokenizer = companion(AutoTokenizer, llm_model)
    make_room(words, tokenizer)
    model = assemble(tower, words, joined_config(tower.config, words.config, tokenizer))
    processor = new_processor(companion(AutoImageProcessor, vision_model), tokenizer, model.config)
    return VLM(model.to(device), processor, name).eval()


def tower_of(config: Any, name: str) -> Any:
    """The configuration of the vision tower alone, whether it comes by itself or beside a text tower."""
    config = getattr(config, "vision_config", config)
    if config.model_type not in STRATEGIES:
        raise BadConfig(
            f"BadConfig: {name} is a {config.model_type}; a --vision-model is one of {', '.join(STRATEGIES)}"
        )
    if config.model_type == "siglip_vision_model":
        config.vision_use_head = False
    return config


def refuse_strange(words: Any, name: str) -> None:
    if not hasattr(getattr(words, "model", None), "layers") or not hasattr(words, "lm_head"):
        raise BadConfig(
            f"BadConfig: {name} is a {words.config.model_type}; a --llm-model is one built like Llama or Qwen2"
        )


def make_room(words: Any, tokenizer: Any) -> None:
    """`<image>` among the words, something to pad with, and a row of the embeddings for each."""
    from transformers import AddedToken

    def add(token: str) -> None:
        tokenizer.add_tokens([AddedToken(token, special=True, normalized=False)], special_tokens=True)

    if IMAGE not in tokenizer.get_vocab():
        add(IMAGE)
    if tokenizer.pad_token is None:
        add("<pad>")
        tokenizer.pad_token = "<pad>"
    had, wanted = words.get_input_embeddings().weight.shape[0], max(tokenizer.get_vocab().values()) + 1
    if wanted > had:
        words.resize_token_embeddings(wanted, pad_to_multiple_of=ROWS, mean_resizing=False)
        with torch.no_grad():
            for table in (words.get_input_embeddings().weight, words.get_output_embeddings().weight):
                table[had:] = table[:had].mean(0)  # never the likeliest, before it is learned


def joined_config(vision_config: Any, text_config: Any, tokenizer: Any = None) -> Any:
    """LLaVA's, of two configurations; without a tokenizer as good for counting and for nothing else."""
    from transformers import LlavaConfig

    ends = {}
    if tokenizer is not None:
        ends = {
            "image_token_index": tokenizer.get_vocab()[IMAGE],
            "pad_token_id": tokenizer.pad_token_id,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": end_of_turn(tokenizer),
        }
    return LlavaConfig(
        vision_config=vision_config,
        text_config=text_config,
        image_seq_length=(vision_config.image_size // vision_config.patch_size) ** 2,
        vision_feature_layer=-2,
        vision_feature_select_strategy=STRATEGIES[vision_config.model_type],
        tie_word_embeddings=text_config.tie_word_embeddings,
        **ends,
    )


def assemble(tower: Any, words: Any, config: Any) -> Any:
    """The two as they are inside a LLaVA, whose own copies of them never have memory."""
    from transformers import LlavaForConditionalGeneration

    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    model.model.vision_tower, model.model.language_model, model.lm_head = tower, words.model, words.lm_head
    model.model.multi_modal_projector = type(model.model.multi_modal_projector)(config).to(words.dtype)
    return model


def new_processor(pixels: Any, tokenizer: Any, config: Any) -> Any:
    from transformers import LlavaProcessor

    strategy = config.vision_feature_select_strategy
    return LlavaProcessor(
        pixels,
        tokenizer,
        patch_size=config.vision_config.patch_size,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=int(strategy == "default"),
        chat_template=template(tokenizer),
    )
