"""The commands of `optimization`: trajectories, the user's functions, the report on a model; Burgers' solution."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kerasmodels import storage
from kerasmodels.claims.optimization import VISCOSITY, burgers_solution
from kerasmodels.data import read_image
from kerasmodels.errors import DataError, UsageError
from kerasmodels.models import optimization
from kerasmodels.tasks.compare_optimizers import OBJECTIVES, compare_on_model, descend

pytestmark = pytest.mark.usefixtures("plain_graphs")

FILE = """
import tensorflow as tf

def well(p):
    return tf.reduce_sum((p - 1.0) ** 4 + (p - 1.0) ** 2)

def vector(p):
    return p

number = 3
"""


def run(**fields: Any) -> Any:
    options = optimization.FAMILY.task.options(**fields)
    return optimization.FAMILY.task.run(options)


def test_objectives_are_least_where_they_say() -> None:
    for name, objective in OBJECTIVES.items():
        assert objective.minimum is not None
        best = np.array(objective.minimum)
        around = best + 1e-3 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
        assert float(objective.function(best)) == pytest.approx(0, abs=1e-12), name
        assert np.all(np.asarray(objective.function(around)) > 1e-8), name


def test_a_trajectory_begins_at_the_start_and_ends_at_the_minimum() -> None:
    objective = OBJECTIVES["rosenbrock"]
    trace = descend(objective.function, "lbfgs", (-1.2, 1.0), 200, None)
    assert trace.points.shape == (len(trace.values), 2)
    np.testing.assert_array_equal(trace.points[0], [-1.2, 1.0])
    np.testing.assert_allclose(trace.points[-1], [1, 1], atol=1e-5)
    np.testing.assert_allclose(np.asarray(objective.function(trace.points)), trace.values, rtol=1e-9)
    assert trace.reason.startswith("converged")
    diverged = descend(objective.function, "sgd", (-1.2, 1.0), 50, 1.0)
    assert "smaller learning rate" in diverged.reason
    assert np.isfinite(diverged.values).all()


def test_a_function_of_the_user_s_is_drawn(tmp_path: Path) -> None:
    file = storage.write_text(tmp_path / "mine.py", FILE)
    report = run(objective=f"{file}:well", methods=("lbfgs",), out=tmp_path / "out.png", start=(3.0, 0.0))
    assert read_image(report.outputs[0]).shape == (480, 1100, 3)
    assert "converged" in report.facts["lbfgs"]
    for name, message in (("wells", "'well'"), ("number", "unknown function")):
        with pytest.raises(UsageError, match=message):
            run(objective=f"{file}:{name}", methods=("lbfgs",), out=tmp_path / "out.png")
    with pytest.raises(UsageError, match="scalar"):
        run(objective=f"{file}:vector", methods=("lbfgs",), out=tmp_path / "out.png")
    storage.write_text(file, "1 / 0")
    with pytest.raises(DataError, match="cannot be executed: ZeroDivisionError"):
        run(objective=f"{file}:well", methods=("lbfgs",), out=tmp_path / "out.png")
    with pytest.raises(UsageError, match=r"FILE\.py:function"):
        run(objective="nothing", out=tmp_path / "out.png")


def small_model(compiled: bool = True) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
    if compiled:
        model.compile("sgd", "mse")
    return model


def test_the_report_on_a_model(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(60, 3)).astype("float32")
    np.savez(tmp_path / "data.npz", x=x, y=np.sin(x.sum(1, keepdims=True)))
    small_model().save(tmp_path / "model.keras")
    report = run(
        model=tmp_path / "model.keras",
        data=tmp_path / "data.npz",
        methods=("adam", "lbfgs"),
        steps=30,
        out=tmp_path / "report.html",
    )
    page = report.outputs[0].read_text()
    assert report.facts["lowest loss"] == "lbfgs"
    assert page.index("<td>lbfgs</td>") < page.index("<td>adam</td>")
    assert "data:image/png;base64," in page
    assert "30 epochs, as asked" in page


def test_every_method_begins_with_the_model_s_weights_and_gives_them_back() -> None:
    model, x = small_model(), np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    before = model.get_weights()
    traces = compare_on_model(model, x, x[:, :1], ("sgd", "lbfgs"), passes=3)
    assert traces["sgd"].values[0] == pytest.approx(traces["lbfgs"].values[0], rel=1e-5)
    for ours, theirs in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(UsageError, match="saved compiled"):
        compare_on_model(small_model(False), x, x[:, :1], ("sgd",))
    with pytest.raises(UsageError, match=r"do not fit.*\(40, 2\)"):
        compare_on_model(model, x[:, :2], x[:, :1], ("lbfgs",), passes=1)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    x = np.zeros((4, 3), "float32")
    np.savez(tmp_path / "good.npz", x=x, y=x[:, :1])
    small_model().save(tmp_path / "good.keras")
    cases = {"x": {"x": x}, "as many": {"x": x, "y": x[:2]}, "finite": {"x": x, "y": x * np.nan}}
    for message, arrays in cases.items():
        np.savez(tmp_path / "bad.npz", **arrays)
        with pytest.raises(DataError, match=message):
            run(model=tmp_path / "good.keras", data=tmp_path / "bad.npz", out=tmp_path / "r.html")
    np.savez(tmp_path / "bad.npz", x=np.array([{}], dtype=object), y=x[:1])
    with pytest.raises(DataError, match=r"expected an \.npz"):
        run(model=tmp_path / "good.keras", data=tmp_path / "bad.npz", out=tmp_path / "r.html")
    (tmp_path / "bad.keras").write_bytes(b"no model")
    with pytest.raises(UsageError, match="saved by Keras 3"):
        run(model=tmp_path / "bad.keras", data=tmp_path / "good.npz", out=tmp_path / "r.html")
    keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: x)]).save(tmp_path / "code.keras")
    with pytest.raises(UsageError, match="load it yourself"):
        run(model=tmp_path / "code.keras", data=tmp_path / "good.npz", out=tmp_path / "r.html")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"methods": ("lbfsg",)}, "'lbfgs'"),
        ({"methods": ("sgd", "sgd")}, "each once"),
        ({"out": Path("a.jpg")}, ".png"),
        ({"model": Path("a.keras")}, "together"),
        ({"window": (1.0, 0.0, 0.0, 1.0)}, "window"),
    ],
)
def test_options_that_contradict(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        optimization.FAMILY.task.options(**{"out": Path("out.png"), **fields})


def test_the_solution_of_burgers_satisfies_its_equation() -> None:
    random, h = np.random.default_rng(0), 1e-4
    t, x = random.uniform(0.05, 0.95, 500), random.uniform(-1, 1, 500)
    u = burgers_solution(t, x)
    u_t = (burgers_solution(t + h, x) - burgers_solution(t - h, x)) / (2 * h)
    u_x = (burgers_solution(t, x + h) - burgers_solution(t, x - h)) / (2 * h)
    u_xx = (burgers_solution(t, x + h) - 2 * u + burgers_solution(t, x - h)) / h**2
    assert np.abs(u_t + u * u_x - VISCOSITY * u_xx).max() < 2e-2
    assert np.abs(u_t).max() > 1
    np.testing.assert_allclose(
        burgers_solution(np.zeros(9), np.linspace(-1, 1, 9)), -np.sin(np.linspace(-1, 1, 9) * np.pi), atol=1e-12
    )
    np.testing.assert_allclose(burgers_solution(np.array([0.3, 0.9]), np.array([1.0, -1.0])), 0, atol=1e-9)
