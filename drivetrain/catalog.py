"""What there is, by name: plain tables of name -> where it lives, and one line about it.

A new thing is a file and a line here. Nothing is imported until it is asked for.
"""

import importlib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drivetrain.errors import UnknownName


@dataclass(frozen=True)
class Entry:
    target: str  # "module:Thing" or "module"
    about: str
    package: str = ""  # the optional package it needs
    extra: str = ""  # the extra of ours that brings it


ENVS: dict[str, Entry] = {
    "cartpole": Entry("drivetrain.envs.cartpole:state", "balance a pole on a cart, from position and tilt"),
    "cartpole-pixels": Entry(
        "drivetrain.envs.cartpole:pixels", "the same from pictures (two by default: one has no speed)"
    ),
    "carracing": Entry("drivetrain.envs.carracing:discrete", "drive a lap from pictures; five choices"),
    "carracing-continuous": Entry(
        "drivetrain.envs.carracing:continuous", "drive a lap from pictures; steer, gas, brake"
    ),
    "pendulum": Entry("drivetrain.envs.classic:pendulum", "swing a pendulum up and hold it"),
    "mountaincar": Entry("drivetrain.envs.classic:mountaincar", "rock a car out of a valley; three choices"),
    "mountaincar-continuous": Entry("drivetrain.envs.classic:mountaincar_continuous", "the same with a force"),
    "acrobot": Entry("drivetrain.envs.classic:acrobot", "swing a two-link arm above a line"),
    "halfcheetah": Entry("drivetrain.envs.mujoco:halfcheetah", "run (MuJoCo)", "mujoco", "mujoco"),
    "hopper": Entry("drivetrain.envs.mujoco:hopper", "hop on one leg (MuJoCo)", "mujoco", "mujoco"),
    "walker2d": Entry("drivetrain.envs.mujoco:walker2d", "walk on two legs (MuJoCo)", "mujoco", "mujoco"),
    "carla": Entry(
        "drivetrain.envs.carla.env:carla",
        "drive a route in CARLA's traffic, on the real server or ours",
        "carla",
        "carla",
    ),
    "pusht": Entry("drivetrain.envs.pusht:state", "push a T onto its mark, from positions", "gym_pusht", "pusht"),
    "pusht-pixels": Entry(
        "drivetrain.envs.pusht:pixels", "push a T onto its mark, from pictures", "gym_pusht", "pusht"
    ),
}

ALGORITHMS: dict[str, Entry] = {
    "bc": Entry("drivetrain.training.il.bc", "behaviour cloning: do what the demonstrator did"),
    "dagger": Entry("drivetrain.training.il.dagger", "clone, act, ask the expert what was right, and clone all of it"),
    "gail": Entry(
        "drivetrain.training.il.gail", "act so that nobody can tell it from the demonstrations; no reward is seen"
    ),
    "dqn": Entry("drivetrain.training.online_rl.dqn", "deep Q-learning, for discrete actions"),
    "iql": Entry("drivetrain.training.offline_rl.iql", "implicit Q-learning: the better actions of a data set"),
    "td3bc": Entry("drivetrain.training.offline_rl.td3bc", "TD3+BC: climb the critic, stay near the data"),
    "cql": Entry("drivetrain.training.offline_rl.cql", "conservative Q-learning: low of what the data does not show"),
    "dt": Entry("drivetrain.training.offline_rl.dt", "Decision Transformer: ask for a return, and clone what got it"),
    "grpo": Entry(
        "drivetrain.training.online_rl.grpo", "play a beginning several times, and do more of what went better"
    ),
    "dreamer": Entry(
        "drivetrain.training.world_model.dreamer", "learn a model of the world, and a policy in dreams of it"
    ),
    "ppo": Entry("drivetrain.training.online_rl.ppo", "proximal policy optimisation, for any action"),
    "sac": Entry("drivetrain.training.online_rl.sac", "soft actor-critic, for continuous actions"),
}

