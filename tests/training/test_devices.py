"""A step on two devices is the step that one device takes with the whole batch; what cannot be, is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kerasmodels import registry
from tests import cases

SHARED: dict[str, tuple[float, dict]] = {
    "fast_style": (1e-6, {}),
    "dilated_net": (0, {"dropout": 0.0, "clip": 0.05, "learning_rate": 1.0, "ignore": [255, 1]}),
    "deeplab": (0, {"dropout": 0.0, "batch_norm": "frozen", "ignore": [255, 1]}),
    "deformable_net": (0.1, {"trained": "offsets"}),
    "srcnn": (0.1, {}),
    "super_resolution": (0.1, {}),
    "deformable_net:detector": (0.1, {}),
}
"""Name -> learning rate of SGD instead of Adam, and changes of the config: without dropout and statistics of batches,
which are each device's own; with gradients that are clipped, and pixels that do not count, more on one device."""
SLOW = ["deeplab", "deformable_net:detector"]
REFUSED = [name for name in cases.names() if registry.row(name.split(":")[0]).trains and name not in SHARED]

CHILD = """
import csv, dataclasses, json, sys
from functools import partial
from pathlib import Path
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from kerasmodels import registry
from kerasmodels.errors import UsageError
from kerasmodels.training import train
from tests.cases import case_of

OPTIONS = {"preview_every": 0, "log_every": 1, "progress": False}
shared, refused, folder = json.loads(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3])
two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
found = {"shared": {}, "refused": {}}

def of(name, **changes):
    data = folder / name.replace(":", "_")
    data.mkdir(exist_ok=True)
    case = case_of(name)
    changes = case.data(data) | {"steps": 2, **changes}
    return registry.family(name.split(":")[0]), dataclasses.replace(case.config, **changes)

def plain(make, rate, devices):
    # Adam makes steps of one size of gradients that are all but zero, whatever their sign.
    def made(config, dtype=None):
        model = make(config, dtype=dtype)
        for layer in model._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
        # What two devices are compared with are two steps, sooner taken than compiled.
        how = {"run_eagerly": devices == "one"}
        model.compile = partial(model.compile, *([keras.optimizers.SGD(rate)] if rate else []), **how)
        return model
    return made

for name, (rate, changes) in shared.items():
    family, config = of(name, batch=4, **changes)
    make, results, losses = family.model, [], []
    for devices, strategy in (("one", None), ("two", two)):
        family = dataclasses.replace(family, model=plain(make, rate, devices))
        out = folder / "runs" / name.replace(":", "_") / devices
        results.append(train(family, config, out, strategy=strategy, **OPTIONS).model)
        rows = csv.DictReader(open(out / "log.csv"))
        losses.append([[float(v) for k, v in r.items() if k not in ("step", "seconds", "examples/s")] for r in rows])
    keras.utils.set_random_seed(config.seed)
    start = [w.numpy() for w in family.build(config).trainable_variables]
    weights = [[w.numpy() for w in model.trainable_variables] for model in results]
    moved = [float(np.abs(a - b).max()) for a, b in zip(weights[0], start)]
    apart = [float(np.abs(a - b).max()) for a, b in zip(*weights)]
    found["shared"][name] = {"losses": losses, "moved": max(moved), "apart": max(apart)}

def error_of(family, config, out):
    try:
        train(family, config, out, strategy=two, **OPTIONS)
    except UsageError as error:
        return str(error), out.exists()
    return "trained", True

for name in refused:
    family, config = of(name)
    out = folder / "refused" / name
    found["refused"][name] = error_of(family, config, out)
family, config = of("fast_style", batch=3)
found["batch"] = error_of(family, config, folder / "batch")
with two.scope():
    model = family.build(config)
photos = tf.random.uniform((5, 32, 32, 3), 0, 255)
try:
    model.fit(tf.data.Dataset.from_tensor_slices((photos, photos)).batch(4), verbose=0)
    found["empty"] = "trained"
except tf.errors.InvalidArgumentError as error:
    found["empty"] = str(error)
(folder / "found.json").write_text(json.dumps(found))
"""


def child(folder: Path, root: Path, shared: list[str], refused: list[str]) -> dict:
    """In its own process, because devices are split before TensorFlow starts."""
    arguments = [json.dumps({name: SHARED[name] for name in shared}), json.dumps(refused), str(folder)]
    subprocess.run([sys.executable, "-c", CHILD, *arguments], check=True, cwd=root)
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict:
    return child(tmp_path_factory.mktemp("devices"), root, [name for name in SHARED if name not in SLOW], REFUSED)


@pytest.fixture(scope="module")
def found_slowly(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict:
    return child(tmp_path_factory.mktemp("devices"), root, SLOW, [])


@pytest.mark.parametrize("name", [name for name in SHARED if name not in SLOW])
def test_two_devices_train_as_one(name: str, found: dict) -> None:
    _check_equal(found["shared"][name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_two_devices_train_as_one_slowly(name: str, found_slowly: dict) -> None:
    _check_equal(found_slowly["shared"][name])


def _check_equal(result: dict) -> None:
    one, two = result["losses"]
    for row, other in zip(one, two, strict=True):
        assert other == pytest.approx(row, rel=1e-5, abs=1e-5)
    assert result["moved"] > 3e-4
    assert result["apart"] < min(1e-4, 0.05 * result["moved"])


@pytest.mark.parametrize("name", REFUSED)
def test_others_are_refused_by_name_before_anything_is_written(name: str, found: dict) -> None:
    message, written = found["refused"][name]
    assert f"expected one device for {name}: " in message
    assert "Received: a strategy with 2 devices" in message
    assert not written


def test_batch_that_cannot_be_shared_equally_is_refused(found: dict) -> None:
    message, written = found["batch"]
    assert "batch that 2 devices share equally. Received: batch=3. Choose 2 or 4" in message
    assert not written


def test_device_without_pictures_stops_plain_fit(found: dict) -> None:
    assert "expected examples for each of 2 devices" in found["empty"]
