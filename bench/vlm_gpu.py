"""How fast are the true vision-language models on this GPU, and how much memory do they take?

    python bench/vlm_gpu.py                          writes bench/results/vlm_gpu.json, in some minutes
    python bench/vlm_gpu.py --models git-base        only these
    python bench/vlm_gpu.py --json                   the same, and prints it

The published configurations with random weights in bfloat16, which are as fast and as large as trained ones: a forward
pass over pictures, questions and answers; a training step of LoRA matrices of rank 16; and 32 tokens generated, pictures
and prompts included. Each is repeated, and the median counts, with the quickest and slowest beside it. Peak memory is
PyTorch's own count, beside what `drivetrain doctor --backbone` had foretold. Without a GPU there is nothing to measure:
exit status 2.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from drivetrain.models import memory
from drivetrain.models.fresh import new_tokenizer
from drivetrain.models.hub import quiet
from drivetrain.models.memory import Plan
from drivetrain.models.pair import new_processor
from drivetrain.models.vlm import KINDS, VLM

HERE = Path(__file__).resolve().parent
MODELS: dict[str, Plan] = {
    "git-base": Plan("microsoft/git-base", dtype="bfloat16", batch=32),
    "git-large": Plan("microsoft/git-large", dtype="bfloat16", batch=32),
    "siglip-base+qwen2-1.5b": Plan(
        vision_model="google/siglip-base-patch16-224", llm_model="Qwen/Qwen2-1.5B", dtype="bfloat16", batch=16
    ),
    "llava-1.5-7b": Plan("llava-hf/llava-1.5-7b-hf", dtype="bfloat16", batch=8),
}
QUESTION = "what should the vehicle do, and which way does the road bend ahead of it?"
ANSWER = "slow down and turn left by twelve degrees, because the road bends to the left behind the hill."
SPOKEN = 32  # tokens generated


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--json", action="store_true", help="print the whole report")
    parser.add_argument("--output", type=Path, default=HERE / "results" / "vlm_gpu.json")
    parser.add_argument("--shrunk-on-cpu", action="store_true", help=argparse.SUPPRESS)  # to test this script alone
    options = parser.parse_args(arguments)
    if not (torch.cuda.is_available() or options.shrunk_on_cpu):
        print("vlm_gpu measures a GPU, and there is none here; run it on a machine that has one", file=sys.stderr)
        return 2
    report = {
        "machine": machine(),
        "models": {name: measure(MODELS[name], options.rounds, options.shrunk_on_cpu) for name in options.models},
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1) if options.json else in_words(report))
    return 0


def machine() -> dict[str, str]:
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "cpu"
    packages = {name: version(name) for name in ("torch", "transformers", "peft")}
    return {"device": device, "date": time.strftime("%Y-%m-%d"), **packages}


def measure(plan: Plan, rounds: int, shrunk: bool) -> dict[str, Any]:
    with quiet():
        config = memory.planned_config(plan)
    if shrunk:
        config, plan = shrink(config), Plan(plan.backbone or "shrunk", dtype=plan.dtype, batch=2)
    vlm = build(config, "cpu" if shrunk else "cuda")
    side = config.vision_config.image_size
    pictures = np.random.default_rng(0).integers(0, 256, (plan.batch, side, side, 3), dtype=np.uint8)
    batch = vlm.inputs(pictures, QUESTION, [ANSWER] * plan.batch)
    asked = vlm.inputs(pictures, QUESTION)
    plan = Plan(**{**vars(plan), "text": text_tokens(vlm, batch)})
    found = {
        "parameters": sum(p.numel() for p in vlm.model.parameters()),
        "dtype": plan.dtype,
        "batch": plan.batch,
        "tokens_per_picture": vlm.per_picture,
        "text_tokens": plan.text,
        "forward": timed(lambda: forward(vlm, batch), rounds, plan.batch, plan.batch * seen(vlm, plan)),
        "generate": timed(lambda: vlm.generate_ids(asked, SPOKEN), rounds, plan.batch, plan.batch * SPOKEN),
    }
    vlm.add_lora(plan.lora_rank)
    found["lora_step"] = timed(lora_step(vlm, batch), rounds, plan.batch, plan.batch * seen(vlm, plan))
    found["foretold_gb"] = foretold(config, plan)
    return found


def seen(vlm: VLM, plan: Plan) -> int:
    """Tokens of a row, pictures included."""
    return vlm.per_picture + plan.text


def text_tokens(vlm: VLM, batch: dict[str, torch.Tensor]) -> int:
    places = batch["input_ids"].shape[1]
    return places - vlm.per_picture if vlm.style.pictures_in_text else places


def foretold(config: Any, plan: Plan) -> dict[str, float]:
    return {
        "generate": round(memory.prompt(config, plan).total / 1e9, 2),
        "lora_step": round(memory.step(config, plan, lora=True).total / 1e9, 2),
    }


def build(config: Any, device: str) -> VLM:
    """Random weights, and a small tokenizer: what the words are makes no difference to the clock."""
    import transformers
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    side = {"height": config.vision_config.image_size, "width": config.vision_config.image_size}
    pixels = CLIPImageProcessorPil(size=side, do_center_crop=False)
    tokenizer = new_tokenizer([QUESTION, ANSWER], 512)
    git = config.model_type == "git"
    processor = transformers.GitProcessor(pixels, tokenizer) if git else new_processor(pixels, tokenizer, config)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = getattr(transformers, KINDS[config.model_type])(config)
    finally:
        torch.set_default_dtype(before)
    return VLM(model, processor, "random").eval()


def shrink(config: Any) -> Any:
    """The same architecture at a size that a processor can bear."""
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    for part in (config.vision_config, config if config.model_type == "git" else config.text_config):
        for name, size in sizes.items():
            setattr(part, name, size)
    config.vision_config.image_size, config.vision_config.patch_size = 32, 8
    if config.model_type == "llava":
        config.text_config.num_key_value_heads, config.text_config.head_dim = 2, 8
        config.text_config.vocab_size, config.image_token_index, config.image_seq_length = 600, 599, 16
        config.text_config.layer_types = None
    return type(config).from_dict(config.to_dict())


@torch.no_grad()
def forward(vlm: VLM, batch: dict[str, torch.Tensor]) -> None:
    vlm.loss(batch)


def lora_step(vlm: VLM, batch: dict[str, torch.Tensor]) -> Callable[[], None]:
    vlm.train()
    learning = [p for p in vlm.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        vlm.loss(batch).backward()
        optimizer.step()

    return step


def timed(work: Callable[[], Any], rounds: int, images: int, tokens: int) -> dict[str, Any]:
    """The first two are for compilers and allocators."""
    cuda = torch.cuda.is_available()
    gc.collect()
    if cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(rounds + 2):
        finish()
        began = time.perf_counter()
        work()
        finish()
        seconds.append(time.perf_counter() - began)
    seconds = seconds[2:]
    middle = statistics.median(seconds)
    return {
        "seconds": {"median": middle, "least": min(seconds), "most": max(seconds), "rounds": rounds},
        "images_per_s": images / middle,
        "tokens_per_s": tokens / middle,
        "peak_gb": round(torch.cuda.max_memory_allocated() / 1e9, 2) if cuda else None,
    }


def finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def in_words(report: dict[str, Any]) -> str:
    lines = [f"{report['machine']['device']}, torch {report['machine']['torch']}, bfloat16, random weights", ""]
    for name, found in report["models"].items():
        lines.append(f"{name}: {found['parameters']:,} parameters, {found['batch']} pictures at once")
        for what in ("forward", "lora_step", "generate"):
            one = found[what]
            told = found["foretold_gb"].get(what)
            beside = f" (foretold {told})" if told else ""
            lines.append(
                f"  {what:<10}{one['images_per_s']:>9.1f} images/s {one['tokens_per_s']:>11.0f} tokens/s   "
                f"{one['peak_gb']} GB{beside}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
