"""Going on from a policy that something else has trained, and leaving one for something else."""

from __future__ import annotations

from drivetrain.checkpoint import load_policy, resolve
from drivetrain.errors import BadCheckpoint
from drivetrain.models.driver import Driver
from drivetrain.run import Run
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


def finished(policy: Driver, run: Run) -> Driver:
    """The policy, ready to act; one with a vision-language model also lies in RUN/model, its head apart from that."""
    if policy.reader is not None:
        policy.save_apart(run.folder / "model")
    return policy.eval()
