"""Claims are measured on what users get: no file of `claims/` trains a model by a step of its own."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import kerasmodels.claims

FOLDER = Path(kerasmodels.claims.__file__).parent
STEPS = {"train_step", "train_function", "update_step", "train_on_batch"}
UPDATES = {"apply", "apply_gradients", "assign_sub", "assign_add"}


def own_training(source: str) -> Iterator[str]:
    """Lines that train: steps that a class defines, updates by an optimizer, descent along a tape's gradient."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name in STEPS:
                yield f"line {node.lineno}: defines {node.name}"
            names = {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
            names |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
            if names & {"GradientTape", "ForwardAccumulator", "gradients"} and "assign" in names:
                yield f"line {node.lineno}: {node.name} assigns what follows from a gradient"
        # As a call, and as a method that is handed on.
        elif isinstance(node, ast.Attribute) and node.attr in UPDATES:
            yield f"line {node.lineno}: .{node.attr}"
        elif isinstance(node, ast.Constant) and node.value in UPDATES:
            yield f"line {node.lineno}: {node.value!r}"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("**/*.py")), ids=lambda path: path.stem)
def test_claims_train_the_shipped_model(path: Path):
    found = list(own_training(path.read_text()))
    assert found == [], f"{path.name}: train through the model's fit, with networks handed in"


@pytest.mark.parametrize(
    "source",
    [
        "with tf.GradientTape() as tape:\n    loss = f()\nadam.apply(tape.gradient(loss, weights), weights)",
        "step = optimizer.apply\nstep(gradients, weights)",
        "getattr(optimizer, 'apply_gradients')(pairs)",
        "class Own(Model):\n    def train_step(self, data):\n        return {}",
        "def descend():\n    with tf.GradientTape() as tape:\n        y = f()\n    w.assign(w - tape.gradient(y, w))",
        "w.assign_sub(0.1 * slope)",
    ],
)
def test_steps_of_one_s_own_are_seen(source: str):
    assert list(own_training(source))


def test_slopes_may_be_measured():
    assert not list(own_training("with tf.GradientTape() as tape:\n    y = f(x)\nslope = tape.gradient(y, x)"))
