"""Run by two processes: one model, each with a share of it. Says whether steps, saving and loading are those of a whole one."""

import os
import sys

import numpy as np
import torch
from torch.distributed.fsdp import fully_shard

from drivetrain.models.fresh import Shape, fresh_vlm
from drivetrain.models.vlm import PARTS
from drivetrain.training import together
from drivetrain.training.language import Learner, Schedule, Talk, collate

SMALL = Shape(width=32, heads=2, vision_layers=1, language_layers=1, picture=48, patch=24)
PICTURES = np.random.default_rng(0).integers(0, 256, (4, 60, 80, 3), dtype=np.uint8)
TALKS = [Talk((("Which way?", word),), picture) for word, picture in zip(("left", "right") * 2, PICTURES, strict=True)]


def new():
    torch.manual_seed(0)
    vlm = fresh_vlm("llava", SMALL, ["Which way?", "left", "right"])
    vlm.train_parts(*PARTS[1:])
    return vlm.train()


def shard(objective, optimizer):
    """What accelerate does where its config says FSDP, which it does on accelerators alone."""
    groups = optimizer.param_groups
    places = {id(p): name for name, p in objective.named_parameters()}
    for layer in objective.vlm.core.model.language_model.layers:
        fully_shard(layer)
    fully_shard(objective)
    now = dict(objective.named_parameters())
    for group in groups:
        group["params"] = [now[places[id(p)]] for p in group["params"]]
    return objective, optimizer


def main():
    rank = int(os.environ["RANK"])
    torch.distributed.init_process_group("gloo")
    together.spread = shard
    learner, again = (Learner(new(), Schedule(warmup=0), 10) for _ in range(2))
    assert all(map(together.sharded, learner.parameters))
    for step in range(2):
        loss, _ = learner.step(step, [collate(learner.vlm, TALKS[rank::2])])
    held_out = learner.held_out_loss(TALKS, 1)
    state = learner.state_dict()
    again.load_state_dict(state)
    loaded = again.held_out_loss(TALKS, 1)
    os.environ["WORLD_SIZE"], os.environ["RANK"] = "1", "0"
    together.spread = lambda objective, optimizer: (objective, optimizer)
    alone = Learner(new(), Schedule(warmup=0), 10)
    for step in range(2):
        expected, _ = alone.step(step, [collate(alone.vlm, TALKS)])
    wanted = alone.state_dict()
    assert abs(float(loss) - float(expected)) < 1e-5, (float(loss), float(expected))
    assert abs(held_out - alone.held_out_loss(TALKS, 1)) < 1e-5
    assert loaded == held_out
    for name, value in wanted["weights"].items():
        torch.testing.assert_close(state["weights"][name], value, rtol=1e-4, atol=1e-6)
    for i, moments in wanted["optimizer"]["state"].items():
        torch.testing.assert_close(state["optimizer"]["state"][i]["exp_avg"], moments["exp_avg"], rtol=1e-3, atol=1e-6)
    print(f"process {rank}: as one", file=sys.stderr)


if __name__ == "__main__":
    main()
