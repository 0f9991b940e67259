"""A new vision-language model of a known architecture, of any size, with a tokenizer made from the words it is to know.

    vlm = fresh_vlm("llava", Shape(), words)      CLIP tower, projector, Llama
    vlm = fresh_vlm("git", Shape(), words)        GIT

What comes out is what transformers opens: the same classes, processors and files as the published models have.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import nn

from drivetrain.errors import UnknownName
from drivetrain.models.chat import template
from drivetrain.models.vlm import VLM

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
CALLS = ("USER: ", " ASSISTANT:")  # of a LLaVA's conversations


class Colours(NamedTuple):
    """What pictures are normalised by, each channel of them, where 1 is full."""

    mean: tuple[float, ...]
    deviation: tuple[float, ...]


OF_CLIP = Colours((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclass(frozen=True)
class Shape:
    """How large a new model is."""

    width: int = 128  # of tower and language model
    heads: int = 4
    vision_layers: int = 3
    language_layers: int = 2
    picture: int = 144  # pixels a side
    patch: int = 24  # pixels a side
    vocabulary: int = 1024  # tokens at most
    context: int = 512  # tokens of a conversation at most


def fresh_vlm(architecture: str, shape: Shape, words: Iterable[str], colours: Colours = OF_CLIP) -> VLM:
    builders = {"git": new_git, "llava": new_llava}
    if architecture not in builders:
        raise UnknownName("architecture", architecture, builders)
    spoken = [*words, *(CALLS if architecture == "llava" else ())]
    vlm = builders[architecture](shape, new_tokenizer(spoken, shape.vocabulary), new_pixels(shape, colours))
    open_eyes(vlm)
    for module in vlm.part("projector"):
        for layer in module.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
    return vlm


def open_eyes(vlm: VLM) -> None:
    """Let a patch's place weigh as much as what is in it.

    With the published initialisation a patch of white ground has a hundred times the size of its position, and a small tower
    never finds out where anything is.
    """
    layer: Any
    for module in vlm.part("vision"):
        for layer in module.modules():
            if hasattr(layer, "patch_embedding") and hasattr(layer, "position_embedding"):
                inputs = layer.patch_embedding.weight[0].numel()
                nn.init.normal_(layer.patch_embedding.weight, std=0.5 * inputs**-0.5)
                nn.init.normal_(layer.position_embedding.weight, std=0.5)


def new_tokenizer(words: Iterable[str], vocabulary: int) -> Any:
    """Byte pairs learned from these texts; every digit is a token of its own, and any text can be written."""
    import tokenizers as tk
    from transformers import PreTrainedTokenizerFast

    made = tk.Tokenizer(tk.models.BPE())
    digits, spaces = (
        tk.pre_tokenizers.Digits(individual_digits=True),
        tk.pre_tokenizers.ByteLevel(add_prefix_space=False),
    )
    made.pre_tokenizer = tk.pre_tokenizers.Sequence([digits, spaces])
    made.decoder = tk.decoders.ByteLevel()
    trainer = tk.trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(tk.pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(sorted(set(words)), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        model_input_names=["input_ids", "attention_mask"],
    )


def new_pixels(shape: Shape, colours: Colours) -> Any:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    side = {"height": shape.picture, "width": shape.picture}
    mean, deviation = (list(values) for values in colours)
    return CLIPImageProcessorPil(size=side, do_center_crop=False, crop_size=side, image_mean=mean, image_std=deviation)


def vision(shape: Shape) -> dict[str, Any]:
    return {
        "hidden_size": shape.width,
        "intermediate_size": 4 * shape.width,
        "num_hidden_layers": shape.vision_layers,
        "num_attention_heads": shape.heads,
        "image_size": shape.picture,
        "patch_size": shape.patch,
        "projection_dim": shape.width,
    }


def ends(tokenizer: Any) -> dict[str, Any]:
    return {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }


def new_llava(shape: Shape, tokenizer: Any, pixels: Any) -> VLM:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    words = LlamaConfig(
        hidden_size=shape.width,
        intermediate_size=4 * shape.width,
        num_hidden_layers=shape.language_layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        vocab_size=len(tokenizer),
        initializer_range=shape.width**-0.5,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        **ends(tokenizer),
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision(shape)),
        text_config=words,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,  # all of the tower learns; the published models leave out its last layer
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
        **ends(tokenizer),
    )
    processor = LlavaProcessor(
        pixels,
        tokenizer,
        patch_size=shape.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template(tokenizer),
    )
    return VLM(LlavaForConditionalGeneration(config), processor, "llava")


def new_git(shape: Shape, tokenizer: Any, pixels: Any) -> VLM:
    from transformers import GitConfig, GitForCausalLM, GitProcessor

    config = GitConfig(
        vision_config=vision(shape),
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=4 * shape.width,
        num_hidden_layers=shape.language_layers,
        num_attention_heads=shape.heads,
        initializer_range=shape.width**-0.5,
        max_position_embeddings=shape.context,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        tie_word_embeddings=True,
        **ends(tokenizer),
    )
    return VLM(GitForCausalLM(config), GitProcessor(pixels, tokenizer), "git")
