"""Going on from a policy that something else has trained."""

from __future__ import annotations

from drivetrain.checkpoint import load_policy, resolve
from drivetrain.errors import BadCheckpoint
from drivetrain.models.driver import Driver
from drivetrain.sample import Spec


def start_from(path: str, spec: Spec) -> Driver:
    """The policy of that run or checkpoint, to be trained further in a world of `spec`."""
    policy = load_policy(path)
    if not isinstance(policy, Driver):
        raise BadCheckpoint(
            f"BadCheckpoint: {resolve(path)} holds {type(policy).__name__}, which cannot be trained further"
        )
    policy.spec.require(spec)
    return policy
