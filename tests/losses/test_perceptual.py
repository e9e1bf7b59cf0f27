import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.losses import Content, GramStyle, Perceptual, TotalVariation, gram_matrix, total_variation

RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.normal(size=(2, 6, 5, 4)).astype("float32")
PHOTOS = RANDOM.uniform(0, 255, (3, 32, 24, 3)).astype("float32")
PAINTING = RANDOM.uniform(0, 255, (40, 36, 3)).astype("float32")


@pytest.fixture(scope="module")
def backbone():
    """A small real convolution stack with two taps."""
    keras.utils.set_random_seed(0)
    pictures = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(pictures)
    first = keras.layers.Conv2D(6, 3, activation="relu", padding="same")(x)
    second = keras.layers.Conv2D(8, 3, activation="relu", padding="same")(keras.layers.MaxPooling2D()(first))
    return keras.Model(pictures, {"a": first, "b": second})


# --- Gram matrices


def test_gram_equals_its_definition_in_float64():
    f = FEATURES.astype("float64").reshape(2, -1, 4)
    np.testing.assert_allclose(gram_matrix(FEATURES), np.einsum("npi,npj->nij", f, f) / (30 * 4), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 9, 4), (2, 3, 4, 5, 4)], ids=["1-D", "3-D"])
def test_gram_of_signals_and_volumes(shape):
    x = RANDOM.normal(size=shape).astype("float32")
    flat = x.reshape(2, -1, 1, 4)
    np.testing.assert_allclose(gram_matrix(x), gram_matrix(flat), rtol=1e-6)


def test_gram_does_not_see_where_things_are():
    shuffled = RANDOM.permutation(FEATURES.reshape(2, -1, 4), axis=1).reshape(FEATURES.shape)
    np.testing.assert_allclose(gram_matrix(FEATURES), gram_matrix(shuffled), atol=1e-6)


def test_gram_of_a_tiled_picture_is_that_of_the_picture():
    np.testing.assert_allclose(gram_matrix(np.tile(FEATURES, (1, 3, 2, 1))), gram_matrix(FEATURES), atol=1e-6)


def test_masked_gram_is_that_of_the_region():
    mask = np.zeros((1, 6, 5), "float32")
    mask[:, 1:4, 2:] = 1
    np.testing.assert_allclose(gram_matrix(FEATURES, mask), gram_matrix(FEATURES[:, 1:4, 2:]), rtol=1e-5, atol=1e-6)


def test_gram_of_an_empty_region_is_zero():
    assert np.all(np.asarray(gram_matrix(FEATURES, np.zeros((1, 6, 5), "float32"))) == 0)


# --- losses


def test_equal_pictures_cost_nothing(backbone):
    assert float(Content(backbone)(PHOTOS, PHOTOS)) == 0
    tiled = np.stack([PAINTING] * 2)
    assert float(GramStyle(backbone, PAINTING)(tiled, tiled)) < 1e-9


def test_content_equals_numpy(backbone):
    before, after = backbone(PHOTOS), backbone(PHOTOS[::-1])
    expected = 2 * np.mean(np.square(np.subtract(before["a"], after["a"]))) + 3 * np.mean(
        np.square(np.subtract(before["b"], after["b"]))
    )
    assert float(Content(backbone, {"a": 2, "b": 3})(PHOTOS, PHOTOS[::-1])) == pytest.approx(expected, rel=1e-5)


def test_style_equals_numpy(backbone):
    def grams(pictures):
        return {t: np.asarray(gram_matrix(f)) for t, f in backbone(pictures).items()}

    want, have = grams(PAINTING[None]), grams(PHOTOS)
    expected = np.mean(sum(np.mean(np.square(have[t] - want[t]), axis=(1, 2)) for t in ("a", "b")))
    assert float(GramStyle(backbone, PAINTING)(PHOTOS, PHOTOS)) == pytest.approx(expected, rel=1e-5)


