import numpy as np
import torch

from drivetrain.envs.rollout import RandomActor, rollout
from drivetrain.envs.words import make_env, spec_of
from drivetrain.experts.choosing import find_expert


def expert_in(env):
    return find_expert("cartpole", spec_of(env))


def test_the_expert_never_drops_the_pole():
    totals = [episode.total for episode in rollout(expert_in("cartpole"), "cartpole", range(200), lanes=32)]
    assert totals == [500.0] * 200


def test_the_expert_drives_the_pixels_from_what_is_privileged():
    (episode,) = rollout(expert_in("cartpole-pixels"), "cartpole-pixels", [7])
    assert episode.total == 500.0
    assert not episode.terminated


def test_chance_drops_it():
    random = RandomActor(make_env("cartpole").sample_spec)
    assert (
        np.mean(
            [
                episode.total
                for episode in rollout(random, "cartpole", range(50), generator=torch.Generator().manual_seed(0))
            ]
        )
        < 40
    )
