"""An expert by name, for a world that it knows.

    expert = find_expert("carracing", spec)    expert = find_expert("", spec)    # whoever knows that world

An expert bears the name of its environments up to the first dash, and is built from the Spec of the one it acts in.
"""

from __future__ import annotations

from typing import Any

from drivetrain import catalog
from drivetrain.errors import BadConfig
from drivetrain.sample import EXPERT_WORDS, Feature, Spec


def find_expert(name: str, spec: Spec) -> Any:
    """The expert of that name, or the one for the world of `spec` where none is named."""
    if not name and family(spec.env) not in catalog.EXPERTS:
        raise BadConfig(
            f"BadConfig: no expert knows {spec.env.partition(':')[0]}; there are some for {', '.join(catalog.EXPERTS)}"
        )
    name = name or family(spec.env)
    build = catalog.find("experts", name)
    if family(spec.env) != family(name):
        fits = ", ".join(env for env in catalog.ENVS if family(env) == family(name))
        raise BadConfig(f"BadConfig: the expert {name} cannot act in {spec.env}; use it in {fits}")
    return build(spec)


def family(name: str) -> str:
    """What environments that differ in their actions, pictures or options have in common."""
    return name.partition(":")[0].partition("-")[0]


def words_of(expert: Any) -> dict[str, Feature]:
    """The feature in which an expert that explains itself names its sentence."""
    sentences = getattr(expert, "sentences", ())
    return {EXPERT_WORDS: Feature((), "int64", names=tuple(sentences), choices=len(sentences))} if sentences else {}