def test_style_masks_choose_regions(backbone):
    """Learning from the left half only is learning from a picture whose right half is anything."""
    mask = np.zeros(PAINTING.shape[:2], "float32")
    mask[:, :18] = 1
    other = PAINTING.copy()
    other[:, 26:] = 0  # beyond the reach of the masked features
    one, two = (GramStyle(backbone, p, style_mask=mask)(PHOTOS, PHOTOS) for p in (PAINTING, other))
    assert float(one) == pytest.approx(float(two), rel=1e-5)
    assert float(one) != pytest.approx(float(GramStyle(backbone, PAINTING)(PHOTOS, PHOTOS)), rel=1e-3)


def test_output_mask_leaves_the_rest_alone(backbone):
    mask = np.zeros((32, 24), "float32")
    mask[:12] = 1
    loss, photos = GramStyle(backbone, PAINTING, mask=mask), tf.Variable(PHOTOS)
    with tf.GradientTape() as tape:
        value = loss(PHOTOS, photos)
    gradient = np.abs(tape.gradient(value, photos).numpy())
    assert gradient[:, :12].max() > 0
    assert gradient[:, 18:].max() == 0


def test_perceptual_is_the_sum_of_its_terms(backbone):
    loss = Perceptual(backbone, PAINTING, {"b": 2.0}, {"a": 3.0, "b": 4.0}, total_variation_weight=1e-3)
    terms = loss.terms(PHOTOS, PHOTOS[::-1])
    assert list(terms) == ["content", "style", "total_variation"]
    assert {t: tuple(v.shape) for t, v in terms.items()} == dict.fromkeys(terms, (3,))
    parts = (
        2 * float(Content(backbone, {"b": 1})(PHOTOS, PHOTOS[::-1]))
        + float(GramStyle(backbone, PAINTING, {"a": 3.0, "b": 4.0})(PHOTOS, PHOTOS[::-1]))
        + 1e-3 * float(TotalVariation()(PHOTOS, PHOTOS[::-1]))
    )
    assert float(loss(PHOTOS, PHOTOS[::-1])) == pytest.approx(parts, rel=1e-5)


def test_gradient_equals_finite_differences(backbone):
    loss = Perceptual(backbone, PAINTING, {"b": 1.0}, {"a": 5.0}, total_variation_weight=1e-4)
    x = tf.Variable(PHOTOS[:1, :8, :8] * 0.9)
    target = PHOTOS[:1, :8, :8]
    direction = RANDOM.normal(size=x.shape).astype("float32")
    with tf.GradientTape() as tape:
        value = loss(target, x)
    along = float(np.sum(tape.gradient(value, x).numpy().astype("float64") * direction))
    step = 0.05
    ahead, behind = (float(loss(target, x + s * step * direction)) for s in (1, -1))
    assert (ahead - behind) / (2 * step) == pytest.approx(along, rel=2e-2)


def test_trains_any_model_with_fit_and_is_not_saved_with_it(backbone, tmp_path):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((32, 24, 3))
    model = keras.Model(inputs, keras.layers.Conv2D(3, 3, padding="same")(inputs))
    model.compile(
        keras.optimizers.Adam(1e-3), Perceptual(backbone, PAINTING, {"a": 1.0}, {"b": 1.0}), jit_compile=False
    )
    losses = model.fit(PHOTOS, PHOTOS, epochs=8, verbose=0).history["loss"]
    assert losses[-1] < 0.9 * losses[0]
    assert backbone.trainable_variables  # a user may hand in a trainable one ...
    before = [v.numpy() for v in backbone.weights]
    model.fit(PHOTOS, PHOTOS, verbose=0)
    for weight, old in zip(backbone.weights, before, strict=True):  # ... which the loss never trains
        np.testing.assert_array_equal(weight.numpy(), old)
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    import h5py

    shapes = []
    with h5py.File(tmp_path / "model.weights.h5") as file:
        file.visititems(lambda _, item: shapes.append(item.shape) if isinstance(item, h5py.Dataset) else None)
    assert (3, 3, 6, 8) not in shapes  # the backbone's second kernel


