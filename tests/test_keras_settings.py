"""Whatever the user's keras.json says, and in processes that import nothing but `kerasmodels`."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest

from kerasmodels import registry, saved_names, storage
from kerasmodels.models import WGAN
from kerasmodels.models.wgan import Config
from tests import cases, golden


@pytest.fixture
def channels_first() -> Iterator[None]:
    keras.config.set_image_data_format("channels_first")
    yield
    keras.config.set_image_data_format("channels_last")


@pytest.mark.usefixtures("channels_first")
@pytest.mark.parametrize("key", ["cyclegan", "dilated_net", "fast_style", "feature_patches", "photo_style", "wgan"])
def test_a_setting_of_channels_first_changes_nothing(key: str) -> None:
    family, kept = registry.family(key), storage.load_npz(cases.golden_path(key))
    keras.utils.set_random_seed(0)
    model = family.model(cases.case_of(key).config)
    given = {name.removeprefix("input/"): value for name, value in kept.items() if name.startswith("input/")}
    for name, value in golden.outputs(family, model, given).items():
        np.testing.assert_allclose(
            value.astype("float64"), kept[f"random/{name}"], atol=1.0 if value.dtype == "uint8" else 1e-3
        )


def test_every_class_that_is_saved_has_a_home() -> None:
    for name in registry.names():
        registry.family(name)
    known = keras.saving.get_custom_objects()
    ours = {name: cls.__module__ for name, cls in known.items() if name.startswith("kerasmodels>")}
    assert saved_names.homes() == ours


CHILD = """
import sys
import kerasmodels
assert "tensorflow" not in sys.modules
import keras, numpy as np
assert keras.config.image_data_format() == "channels_first"
assert "kerasmodels.models.wgan" not in sys.modules
model = keras.saving.load_model("model.keras")
np.save("found.npy", model(np.ones((2, model.config.latent), "float32")))
saved = {"class_name": "ResidualBlock", "module": "kerasmodels.layers.residual", "config": {"name": "a", "filters": 4}}
layer = keras.saving.deserialize_keras_object({**saved, "registered_name": "kerasmodels>ResidualBlock"})
assert type(layer) is kerasmodels.layers.ResidualBlock, layer
"""


def test_a_saved_model_needs_the_name_of_the_library_only(tmp_path: Path, root: Path) -> None:
    model = WGAN(Config(size=16, width=8, latent=12))
    model.save(tmp_path / "model.keras")
    (tmp_path / "keras.json").write_text(json.dumps({"image_data_format": "channels_first", "backend": "tensorflow"}))
    environment = {**os.environ, "KERAS_HOME": str(tmp_path), "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", CHILD], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "found.npy"), model(np.ones((2, 12), "float32")))
