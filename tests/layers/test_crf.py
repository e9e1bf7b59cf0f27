"""The dense CRF: against a NumPy oracle over all pairs, against pydensecrf, and by its gradients."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.layers import DenseCRF
from kerasmodels.layers.permutohedral import PermutohedralLattice
from tests.layers.pydensecrf_q import CASES, DEFAULTS, ITERATIONS, LABELS, picture_and_logits

METHODS = ("lattice", "window", "exact")
SMALL = {"bilateral_sxy": 6, "bilateral_srgb": 20, "radius": 12, "stride": 1}
"""With a window that holds the whole picture."""
TINY = {**SMALL, "radius": 4}


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def oracle(logits, picture, crf):
    """Mean field over all pairs of pixels, in float64, one picture: returns the logits of the last Q."""
    height, width, labels = logits.shape
    y, x = (axis.ravel() for axis in np.mgrid[:height, :width])
    place, color = np.stack([x, y], 1).astype("float64"), picture.reshape(-1, 3).astype("float64")
    kernels = []
    for parts, compat in (
        ([place / crf.gaussian_sxy], crf.gaussian_compat),
        ([place / crf.bilateral_sxy, color / crf.bilateral_srgb], crf.bilateral_compat),
    ):
        features = np.concatenate(parts, axis=1)
        kernel = np.exp(-0.5 * ((features[:, None] - features[None]) ** 2).sum(-1))
        norm = kernel.sum(1)
        left, right = {
            "symmetric": (norm**-0.5, norm**-0.5),
            "before": (1, 1 / norm),
            "after": (1 / norm, 1),
            "none": (1, 1),
        }[crf.normalization]
        kernels.append((kernel * np.reshape(left, (-1, 1)) * right, compat))
    unary = logits.reshape(-1, labels).astype("float64")
    answer = unary
    for _ in range(crf.iterations):
        answer = unary + sum(weight * (kernel @ softmax(answer)) for kernel, weight in kernels)
    return answer.reshape(logits.shape)


def scene(seed, height=11, width=9, labels=3, batch=2):
    random = np.random.default_rng(seed)
    picture = np.clip(128 + 60 * random.normal(size=(batch, 3, 3, 3)).repeat(4, 1).repeat(3, 2), 0, 255)
    picture = picture[:, :height, :width] + random.normal(0, 6, (batch, height, width, 3))
    return random.normal(size=(batch, height, width, labels)).astype("float32"), picture.astype("float32")


@pytest.mark.parametrize("normalization", ["symmetric", "before", "after", "none"])
@pytest.mark.parametrize("method", ["exact", "window"])
def test_equals_the_sum_over_all_pairs(method, normalization):
    crf = DenseCRF(3, 2.0, 1.5, bilateral_compat=2.5, normalization=normalization, method=method, **SMALL)
    logits, picture = scene(0)
    answers = crf([logits, picture]).numpy()
    for answer, *given in zip(answers, logits, picture, strict=True):
        np.testing.assert_allclose(answer, oracle(*given, crf), rtol=1e-5, atol=1e-4)
        np.testing.assert_allclose(softmax(answer), softmax(oracle(*given, crf)), atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_equals_pydensecrf(case):
    """The lattice has the same vertices and the same weights, so its errors are the same, too."""
    picture, logits = picture_and_logits()
    assert logits.shape[-1] == LABELS
    crf = DenseCRF(ITERATIONS, **{**DEFAULTS, **CASES[case]})
    ours = tf.nn.softmax(crf([logits[None], picture[None]]))[0].numpy()
    theirs = np.load(Path(__file__).with_name("pydensecrf_q.npz"))[case]
    assert (theirs.argmax(-1) != logits.argmax(-1)).mean() > 0.05
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_lattice_is_close_to_exact():
    """A photo's statistics rather than noise: regions, soft edges, a little grain."""
    picture, logits = picture_and_logits()
    exact, lattice = (
        softmax(DenseCRF(5, **DEFAULTS, method=m)([logits[None], picture[None]]).numpy()) for m in ("exact", "lattice")
    )
    assert (exact.argmax(-1) == lattice.argmax(-1)).mean() >= 0.99
    assert np.abs(exact - lattice).mean() <= 0.02