def test_bfloat16_backbone_is_compared_in_float32(backbone):
    half = keras.models.clone_model(
        backbone, clone_function=lambda layer: type(layer).from_config({**layer.get_config(), "dtype": "bfloat16"})
    )
    half.set_weights(backbone.get_weights())
    exact, rough = (
        float(Perceptual(b, PAINTING, {"b": 1.0}, {"a": 1.0})(PHOTOS, PHOTOS[::-1])) for b in (backbone, half)
    )
    assert rough == pytest.approx(exact, rel=0.03)


# --- signals and volumes


def conv_stack(convolution, pooling, positions):
    """A small network of 1-D or 3-D convolutions with two taps."""
    keras.utils.set_random_seed(2)
    inputs = keras.Input((*positions, 2))
    first = convolution(5, 3, activation="relu", padding="same")(inputs)
    second = convolution(4, 3, activation="relu", padding="same")(pooling(2)(first))
    return keras.Model(inputs, {"a": first, "b": second})


STACKS = {
    "signal": ((16,), keras.layers.Conv1D, keras.layers.MaxPooling1D),
    "volume": ((8, 6, 10), keras.layers.Conv3D, keras.layers.MaxPooling3D),
}


@pytest.fixture(scope="module", params=STACKS)
def stack(request):
    positions, convolution, pooling = STACKS[request.param]
    return conv_stack(convolution, pooling, positions), positions


def test_style_and_content_of_signals_and_volumes(stack):
    backbone, positions = stack
    style, x = (RANDOM.normal(size=(n, *positions, 2)).astype("float32") for n in (1, 3))
    want, have = backbone(style), backbone(x)
    expected = 0.0
    for tap in ("a", "b"):
        a, b = (np.asarray(f[tap], "float64").reshape(len(f[tap]), -1, f[tap].shape[-1]) for f in (want, have))
        grams = [np.einsum("npi,npj->nij", f, f) / (f.shape[1] * f.shape[2]) for f in (a, b)]
        expected += np.mean((grams[0] - grams[1]) ** 2)
    for given in (style, style[0]):  # with the leading 1 and without
        assert float(GramStyle(backbone, given)(x, x)) == pytest.approx(expected, rel=1e-5)
    whole = Perceptual(backbone, style[0], {"b": 2.0}, {"a": 1.0}, total_variation_weight=0.5)
    terms = {name: float(np.mean(term)) for name, term in whole.terms(x, x[::-1]).items()}
    assert terms["content"] == pytest.approx(2 * np.mean((have["b"] - have["b"][::-1]) ** 2), rel=1e-5)
    assert terms["total_variation"] == pytest.approx(0.5 * float(TotalVariation()(x, x)), rel=1e-5)


