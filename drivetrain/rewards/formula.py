"""Small formulas that users write: numbers by name, arithmetic, comparisons, and a handful of functions. Nothing else runs.

found = formula("1 - abs(tilt) / 12")
found(tilt=np.array([0.0, 6.0]))                 # [1.0, 0.5]
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from drivetrain.errors import BadConfig

TWO: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: np.true_divide,
    ast.Pow: operator.pow,
}
COMPARED: dict[type, Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
JOINED: dict[type, Callable[[Any, Any], Any]] = {ast.And: np.logical_and, ast.Or: np.logical_or}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": np.abs,
    "min": np.minimum,
    "max": np.maximum,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "degrees": np.degrees,
    "cos": np.cos,
    "clip": np.clip,
}


TAKES = {"min": 2, "max": 2, "clip": 3}  # numbers; the others one


class Formula:
    def __init__(self, text: str, names: tuple[str, ...], tree: ast.expr):
        self.text, self.names, self.tree = text, names, tree

    def __call__(self, **values: Any) -> Any:
        return value_of(self.tree, values)


def formula(text: str, known: tuple[str, ...] = ()) -> Formula:
    """Of a text; the names in it must be among those known, where any are given."""
    try:
        tree = ast.parse(str(text).strip(), mode="eval").body
        names = tuple(sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - set(FUNCTIONS)))
        refuse(tree)
    except (SyntaxError, ValueError) as error:
        what = error.args[0] if isinstance(error, ValueError) else "it is no formula"
        raise BadConfig(
            f"BadConfig: {text!r}: {what}; use names, numbers, + - * / **, comparisons, and, or, not, "
            f"and {', '.join(FUNCTIONS)}"
        ) from None
    if known and (strange := [name for name in names if name not in known]):
        raise BadConfig(f"BadConfig: {text!r} speaks of {strange[0]}; there are {', '.join(known)}")
    return Formula(text, names, tree)


def refuse(tree: ast.AST) -> None:
    """Whatever is not known here."""
    if isinstance(tree, ast.Name):
        return
    if isinstance(tree, ast.Constant):
        if isinstance(tree.value, bool) or not isinstance(tree.value, int | float):
            raise ValueError(f"{tree.value!r} is no number")
        return
    if isinstance(tree, ast.BinOp) and type(tree.op) in TWO:
        parts: list[ast.AST] = [tree.left, tree.right]
    elif isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub | ast.Not):
        parts = [tree.operand]
    elif isinstance(tree, ast.BoolOp):
        parts = list(tree.values)
    elif isinstance(tree, ast.Compare) and all(type(op) in COMPARED for op in tree.ops):
        parts = [tree.left, *tree.comparators]
    elif isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and not tree.keywords:
        if tree.func.id not in FUNCTIONS:
            raise ValueError(f"there is no function {tree.func.id}")
        wanted = TAKES.get(tree.func.id, 1)
        if len(tree.args) != wanted:
            raise ValueError(f"{tree.func.id} takes {wanted}, got {len(tree.args)}")
        parts = list(tree.args)
    else:
        raise ValueError(f"{ast.unparse(tree)!r} cannot be used here")
    for part in parts:
        refuse(part)


def value_of(tree: ast.AST, values: dict[str, Any]) -> Any:
    if isinstance(tree, ast.Constant):
        return tree.value
    if isinstance(tree, ast.Name):
        return values[tree.id]
    if isinstance(tree, ast.BinOp):
        return TWO[type(tree.op)](value_of(tree.left, values), value_of(tree.right, values))
    if isinstance(tree, ast.UnaryOp):
        inner = value_of(tree.operand, values)
        return -inner if isinstance(tree.op, ast.USub) else np.logical_not(inner)
    if isinstance(tree, ast.BoolOp):
        found = value_of(tree.values[0], values)
        for part in tree.values[1:]:
            found = JOINED[type(tree.op)](found, value_of(part, values))
        return found
    if isinstance(tree, ast.Compare):
        sides = [value_of(side, values) for side in (tree.left, *tree.comparators)]
        found = True
        for op, one, other in zip(tree.ops, sides, sides[1:], strict=False):
            found = np.logical_and(found, COMPARED[type(op)](one, other))
        return found
    assert isinstance(tree, ast.Call), ast.dump(tree)
    assert isinstance(tree.func, ast.Name)
    return FUNCTIONS[tree.func.id](*(value_of(part, values) for part in tree.args))
