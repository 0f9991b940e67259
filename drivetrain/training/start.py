"""Going on from a policy that something else has trained, and leaving one for something else."""

from __future__ import annotations

from dataclasses import fields, replace

from drivetrain.checkpoint import load_policy, resolve
from drivetrain.errors import BadCheckpoint, BadConfig
from drivetrain.models.driver import Driver, Network
from drivetrain.run import Run
from drivetrain.sample import Spec

FOR_OTHERS = ("hidden", "activation")  # of a network: values and critics are made by these too, and always anew


def start_from(path: str, spec: Spec, network: Network) -> Driver:
    """The policy of that run or checkpoint, to be trained further in a world of `spec`; it keeps its own networks, and what is
    asked of `network` must not say otherwise."""
    policy = load_policy(path)
    if not isinstance(policy, Driver):
        raise BadCheckpoint(
            f"BadCheckpoint: {resolve(path)} holds {type(policy).__name__}, which cannot be trained further"
        )
    policy.spec.require(spec)
    policy.spec = replace(policy.spec, env=spec.env or policy.spec.env)  # where it is trained now
    plain = Network()
    for name in (f.name for f in fields(Network) if f.name not in FOR_OTHERS):
        asked, has = getattr(network, name), getattr(policy.network, name)
        if asked not in (has, getattr(plain, name)):
            flag = name.replace("_", "-")
            raise BadConfig(
                f"BadConfig: --network.{flag} is {asked}, and the policy of {path} has {has}, which stays; leave it out, or "
                "begin anew without --policy"
            )
    return policy


def unfed(network: Network) -> None:
    """Refuse running means where nobody would keep them."""
    if network.normalise:
        raise BadConfig(
            "BadConfig: --network.normalise is for ppo and grpo, which keep means of what they meet; leave it out: "
            "numbers of a data set are normalised by its own"
        )


def undropped(network: Network, who: str, why: str) -> None:
    """Refuse dropout where what is learned is compared with a second look of the same network."""
    if network.dropout:
        raise BadConfig(f"BadConfig: {who} needs network.dropout 0: {why}; leave it out")


def same_head(path: str, policy: Driver, head: str) -> None:
    """Refuse a head that is asked for and is not the policy's."""
    if head not in ("auto", policy.head_name):
        raise BadConfig(
            f"BadConfig: --head is {head}, and the policy of {path} has {policy.head_name}; leave --head out"
        )


def finished(policy: Driver, run: Run) -> Driver:
    """The policy, ready to act; one with a vision-language model also lies in RUN/model, its head apart from that."""
    if policy.reader is not None:
        policy.save_apart(run.folder / "model")
    return policy.eval()