def test_masks_of_signals_and_volumes(stack):
    """A mask on the first half of the first axis: the rest is not looked at, and gets no gradient."""
    backbone, positions = stack
    style, x = (RANDOM.normal(size=(1, *positions, 2)).astype("float32") for _ in range(2))
    mask = np.zeros(positions, "float32")
    half = positions[0] // 2
    mask[:half] = 1
    other = style.copy()
    other[:, half + 4 :] = 9.0
    one, two = (GramStyle(backbone, s, {"a": 1.0}, style_mask=mask, mask=mask) for s in (style, other))
    np.testing.assert_allclose(one.targets["a"], two.targets["a"], rtol=1e-6)
    np.testing.assert_allclose(
        one.targets["a"], gram_matrix(np.asarray(backbone(style)["a"])[:, :half]), rtol=1e-5, atol=1e-7
    )
    variable = tf.Variable(x)
    with tf.GradientTape() as tape:
        value = one(x, variable)
    gradient = np.abs(tape.gradient(value, variable).numpy())
    assert gradient[:, :half].max() > 0
    assert gradient[:, half + 1 :].max() == 0
    # At the pooled tap the mask has half the resolution.
    pooled = GramStyle(backbone, style, {"b": 1.0}, style_mask=mask)
    quarter = gram_matrix(np.asarray(backbone(style)["b"])[:, : half // 2])
    np.testing.assert_allclose(pooled.targets["b"], quarter, rtol=1e-5, atol=1e-7)


def test_a_signal_s_masks_and_shapes_are_checked():
    backbone = conv_stack(keras.layers.Conv1D, keras.layers.MaxPooling1D, (None,))
    signal = np.zeros((16, 2))
    with pytest.raises(ValueError, match=r"one signal \(L, 2\)\. Received shape: \(16, 3\)"):
        GramStyle(backbone, np.zeros((16, 3)))
    with pytest.raises(ValueError, match=r"one signal \(L, 2\)\. Received shape: \(5, 16, 2\)"):
        GramStyle(backbone, np.zeros((5, 16, 2)))
    with pytest.raises(ValueError, match=r"a mask must be \(L,\)"):
        GramStyle(backbone, signal, style_mask=np.ones((4, 4)))
    with pytest.raises(ValueError, match="a known size"):
        GramStyle(backbone, signal, mask=np.ones(16)).call(None, keras.Input((None, 2)))


def test_total_variation_of_a_signal_and_a_volume():
    signal = np.array([0.0, 3.0, 1.0], "float32").reshape(1, 3, 1)
    assert np.asarray(total_variation(signal)).tolist() == [0.5 * (9 + 4)]
    volume = RANDOM.normal(size=(2, 4, 3, 5, 2)).astype("float32")
    expected = 0.5 * sum(np.sum(np.diff(volume.astype("float64"), axis=a) ** 2, axis=(1, 2, 3, 4)) for a in (1, 2, 3))
    np.testing.assert_allclose(total_variation(volume), expected, rtol=1e-5)


# --- total variation


def test_total_variation_by_hand():
    picture = np.array([[0, 3], [4, 0]], "float32").reshape(1, 2, 2, 1)
    assert np.asarray(total_variation(picture)).tolist() == [0.5 * (9 + 16 + 16 + 9)]


def test_total_variation_gradient_is_the_released_code_s():
    """In the interior, 4 x(i,j) minus its four neighbors."""
    x = tf.Variable(RANDOM.normal(size=(1, 7, 7, 1)).astype("float32"))
    with tf.GradientTape() as tape:
        y = total_variation(x)
    p = x.numpy()[0, :, :, 0]
    laplacian = 4 * p[1:-1, 1:-1] - p[:-2, 1:-1] - p[2:, 1:-1] - p[1:-1, :-2] - p[1:-1, 2:]
    np.testing.assert_allclose(tape.gradient(y, x)[0, 1:-1, 1:-1, 0], laplacian, atol=1e-5)


# --- wrong use


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda b: GramStyle(b, PAINTING[..., :1]), "one RGB picture"),
        (lambda b: GramStyle(b, np.stack([PAINTING] * 2)), "one RGB picture"),
        (lambda b: GramStyle(b, PAINTING, {"c": 1}), "no tap 'c'. It has: a, b"),
        (lambda b: Content(b, {"c": 1}), "no tap 'c'"),
        (lambda b: Content(lambda x: {"a": x}), "weights must be given"),
        (lambda b: GramStyle(b, PAINTING, style_mask=PAINTING), "a mask must be"),
        (lambda b: GramStyle(b, PAINTING, mask=np.full((4, 4), 2.0)), "values 0-1"),
        (lambda b: Perceptual(b, PAINTING, {"a": 1.0}), "go together"),
        (lambda b: Perceptual(b, None, {"a": 1.0}, {"a": 1.0}), "go together"),
        (lambda b: Perceptual(b), "no term to sum"),
    ],
)
def test_says_what_is_wrong(backbone, make, words):
    with pytest.raises(ValueError, match=words):
        make(backbone)
