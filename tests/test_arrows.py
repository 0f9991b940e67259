"""Imports point down only. This is the picture of who may import whom; a module that is not in it has no place.

cli                            anything
collect evaluate demo ...      the verbs: nouns, training, one another
training  deploy  dashboard    see ALLOWED
models data envs experts       the nouns: the words and themselves
sample errors catalog ...      the words: one another
sim                            nothing of ours
"""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "drivetrain"
WORDS = {"sample", "errors", "catalog", "config", "run", "checkpoint", "transforms", "stats", "scores", "processor"}
PAGES = {"film", "narration", "beside", "rungs", "report", "doctor"}  # what people look at, made from the words
NOUNS = {"models", "data", "envs", "experts", "rewards"}
VERBS = {"collect", "describe", "transcribe", "evaluate", "drive", "audit", "dream", "ladder", "demo"}
ALLOWED = {
    **dict.fromkeys(WORDS | PAGES, WORDS),
    **{name: WORDS | {name} for name in NOUNS},
    "experts": WORDS | {"experts", "envs"},  # an expert knows its world
    "rewards": WORDS | {"rewards", "models"},
    "training": WORDS | NOUNS | {"training"},
    "deploy": WORDS | {"deploy", "models"},
    "dashboard": {"dashboard", "run", "errors"},
    "sim": {"sim"},
    **{name: WORDS | PAGES | NOUNS | {"training"} | VERBS for name in VERBS},
    "cli": WORDS | PAGES | NOUNS | VERBS | {"training", "deploy", "dashboard", "sim"},
    "__main__": {"cli"},
}
MODULES = {".".join(p.relative_to(ROOT).with_suffix("").parts): p for p in sorted(ROOT.rglob("*.py"))}
MODULES = {name.removesuffix(".__init__"): path for name, path in MODULES.items() if name != "__init__"}


def imports(source, module, known=MODULES, *, at_import=False):
    """Modules of ours that `source` imports; with `at_import` only what happens as soon as it is imported itself."""
    found = set()
    for node in visited(ast.parse(source), at_import):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports by a relative name; write it whole"
            found |= {f"{node.module}.{a.name}" for a in node.names}
    ours = {name.removeprefix("drivetrain.") for name in found if name.startswith("drivetrain.")}
    return {longest(name, known) for name in ours} - {"", module}


def visited(tree, at_import):
    """All nodes; or without the bodies of functions and what only type checkers read."""
    for node in ast.iter_child_nodes(tree):
        if at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if at_import and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        yield node
        yield from visited(node, at_import)


def longest(name, known):
    """The module in a dotted name that may end in what it defines."""
    while name and name not in known:
        name = name.rpartition(".")[0]
    return name


def place(module):
    return module.partition(".")[0]


def wrong_arrows(sources):
    """Every import that points up, as (who, whom)."""
    return [
        (module, other)
        for module, source in sources.items()
        for other in sorted(imports(source, module, sources))
        if place(other) not in ALLOWED[place(module)]
    ]


def cycle(arrows):
    """Modules that import each other in a ring; empty where there is none."""
    done, path = set(), []

    def walk(module):
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        path.append(module)
        for other in sorted(arrows[module]):
            if ring := walk(other):
                return ring
        done.add(path.pop())
        return []

    return next(filter(None, map(walk, arrows)), [])


def test_every_module_has_a_place():
    assert {place(module) for module in MODULES} <= set(ALLOWED)


def test_imports_point_down():
    assert wrong_arrows({module: path.read_text() for module, path in MODULES.items()}) == []


def test_no_modules_import_each_other_in_a_ring():
    assert cycle({m: imports(path.read_text(), m, at_import=True) for m, path in MODULES.items()}) == []


def test_the_examiner_of_arrows_sees():
    sources = {
        "sample": "def f():\n    from drivetrain import cli",
        "models.driver": "import drivetrain.envs.words\nfrom drivetrain.models import heads",
        "models.heads": "from drivetrain.sample import Spec",
        "envs.words": "import torch\nfrom drivetrain.catalog import find",
        "sim.world": "from drivetrain.errors import UserError",
        "cli": "from drivetrain.models.driver import Driver",
        "catalog": "",
        "errors": "",
    }
    found = wrong_arrows(sources)
    assert found == [("sample", "cli"), ("models.driver", "envs.words"), ("sim.world", "errors")]
    assert imports(sources["sample"], "sample", sources, at_import=True) == set()
    assert imports(sources["models.driver"], "models.driver", sources) == {"envs.words", "models.heads"}
    assert set(cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}})) == {"b", "c"}
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


@pytest.mark.parametrize("module", [m for m in MODULES if place(m) in NOUNS])
def test_nouns_hold_no_training_loop(module):
    names = {n.attr for n in ast.walk(ast.parse(MODULES[module].read_text())) if isinstance(n, ast.Attribute)}
    assert not names & {"optim", "backward", "zero_grad"}, f"{module} trains something; that is training's"


def loaded_by(code):
    """Names of the modules that a new interpreter has after running `code`."""
    said = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys, json\nprint(json.dumps(list(sys.modules)))"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert said.returncode == 0, said.stderr
    return set(json.loads(said.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "code",
    [
        "import drivetrain, drivetrain.sample, drivetrain.config, drivetrain.run, drivetrain.stats, drivetrain.report",
        "from drivetrain.cli import main; assert main(['--help']) == 0",
        "from drivetrain.cli import main; assert main(['list']) == 0",
        "from drivetrain.cli import main; assert main(['train', '--help']) == 0",
        "from drivetrain.cli import main; assert main(['trian']) == 2",
    ],
)
def test_what_needs_no_torch_does_not_wait_for_it(code):
    assert not loaded_by(code) & {"torch", "gymnasium", "pyarrow", "matplotlib", "transformers"}


OPTIONAL = "carla datasets envpool gym_pusht h5py mujoco onnx onnxruntime openvino peft pymunk stable_baselines3"
OPTIONAL += " tensorboard transformers"


@pytest.mark.slow
def test_every_module_can_be_imported_without_the_optional_packages():
    code = f"""
import importlib, sys
for name in {OPTIONAL.split()}:
    sys.modules[name] = None
for name in {[m for m in MODULES if m != "__main__"]}:
    importlib.import_module("drivetrain." + name)
"""
    assert "drivetrain.cli" in loaded_by(code)
