"""Our layers against the real tensorflow-addons 0.23 (see tests/addons.py)."""

import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.layers import InstanceNormalization
from tests.addons import ask

# name -> input shape, constructor arguments (the same in both libraries)
INSTANCE_NORMALIZATION = {
    "pictures": ((2, 16, 20, 4), {"epsilon": 1e-5}),
    "addons' default epsilon": ((2, 16, 20, 4), {"epsilon": 1e-3}),
    "channels first": ((2, 4, 16, 20), {"epsilon": 1e-5, "axis": 1}),
    "sequences": ((3, 10, 5), {"epsilon": 1e-5}),
    "volumes": ((2, 6, 5, 4, 3), {"epsilon": 1e-5}),
    "without center": ((2, 8, 8, 3), {"epsilon": 1e-5, "center": False}),
    "without scale": ((2, 8, 8, 3), {"epsilon": 1e-5, "scale": False}),
    "few positions": ((2, 2, 2, 3), {"epsilon": 1e-5}),
}


@pytest.fixture(scope="module")
def instance_normalization(tmp_path_factory):
    """The inputs of every case, and tensorflow-addons' outputs and gradients."""
    random = np.random.default_rng(0)
    given = {}
    for name, (shape, arguments) in INSTANCE_NORMALIZATION.items():
        channels = shape[arguments.get("axis", -1)]
        given[f"{name}/x"] = random.normal(5, 3, shape).astype("float32")
        given[f"{name}/gamma"] = random.normal(1, 0.5, channels).astype("float32")
        given[f"{name}/beta"] = random.normal(0, 0.5, channels).astype("float32")
        given[f"{name}/upstream"] = random.normal(0, 1, shape).astype("float32")
    code = f"""
for name, (shape, arguments) in {INSTANCE_NORMALIZATION!r}.items():
    layer = tfa.layers.InstanceNormalization(**arguments)
    layer.build(shape)
    layer.set_weights([given[f"{{name}}/{{w.name.split(':')[0].split('/')[-1]}}"] for w in layer.weights])
    x = tf.constant(given[f"{{name}}/x"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    gradients = tape.gradient(y, [x, *layer.trainable_variables], given[f"{{name}}/upstream"])
    results |= {{f"{{name}}/y": y, **{{f"{{name}}/d{{i}}": g for i, g in enumerate(gradients)}}}}
"""
    return given, ask(tmp_path_factory.mktemp("addons"), given, code)


@pytest.mark.parametrize("case", INSTANCE_NORMALIZATION)
def test_instance_normalization_equals_addons(instance_normalization, case):
    given, theirs = instance_normalization
    shape, arguments = INSTANCE_NORMALIZATION[case]
    layer = InstanceNormalization(**arguments)
    layer.build(shape)
    for variable in layer.trainable_variables:
        variable.assign(given[f"{case}/{variable.name}"])
    x = tf.constant(given[f"{case}/x"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x)
    gradients = tape.gradient(y, [x, *(v.value for v in layer.trainable_variables)], given[f"{case}/upstream"])

    assert len(gradients) == sum(key.startswith(f"{case}/d") for key in theirs)
    np.testing.assert_allclose(y, theirs[f"{case}/y"], rtol=1e-5, atol=2e-6)
    for i, gradient in enumerate(gradients):
        # Sums over up to 640 positions in another order.
        np.testing.assert_allclose(gradient, theirs[f"{case}/d{i}"], rtol=1e-4, atol=1e-4, err_msg=f"gradient {i}")
    print(f"{case}: output differs by {np.abs(y - theirs[f'{case}/y']).max():.1e}")
