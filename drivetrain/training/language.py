"""What the trainings of vision-language models share: rows, batches, a gradient step, and the loop over a data set.

Rows are conversations about pictures (`Talk`). A batch is a function of step and seed, and holds rows of like length. Where
torchrun or accelerate started several processes, each computes its share of every batch, and the step is the same.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from drivetrain.data.episodes import drawn
from drivetrain.errors import BadConfig
from drivetrain.models.chat import IGNORED, Ids, tokenise
from drivetrain.models.vlm import VLM, Batch
from drivetrain.run import Run, processes
from drivetrain.training import together

GROUP = 16  # batches among which rows are sorted by length
LOOKED_AT = 200  # held-out rows, at most, that a look at the loss takes


@dataclass(frozen=True)
class Talk:
    """A conversation about one picture, or about none; with what an evaluation wants to know of it."""

    turns: tuple[tuple[str, str], ...]
    picture: np.ndarray | None
    kind: str = ""
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Schedule:
    """How the weights are moved."""

    lr: float = 1e-3  # learning rate, after a warm-up and before a cosine fall
    warmup: float = 0.03  # share of the run over which the learning rate rises
    floor: float = 0.0  # share of the learning rate that is left at the end
    weight_decay: float = 0.01
    beta2: float = 0.98  # of AdamW
    max_grad_norm: float = 1.0  # gradients are scaled down to this
    bf16: bool = False  # compute in bfloat16, keep the weights in float32
    checkpointing: bool = False  # compute activations anew in the backward pass, to save memory


@dataclass(frozen=True)
class Rows:
    """How any model learns from the rows of a data set."""

    steps: int = 1_000  # gradient steps
    batch_size: int = 32  # rows for each, over all processes together
    accumulate: int = 1  # portions in which a process takes its rows, to save memory; the step stays the same
    blind: bool = False  # learn from pictures that belong to other rows: what can be known without seeing
    dtype: str = "float32"  # of the weights: float32, bfloat16 or float16
    device: str = "cpu"  # cpu or cuda
    held_out: float = 0.1  # share of the rows to judge by, where the set has no split of its own
    questions: int = 1_000  # held-out rows in the examination at the end, at most
    check_every: int = 100  # steps between looks at the held-out loss
    schedule: Schedule = field(default_factory=Schedule)
    seed: int = 0

    @property
    def portion(self) -> int:
        """Rows that go through the model at once."""
        shares = processes()[1] * self.accumulate
        if self.batch_size % shares:
            raise BadConfig(
                f"BadConfig: --batch-size {self.batch_size} does not divide among {processes()[1]} processes "
                f"times --accumulate {self.accumulate}; give a multiple of {shares}"
            )
        return self.batch_size // shares


def batches(data: Sequence[Any], size: int, seed: int, at: int, length: Callable[[int], int]) -> np.ndarray:
    """The rows of batch `at`: of GROUP batches together, those of like length, in an order of their own."""
    group, place = divmod(at, GROUP)
    rows = drawn(len(data), size * GROUP, at=group, seed=seed)
    by_length = rows[np.argsort([length(int(row)) for row in rows], kind="stable")]
    order = np.random.default_rng((seed, group)).permutation(GROUP)
    return by_length.reshape(GROUP, size)[order[place]]


def collate(vlm: VLM, talks: Sequence[Talk]) -> Batch:
    pictures = [talk.picture for talk in talks if talk.picture is not None]
    rows: list[Ids] = [tokenise(vlm.style, talk.turns, int(talk.picture is not None)) for talk in talks]
    if not vlm.style.pictures_in_text and len(pictures) < len(talks):
        raise BadConfig(
            f"BadConfig: {vlm.name} cannot learn from rows without a picture; leave them out, or use a LLaVA"
        )
    return vlm.collate(rows, vlm.pixels(pictures) if pictures else None)


class Objective(nn.Module):
    """What is minimised, as a module that can be spread over devices."""

    def __init__(self, vlm: VLM, bf16: bool):
        super().__init__()
        self.vlm, self.bf16 = vlm, bf16

    def forward(self, batch: Batch) -> Tensor:
        """The negative log-likelihood [N] of every token that is an answer's."""
        kind = self.vlm.device.type
        with torch.autocast(kind, torch.bfloat16) if self.bf16 else contextlib.nullcontext():
            return self.vlm.losses(batch)