@pytest.mark.parametrize("method", METHODS)
def test_examples_do_not_see_each_other(method):
    crf = DenseCRF(2, 2.0, 1.0, bilateral_compat=1.0, method=method, **TINY)
    logits, picture = scene(1, batch=3)
    together = crf([logits, picture]).numpy()
    for i in range(3):
        np.testing.assert_allclose(together[i], crf([logits[i : i + 1], picture[i : i + 1]])[0], atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("learned", [False, True], ids=["Potts", "learned"])
def test_unknown_sizes_and_graph(method, learned):
    crf = DenseCRF(2, method=method, learned=learned, radius=1, stride=2)
    logits, picture = scene(2, height=10, width=7)
    specs = [[tf.TensorSpec((None, None, None, channels)) for channels in (3, 3)]]
    np.testing.assert_allclose(tf.function(crf, input_signature=specs)([logits, picture]), crf([logits, picture]), 1e-4)


def test_learned_weights_start_as_potts():
    logits, picture = scene(3)
    for method in METHODS:
        crf, learned = (DenseCRF(3, learned=on, method=method, **SMALL) for on in (False, True))
        np.testing.assert_allclose(learned([logits, picture]), crf([logits, picture]), rtol=1e-4, atol=1e-4)
        assert not crf.weights
    wide = DenseCRF(learned=True)
    wide.build([(None, None, None, 21), (None, None, None, 3)])
    assert wide.count_params() == 3 * 21**2 == 1323


# --- gradients --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_gradients(method):
    """Against finite differences, in the logits and in all three matrices of weights."""
    crf = DenseCRF(2, 2.0, 0.7, bilateral_compat=0.9, normalization="after", learned=True, method=method, **TINY)
    logits, picture = scene(4, height=6, width=5, batch=1)
    crf([logits, picture])
    random = np.random.default_rng(0)
    crf.set_weights([w + random.normal(0, 0.2, w.shape) for w in crf.get_weights()])
    seen = random.normal(size=logits.shape).astype("float32")
    variables = [tf.Variable(logits), *(w.value for w in crf.trainable_weights)]

    @tf.function
    def value():
        return tf.reduce_sum(seen * tf.nn.softmax(crf([variables[0], picture])))

    with tf.GradientTape() as tape:
        total = value()
    for variable, gradient in zip(variables, tape.gradient(total, variables), strict=True):
        assert np.abs(gradient).max() > 1e-3
        for _ in range(2):
            direction = random.normal(size=variable.shape).astype("float32")
            start, step, values = variable.numpy(), 1e-2, []
            for sign in (1, -1):
                variable.assign(start + sign * step * direction)
                values.append(float(value()))
            variable.assign(start)
            expected = (values[0] - values[1]) / (2 * step)
            assert abs(expected - np.sum(gradient * direction)) <= 2e-3 + 0.01 * abs(expected)


@pytest.mark.parametrize("method", ["window", "exact"])
def test_gradient_in_the_picture(method):
    logits, picture = scene(5, height=5, width=4, batch=1)
    crf, picture = DenseCRF(2, method=method, **TINY), tf.Variable(picture)
    with tf.GradientTape() as tape:
        total = tf.reduce_sum(tf.nn.softmax(crf([logits, picture])) ** 2)
    assert np.abs(tape.gradient(total, picture)).max() > 0


def test_recovers_the_compatibility_that_made_the_labels():
    """Trained on what a CRF of weight 4 made of noise, one that starts at 1 finds its way back."""
    logits, picture = scene(6, batch=4)
    truth = softmax(DenseCRF(3, 2.0, 0.0, bilateral_compat=4.0, **SMALL)([logits, picture]).numpy())
    crf = DenseCRF(3, 2.0, 0.0, bilateral_compat=1.0, learned=True, **SMALL)
    guess, photo = keras.Input((11, 9, 3)), keras.Input((11, 9, 3))
    model = keras.Model([guess, photo], crf([guess, photo]))
    crf.gaussian_weights.assign(np.zeros((3, 3)))
    crf.trainable_weights[0].trainable = False
    crf.compatibility.trainable = False
    model.compile(keras.optimizers.Adam(0.2), keras.losses.CategoricalCrossentropy(from_logits=True))
    losses = model.fit([logits, picture], truth, batch_size=4, epochs=60, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    found = crf.bilateral_weights.numpy()
    # A constant added to all labels changes nothing.
    found = found.diagonal().mean() - (found.sum() - found.trace()) / 6
    assert abs(found - 4) <= 0.8


# --- what it is for ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalization", ["symmetric", "after"])
@pytest.mark.parametrize("method", METHODS)
def test_cleans_a_noisy_labeling(method, normalization):
    """Two regions, a quarter of the pixels labeled wrongly."""
    random = np.random.default_rng(0)
    truth = np.zeros((24, 24), int)
    truth[:, 12:] = 1
    picture = np.where(truth[..., None] == 1, (200.0, 180, 90), (60.0, 80, 120)) + random.normal(0, 8, (24, 24, 3))
    wrong = random.uniform(size=truth.shape) < 0.25
    logits = 0.6 * np.eye(2)[truth ^ wrong]
    before = (logits.argmax(-1) == truth).mean()
    crf = DenseCRF(10, bilateral_sxy=20, method=method, normalization=normalization, stride=1)
    after = (crf([logits[None], picture[None]])[0].numpy().argmax(-1) == truth).mean()
    assert before <= 0.78
    assert after >= 0.97


def test_no_iterations_return_the_logits():
    logits, picture = scene(0)
    np.testing.assert_array_equal(DenseCRF(0)([logits, picture]), logits)


def test_without_kernels_nothing_changes():
    logits, picture = scene(0)
    np.testing.assert_array_equal(DenseCRF(3, gaussian_compat=0, bilateral_compat=0)([logits, picture]), logits)


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_loaded_equal(method, tmp_path):
    inputs = [keras.Input((8, 6, 3)), keras.Input((8, 6, 3))]
    crf = DenseCRF(2, (2, 3), bilateral_srgb=(9, 10, 11), learned=True, method=method, radius=2, stride=2)
    model = keras.Model(inputs, crf(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    given = scene(1, height=8, width=6)
    np.testing.assert_array_equal(loaded(given), model(given))
    assert loaded.layers[-1].get_config() == crf.get_config()


def test_mixed_precision_is_float32_inside():
    logits, picture = scene(0)
    crf = DenseCRF(2, dtype=keras.DTypePolicy("mixed_bfloat16"))
    answer = crf([tf.cast(logits, tf.bfloat16), picture])
    assert answer.dtype == "float32"
    expected = DenseCRF(2)([tf.cast(tf.cast(logits, tf.bfloat16), tf.float32), picture])
    np.testing.assert_array_equal(answer, expected)


@pytest.mark.parametrize("method", METHODS)
def test_learned_weights_train_under_any_policy(method):
    """Their arithmetic is float32: the loss and the new weights are those of a float32 layer."""
    given = scene(0)
    results = {}
    for policy in ("float32", "mixed_bfloat16", "mixed_float16", "bfloat16", "float64"):
        crf = DenseCRF(2, method=method, learned=True, radius=1, stride=2, dtype=policy)
        inputs = [keras.Input((None, None, 3), dtype="float32") for _ in range(2)]
        model = keras.Model(inputs, crf(inputs))
        assert model(given).dtype == "float32"
        # Other tests compile; here the dtypes are what is asked for, and a step is sooner taken than compiled.
        model.compile(keras.optimizers.SGD(1e-2), "mse", run_eagerly=policy != "mixed_bfloat16", jit_compile=False)
        loss = model.train_on_batch(given, np.zeros_like(given[0]))
        results[policy] = loss, [np.asarray(w, "float32") for w in crf.get_weights()]
    loss, weights = results["float32"]
    assert np.abs(weights[2] + np.eye(3)).max() > 0.01
    for policy, (other_loss, others) in results.items():
        assert other_loss == pytest.approx(loss, rel=1e-6), policy
        for other, weight in zip(others, weights, strict=True):
            # bfloat16 has 8 bits for the weights themselves.
            np.testing.assert_allclose(other, weight, rtol=2**-8 if policy == "bfloat16" else 1e-5, atol=1e-3)


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("method", [method for method in METHODS if DenseCRF(method=method).supports_jit])
def test_xla_trains_as_promised(method, learned):
    logits, picture = scene(0)
    results = []
    for compiled in (False, True):
        inputs = [keras.Input(x.shape[1:]) for x in (logits, picture)]
        crf = DenseCRF(2, method=method, learned=learned, radius=1, stride=2)
        before = keras.layers.Dense(3, kernel_initializer="identity")
        model = keras.Model(inputs, crf([before(inputs[0]), inputs[1]]))
        model.compile(keras.optimizers.SGD(1e-2), "mse", jit_compile=compiled)
        loss = model.train_on_batch([logits, picture], np.zeros_like(logits))
        results.append((loss, model.get_weights()))
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-4)
    for ours, wanted in zip(results[1][1], results[0][1], strict=True):
        np.testing.assert_allclose(ours, wanted, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "fast"}, "method must be one of"),
        ({"normalization": "both"}, "normalization must be one of"),
        ({"iterations": -1}, "iterations must be an integer >= 0"),
        ({"radius": 0}, "radius must be"),
        ({"gaussian_sxy": 0}, "gaussian_sxy must be a number > 0"),
        ({"bilateral_srgb": (1, 2)}, "bilateral_srgb must be a number > 0, or 3"),
        ({"bilateral_compat": float("nan")}, "bilateral_compat must be"),
        ({"gaussian_compat": [[1, 2, 3]]}, "gaussian_compat must be"),
        ({"learned": True, "gaussian_compat": [1.0, 2.0]}, "two numbers"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        DenseCRF(**arguments)


def test_bad_inputs():
    logits, picture = scene(0)
    with pytest.raises(ValueError, match="of one size"):
        DenseCRF()([logits, picture[:, :-1]])
    with pytest.raises(ValueError, match="for 3 labels"):
        DenseCRF(gaussian_compat=[1.0, 2.0])([logits, picture])
    with pytest.raises(ValueError, match="at most 16384 pixels"):
        DenseCRF(method="exact")([np.zeros((1, 130, 130, 2)), np.zeros((1, 130, 130, 3))])


# --- the lattice ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 3, 5])
def test_lattice_is_a_gaussian_where_points_are_dense(d):
    """Points on a fine grid (scattered in more dimensions): the filter's response is near the Gaussian's."""
    random = np.random.default_rng(d)
    points = random.uniform(-3, 3, (1, 4000, d)).astype("float32") * (1 if d < 3 else 0.4)
    values = random.normal(size=(4000, 2)).astype("float32") + 1
    kernel = np.exp(-0.5 * ((points[0][:, None] - points[0][None, :200]) ** 2).sum(-1))
    expected = kernel.T @ values
    ours = PermutohedralLattice(points).filter()(values).numpy()[:200]
    # Normalized, as it is used.
    ones = PermutohedralLattice(points).filter()(np.ones((4000, 1), "float32")).numpy()[:200]
    error = np.abs(ours / ones - expected / kernel.sum(0)[:, None]).mean()
    assert error <= 0.02 * np.abs(expected / kernel.sum(0)[:, None]).mean()


def test_lattice_knows_no_range():
    """Moving all points far away changes nothing but their rounding."""
    random = np.random.default_rng(0)
    points = random.uniform(0, 4, (1, 300, 2)).astype("float32")
    values = random.normal(size=(300, 1)).astype("float32")
    here, there = (PermutohedralLattice(points + shift).filter()(values) for shift in (0.0, 6 * 3 * 512.0))
    # A multiple of the lattice's period keeps the simplices.
    assert np.abs(here).max() > 0.1
    np.testing.assert_allclose(there.numpy().mean(), here.numpy().mean(), atol=0.05)
