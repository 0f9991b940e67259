"""Several processes that train one model, through accelerate; alone, all of this does nothing.

torchrun --nproc-per-node 2 -m drivetrain train instruct ...                             a copy of the model each
accelerate launch --config_file scripts/fsdp.yaml -m drivetrain train instruct ...       a share of the model each
"""

from __future__ import annotations

import atexit
import contextlib
import os
from typing import Any

import torch
from torch import Tensor

from drivetrain.errors import MissingExtra
from drivetrain.run import processes


def place(device: str) -> str:
    """The device of this process."""
    local = os.environ.get("LOCAL_RANK")
    return f"{device}:{local}" if device == "cuda" and local is not None else device


def spread(objective: Any, optimizer: torch.optim.Optimizer) -> tuple[Any, torch.optim.Optimizer]:
    """The same, ready to work with the other processes."""
    if processes()[1] == 1:
        return objective, optimizer
    try:
        from accelerate import Accelerator
        from accelerate.utils import DistributedDataParallelKwargs
    except ImportError:
        raise MissingExtra("accelerate", "vlm", "training on several devices") from None
    vlm = objective.vlm
    # A tower's last layers may have no part in the loss: LLaVA reads the last but one.
    sees = any(p.requires_grad for module in vlm.part("vision") for p in module.parameters())
    how = DistributedDataParallelKwargs(find_unused_parameters=sees)
    team = Accelerator(cpu=vlm.device.type == "cpu", kwargs_handlers=[how])
    atexit.register(leave)
    objective, wrapped = team.prepare(objective, optimizer)
    return objective, wrapped.optimizer


def leave() -> None:
    """A process that ends while the group's threads still wait may abort."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def apart(objective: Any, alone: bool) -> Any:
    """While `alone`, gradients of copies are gathered without telling the other processes."""
    return objective.no_sync() if alone and hasattr(objective, "no_sync") else contextlib.nullcontext()


def total(value: Tensor, device: torch.device) -> Tensor:
    """The sum over processes."""
    if processes()[1] == 1:
        return value
    summed = value.detach().to(device, copy=True)
    torch.distributed.all_reduce(summed)
    return summed


def sharded(tensor: Any) -> bool:
    return hasattr(tensor, "full_tensor")


def whole(state: Any) -> Any:
    """With every tensor that is spread over processes put together; all processes must ask."""
    return torch.utils._pytree.tree_map(lambda leaf: leaf.full_tensor() if sharded(leaf) else leaf, state)


def share(value: Any, like: Tensor) -> Any:
    """Of a whole tensor what this process keeps, where `like` is spread."""
    if not sharded(like) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)  # type: ignore[attr-defined]
