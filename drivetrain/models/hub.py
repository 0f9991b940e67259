"""Opening what lies in the hub's layout: a folder, or a hub id that this machine can reach.

    model = weights(LlavaForConditionalGeneration, "path/or/id", "bfloat16")      every weight from the files, or an error
    processor = companion(AutoProcessor, "path/or/id")

transformers fills weights that a folder lacks by chance and says so in a log line; here that is an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from drivetrain import catalog
from drivetrain.errors import BadCheckpoint, BadConfig


def where(backbone: str) -> str:
    """The folder of a name of the catalog, or of a run's model; anything else is a folder or a hub id already."""
    if backbone in catalog.BACKBONES:
        return str(Path(__file__).resolve().parent.parent / "backbones" / catalog.BACKBONES[backbone].target)
    run = Path(backbone)
    return str(run / "model") if (run / "model").is_dir() and (run / "metrics.jsonl").is_file() else backbone


def weights(kind: Any, path: str, dtype: str, *, part: bool = False, config: Any = None) -> Any:
    """A transformers model that is in the files to the last weight, and they in it; of files with more, `part`."""
    from safetensors import SafetensorError

    given = {} if config is None else {"config": config}
    with quiet():
        try:
            model, found = kind.from_pretrained(
                path, dtype=as_dtype(dtype), output_loading_info=True, ignore_mismatched_sizes=True, **given
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise BadCheckpoint(f"BadCheckpoint: {path} cannot be opened: {first_line(error)}") from error
    wrong = {
        "lacks": sorted(found["missing_keys"]),
        "has in another shape": sorted(key for key, *_ in found["mismatched_keys"]),
        "has besides": [] if part else sorted(found["unexpected_keys"]),
    }
    if said := "; it ".join(f"{how} {shortened(keys)}" for how, keys in wrong.items() if keys):
        raise BadCheckpoint(
            f"BadCheckpoint: the weights in {path} are not those of its config.json: it {said}; fetch the folder anew"
        )
    return model


def shortened(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def companion(kind: Any, path: str) -> Any:
    """A processor or tokenizer of a folder or hub id."""
    with quiet():
        try:
            return kind.from_pretrained(path)
        except (OSError, ValueError) as error:
            raise BadCheckpoint(f"BadCheckpoint: {path} has no {kind.__name__}: {first_line(error)}") from error


def read_config(path: str) -> Any:
    """The configuration of a folder or hub id, weights untouched."""
    from transformers import AutoConfig

    with quiet():
        try:
            return AutoConfig.from_pretrained(path)
        except (OSError, ValueError) as error:
            known = ", ".join(catalog.BACKBONES)
            raise BadCheckpoint(
                f"BadCheckpoint: there is no backbone {path!r}: {first_line(error)}; "
                f"give {known}, a folder in the hub's layout, or a hub id that this machine can reach"
            ) from error


def as_dtype(name: str) -> torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise BadConfig(f"BadConfig: dtype must be one of {', '.join(known)}, got {name!r}")
    return known[name]


def first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' progress bars, its notes about image processors, and its retries without a network."""
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging

    before, of_hub, bars = logging.get_verbosity(), hub.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    hub.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        hub.set_verbosity(of_hub)
        if bars:
            logging.enable_progress_bar()