class Learner:
    """The weights that learn, in AdamW's hands."""

    def __init__(self, vlm: VLM, schedule: Schedule, steps: int, slow: Sequence[Tensor] = (), share: float = 1.0):
        """Of `slow` ones the learning rate is that `share`."""
        self.vlm, self.schedule, self.steps = vlm, schedule, steps
        if schedule.checkpointing:
            vlm.spare_memory()
        late = {id(p) for p in slow}
        deep, flat = (
            [p for p in self.parameters if (p.dim() >= 2) == wide and id(p) not in late] for wide in (True, False)
        )
        kinds = ((deep, schedule.weight_decay, 1.0), (flat, 0.0, 1.0), (list(slow), schedule.weight_decay, share))
        groups = [{"params": params, "weight_decay": decay, "share": part} for params, decay, part in kinds if params]
        optimizer = torch.optim.AdamW(
            groups, lr=schedule.lr, betas=(0.9, schedule.beta2), fused=vlm.device.type in ("cpu", "cuda")
        )
        self.objective, self.optimizer = together.spread(Objective(vlm, schedule.bf16), optimizer)

    @property
    def named(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.vlm.model.named_parameters() if p.requires_grad}

    @property
    def parameters(self) -> list[nn.Parameter]:
        return list(self.named.values())

    def step(self, step: int, portions: Sequence[Batch]) -> tuple[Tensor, Tensor]:
        """One gradient step along the mean over the answer tokens of all portions, those of other processes too: that mean,
        and the negative log-likelihood of each token of this process."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.lr * rate(step, self.steps, self.schedule) * group.get("share", 1.0)
        self.optimizer.zero_grad()
        count = together.total(torch.stack([answered(batch) for batch in portions]).sum(), self.vlm.device)
        each = []
        for i, batch in enumerate(portions):
            with together.apart(self.objective, i < len(portions) - 1):
                found = self.objective(batch)
                (found.sum() * (processes()[1] / count)).backward()  # gradients are averaged over processes
                each.append(found.detach())
        nn.utils.clip_grad_norm_(self.parameters, self.schedule.max_grad_norm)
        self.optimizer.step()
        losses = torch.cat(each)
        return together.total(losses.sum(), self.vlm.device) / count, losses

    @torch.no_grad()
    def held_out_loss(self, talks: Sequence[Talk], size: int) -> float:
        """The mean over all answer tokens; each process looks at its share."""
        rank, count = processes()
        self.vlm.eval()
        found = [torch.zeros(2, device=self.vlm.device)]
        for start in range(rank * size, math.ceil(len(talks) / (size * count)) * size * count, size * count):
            losses = self.objective(collate(self.vlm, talks[start : start + size] or talks[:1]))
            found.append(torch.stack([losses.sum(), losses.new_tensor(len(losses))]) * (start < len(talks)))
        self.vlm.train()
        summed, tokens = together.total(torch.stack(found).sum(0), self.vlm.device)
        return float(summed / tokens)

    def state_dict(self) -> dict[str, Any]:
        """What learns, and the optimizer; all else comes from where the model came from."""
        weights = {name: p.detach() for name, p in self.named.items()}
        return together.whole({"weights": weights, "optimizer": self.optimizer.state_dict()})

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, p in self.named.items():
            p.copy_(together.share(state["weights"][name], p))
        order = [p for group in self.optimizer.param_groups for p in group["params"]]
        moments = state["optimizer"]["state"]
        shared = {i: {k: together.share(v, order[int(i)]) for k, v in of.items()} for i, of in moments.items()}
        self.optimizer.load_state_dict({**state["optimizer"], "state": shared})


def answered(batch: Batch) -> Tensor:
    """How many tokens are an answer's."""
    return (batch["labels"][:, 1:] != IGNORED).sum()


def rate(step: int, steps: int, schedule: Schedule) -> float:
    """Up along a line, then down along a cosine."""
    rising = max(schedule.warmup * steps, 1.0)
    if step < rising:
        return (step + 1) / (rising + 1)
    done = (step - rising) / max(steps - rising, 1)
    return schedule.floor + (1 - schedule.floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def fit(config: Rows, run: Run, vlm: VLM, learn: Any, held_out: Sequence[Talk], **parts: Any) -> Learner:
    """Learn from the rows of `learn`, and look at the loss of those held out now and then."""
    learner = Learner(vlm, config.schedule, config.steps)
    rank, count = processes()
    looked_at = held_out[:LOOKED_AT]
    for step in run.steps(config.steps, learner=learner, **parts):
        if step % config.check_every == 0:
            run.log(step, {"held_out/loss": learner.held_out_loss(looked_at, config.portion)})
        rows = batches(learn, config.batch_size, config.seed, step, learn.length)[rank::count]
        talks = [learn[int(row)] for row in rows]
        portions = [collate(vlm, talks[i : i + config.portion]) for i in range(0, len(talks), config.portion)]
        loss, _ = learner.step(step, portions)
        run.log(step, {"loss": loss})
    return learner


def without_sight(talks: list[Talk], by: int) -> list[Talk]:
    """The same talks, each with the picture of one `by` places on."""
    return [replace(talk, picture=talks[(i + by) % len(talks)].picture) for i, talk in enumerate(talks)]