STAGES: dict[str, Entry] = {
    "pretrain": Entry(
        "drivetrain.training.pretrain", "stage 0: a new VLM learns to see and speak", "transformers", "vlm"
    ),
    "align": Entry("drivetrain.training.align", "stage 1a: a projector between tower and words", "transformers", "vlm"),
    "instruct": Entry("drivetrain.training.instruct", "stage 1b: answers about pictures", "transformers", "vlm"),
    "caption": Entry("drivetrain.training.caption", "captions by LoRA, to a fixed prompt", "peft", "vlm"),
}

EXPERTS: dict[str, Entry] = {
    "cartpole": Entry("drivetrain.experts.cartpole:Expert", "a linear controller that never drops the pole"),
    "carla": Entry(
        "drivetrain.experts.carla:Expert", "knows the route, the lights and everyone around", "carla", "carla"
    ),
    "pendulum": Entry("drivetrain.experts.pendulum:Expert", "swings a pendulum up by its energy, and holds it"),
    "carracing": Entry("drivetrain.experts.carracing:Expert", "pure pursuit that brakes for bends; pedals or labels"),
}

DATASETS: dict[str, Entry] = {
    "fake": Entry("drivetrain.data.fake:open_fake", "valid nonsense in the shape of a spec, for quick checks"),
}

SCENES: dict[str, Entry] = {
    "cartpole": Entry("drivetrain.envs.cartpole:Scenes", "pictures of CartPole in any state, with its tilt and place"),
    "pendulum": Entry("drivetrain.envs.pendulum_scenes:Scenes", "pictures of a pendulum at any angle"),
    "carracing": Entry(
        "drivetrain.envs.carracing_scenes:Scenes", "pictures of a car anywhere on a track, with its place and the bend"
    ),
}

ENCODERS: dict[str, Entry] = {
    "mlp": Entry("drivetrain.models.state:StateEncoder", "numbers through a small network, or as they are"),
    "choice": Entry("drivetrain.models.state:ChoiceEncoder", "one of several things, each a feature of its own"),
    "cnn": Entry("drivetrain.models.camera:CameraEncoder", "pictures through a few convolutions"),
    "vit": Entry("drivetrain.models.camera:TransformerEncoder", "pictures through a small ViT", "transformers", "vlm"),
}

BACKBONES: dict[str, Entry] = {
    "tiny-git": Entry("tiny-git", "a small GIT of ours", "transformers", "vlm"),
    "tiny-llava": Entry("tiny-llava", "a small LLaVA of ours", "transformers", "vlm"),
}

POLICIES: dict[str, Entry] = {
    "carracing-git": Entry(
        "carracing-git", "drives CarRacing by tiny-git's eyes, with steer, gas and brake", "transformers", "vlm"
    ),
}

TABLES: dict[str, Mapping[str, Entry]] = {
    "envs": ENVS,
    "algorithms": ALGORITHMS,
    "experts": EXPERTS,
    "datasets": DATASETS,
    "scenes": SCENES,
    "encoders": ENCODERS,
    "stages": STAGES,
    "backbones": BACKBONES,
    "policies": POLICIES,
}
SINGULAR = {
    "envs": "env",
    "algorithms": "algorithm",
    "experts": "expert",
    "datasets": "data set",
    "scenes": "env with scenes",
    "encoders": "encoder",
}


def entry(table: str, name: str) -> Entry:
    """The row called `name`, or the nearest names in an error."""
    rows = TABLES[table]
    if name not in rows:
        raise UnknownName(SINGULAR[table], name, rows)
    return rows[name]


def find(table: str, name: str) -> Any:
    """The thing itself, imported now."""
    module, _, thing = entry(table, name).target.partition(":")
    found = importlib.import_module(module)
    return getattr(found, thing) if thing else found


def about(row: Entry) -> str:
    """The line about it; of a model that ships with the package also its size and what it was measured to know."""
    cards = [Path(__file__).parent / kind / row.target / "card.json" for kind in ("backbones", "policies")]
    card = next((card for card in cards if card.is_file()), None)
    if card is None:
        return row.about
    said = json.loads(card.read_text())
    size = f"{said['parameters'] / 1e6:.1f} million parameters, {said['bytes'] / 1e6:.1f} MB"
    return f"{row.about}, {size}; {said['skill']}"


def present(row: Entry) -> bool:
    """Whether the optional package a row needs is installed."""
    return not row.package or importlib.util.find_spec(row.package) is not None
