"""Small models of the real architectures, as folders in the hub's layout.

What only the published weights could bring is missing: knowledge. Classes, configurations, files, shards and kinds of
tokenizer are those of microsoft/git-base, llava-hf/llava-1.5-7b-hf, google/siglip-base, openai/clip-vit and Qwen/Qwen2.
"""

import json
import shutil

import tokenizers as tk
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2Tokenizer,
    SiglipConfig,
    SiglipModel,
    SiglipVisionModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from drivetrain.models.hub import quiet

TEXT = (
    "what should the vehicle do turn left right slow down keep straight how many degrees is pole cart road bends a in"
)
WORDS = TEXT.split()
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SHARD = 40_000  # bytes: so small that every model here is cut into several files
IMAGE, PATCH = 32, 8


def vision(**more):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return {**sizes, "image_size": IMAGE, "patch_size": PATCH, **more}


def words(**more):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return {**sizes, "num_key_value_heads": 2, "max_position_embeddings": 256, **more}


def lively(model, seed=0):
    """Weights so large that logits differ: freshly made ones give every token nearly the same chance."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.25, generator=generator)
            else:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.tie_weights()
    return model.eval()


def clip_pixels():
    """openai/clip-vit and git-base: the shortest edge resized, the middle cut out."""
    return CLIPImageProcessorPil(size={"shortest_edge": IMAGE}, crop_size={"height": IMAGE, "width": IMAGE})


def siglip_pixels():
    return SiglipImageProcessorPil(size={"height": IMAGE, "width": IMAGE})


def bert_tokenizer(folder):
    """A WordPiece vocabulary as bert-base-uncased has it."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"0123456789?.,-'", *LETTERS]
    pieces += [f"##{c}" for c in [*LETTERS, *"0123456789"]] + [word for word in WORDS if len(word) > 1]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    return BertTokenizer.from_pretrained(folder)


def llama_tokenizer(folder, *, image=False, old=False):
    """Byte pairs over text whose spaces are ▁, with bytes to fall back on; `old` has the ▁ before every stretch of text."""
    made = tk.Tokenizer(tk.models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    made.pre_tokenizer = tk.pre_tokenizers.Metaspace(prepend_scheme="always")
    trained = ["<unk>", "<s>", "</s>", *[f"<0x{i:02X}>" for i in range(256)]]
    trainer = tk.trainers.BpeTrainer(
        vocab_size=420, special_tokens=trained, initial_alphabet=[*LETTERS], show_progress=False
    )
    made.train_from_iterator([f"{a} {b}" for a in WORDS for b in WORDS], trainer)
    if old:
        made.normalizer = tk.normalizers.Sequence([tk.normalizers.Prepend("▁"), tk.normalizers.Replace(" ", "▁")])
        made.pre_tokenizer = None
    else:
        made.pre_tokenizer = tk.pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.decoder = tk.decoders.Sequence(
        [tk.decoders.Replace("▁", " "), tk.decoders.ByteFallback(), tk.decoders.Fuse(), tk.decoders.Strip(" ", 1, 0)]
    )
    made.add_special_tokens(["<unk>", "<s>", "</s>", *(["<image>", "<pad>"] if image else [])])
    made.post_processor = tk.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    said = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "legacy": old, "add_bos_token": True}
    said |= {"tokenizer_class": "LlamaTokenizer", **({"pad_token": "<pad>"} if image else {})}
    (folder / "tokenizer_config.json").write_text(json.dumps(said))
    return AutoTokenizer.from_pretrained(folder)


def qwen_tokenizer(folder):
    """Byte pairs over bytes, with ChatML's marks; no token begins a text."""
    made = tk.Tokenizer(tk.models.BPE())
    made.pre_tokenizer = tk.pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(tk.pre_tokenizers.ByteLevel.alphabet())
    trainer = tk.trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator([f"{a} {b}" for a in WORDS for b in WORDS], trainer)
    learned = json.loads(made.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=learned["vocab"],
        merges=[tuple(pair) for pair in learned["merges"]],
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def save(folder, model, processor=None):
    with quiet():
        model.save_pretrained(folder, max_shard_size=SHARD)
        if processor is not None:
            processor.save_pretrained(folder)
    assert (folder / "model.safetensors.index.json").exists()
    return folder


def tensors(folder):
    """All that its files hold, by name."""
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    return found


def rewritten(folder, to, change):
    """A copy whose weights are `change(weights)`, in one file."""
    shutil.copytree(folder, to)
    for file in to.glob("model*"):
        file.unlink()
    save_file(change(tensors(folder)), to / "model.safetensors", metadata={"format": "pt"})
    return to


def git(folder, *, frames=None, **more):
    """microsoft/git-base; with `frames` microsoft/git-base-vatex."""
    tokenizer = bert_tokenizer(folder / "words")
    config = GitConfig(
        vision_config=vision(),
        **words(vocab_size=len(tokenizer), num_key_value_heads=None),
        num_image_with_embedding=frames,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        **more,
    )
    return save(folder, lively(GitForCausalLM(config)), GitProcessor(clip_pixels(), tokenizer))


def llava(folder, *, old=True):
    """llava-hf/llava-1.5-7b-hf."""
    tokenizer = llama_tokenizer(folder / "words", image=True, old=old)
    rows = len(tokenizer) + 7  # the published one has rows to spare, too
    config = LlavaConfig(
        vision_config={"model_type": "clip_vision_model", **vision(projection_dim=16)},
        text_config={"model_type": "llama", **words(vocab_size=rows, num_key_value_heads=4)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(IMAGE // PATCH) ** 2,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
    )
    processor = LlavaProcessor(
        clip_pixels(),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return save(folder, lively(LlavaForConditionalGeneration(config)), processor)


def siglip(folder, *, towers=2):
    text = words(vocab_size=50, projection_size=32, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    config = SiglipConfig(vision_config=vision(), text_config=text)
    model = SiglipModel(config) if towers == 2 else SiglipVisionModel(config.vision_config)
    save(folder, lively(model, 1))
    siglip_pixels().save_pretrained(folder)
    return folder


def clip(folder):
    text = words(vocab_size=50, bos_token_id=1, eos_token_id=2, pad_token_id=0)
    config = CLIPConfig(vision_config=vision(), text_config=text, projection_dim=16)
    save(folder, lively(CLIPModel(config), 2))
    clip_pixels().save_pretrained(folder)
    return folder


def qwen(folder, *, spare=0, **more):
    """Qwen/Qwen2-1.5B; with `spare` rows in its table of embeddings, as the published ones have."""
    tokenizer = qwen_tokenizer(folder)
    config = Qwen2Config(
        **words(vocab_size=len(tokenizer) + spare, tie_word_embeddings=True),
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.eos_token_id,
        **more,
    )
    return save(folder, lively(Qwen2ForCausalLM(config), 3))


def llama(folder):
    """A Llama with neither `<image>` nor a token to pad with."""
    tokenizer = llama_tokenizer(folder)
    config = LlamaConfig(**words(vocab_size=len(tokenizer)), bos_token_id=1, eos_token_id=2)
    return save(folder, lively(LlamaForCausalLM(config), 4))
