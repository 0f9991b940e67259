import numpy as np

from drivetrain.envs.rollout import rollout
from drivetrain.envs.words import spec_of
from drivetrain.experts.choosing import find_expert


def test_the_expert_swings_it_up_from_anywhere_and_holds_it():
    expert = find_expert("", spec_of("pendulum"))
    played = list(rollout(expert, "pendulum", range(64), lanes=64, keep=True))
    totals = [episode.total for episode in played]
    assert np.mean(totals) > -160  # a policy that was learned returns about as much
    assert min(totals) > -400  # from hanging down it takes one swing more
    assert all(episode.samples[-1]["observation.state"][0] > 0.98 for episode in played), "upright at the end"
