import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.errors import DataError
from kerasmodels.export import export_servable
from kerasmodels.family import Servable, TensorSpec
from kerasmodels.losses import MattingEnergy, MattingLaplacian, laplacian_product, matting_laplacian_matrix

RANDOM = np.random.default_rng(0)
NOISE = RANDOM.uniform(size=(2, 9, 7, 3))


def photo_like(height, width, seed=0):
    """Smooth colors, an edge, camera noise, 8 bits, and a flat and a gray region: the hard cases of real pictures."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    picture = np.stack([0.5 + 0.4 * np.sin(x / 9 + c) * np.cos(y / 7 - c) for c in range(3)], -1)
    picture[:, width // 2 :] *= 0.6
    picture = np.round(255 * np.clip(picture + rng.normal(0, 0.01, picture.shape), 0, 1)) / 255
    picture[: height // 4] = picture[: height // 4].mean(-1, keepdims=True)
    picture[-height // 4 :, : width // 3] = 0.25
    return picture[None]


def windows_loop(image, epsilon=1e-7):
    """L as equation 12 says it, one window and one pair of pixels at a time."""
    height, width, _ = image.shape
    matrix = np.zeros((height * width, height * width))
    for top in range(height - 2):
        for left in range(width - 2):
            pixels = [(y, x) for y in range(top, top + 3) for x in range(left, left + 3)]
            colors = np.array([image[p] for p in pixels])
            mean = colors.mean(0)
            inverse = np.linalg.inv(np.cov(colors.T, bias=True) + epsilon / 9 * np.eye(3))
            for p, a in zip(pixels, colors, strict=True):
                for q, b in zip(pixels, colors, strict=True):
                    value = (p == q) - (1 + (a - mean) @ inverse @ (b - mean)) / 9
                    matrix[p[0] * width + p[1], q[0] * width + q[1]] += value
    return matrix


def explicit_product(image, p, epsilon=1e-7):
    """L p by the sparse matrix, picture by picture."""
    flat = [matting_laplacian_matrix(i, epsilon) @ q.reshape(-1, q.shape[-1]) for i, q in zip(image, p, strict=True)]
    return np.stack(flat).reshape(p.shape)


# --- the matrix


def test_matrix_equals_a_loop_over_windows():
    np.testing.assert_allclose(matting_laplacian_matrix(NOISE[0]).toarray(), windows_loop(NOISE[0]), atol=1e-10)


def test_rows_sum_to_zero():
    assert abs(matting_laplacian_matrix(NOISE[0]).sum(axis=1)).max() < 1e-12
    assert np.abs(laplacian_product(NOISE, np.ones((2, 9, 7, 1)))).max() == 0


@pytest.mark.parametrize("image", [NOISE[0], photo_like(10, 9)[0]], ids=["noise", "photo"])
def test_symmetric_and_positive_semidefinite(image):
    height, width, _ = image.shape
    basis = np.eye(height * width).reshape(1, height, width, -1)
    matrix = np.asarray(laplacian_product(image[None], basis)).reshape(height * width, -1)
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-14)
    assert np.linalg.eigvalsh(matrix).min() > -1e-12
    assert np.linalg.eigvalsh(matting_laplacian_matrix(image).toarray()).min() > -1e-8
    diagonal = np.asarray(MattingLaplacian(image[None]).diagonal()).ravel()
    np.testing.assert_allclose(diagonal, np.diag(matrix), atol=1e-13)


# --- the operator


@pytest.mark.parametrize(
    "image", [NOISE, photo_like(24, 31), np.full((1, 5, 6, 3), 0.3)], ids=["noise", "photo", "flat"]
)
def test_product_equals_the_matrix(image):
    p = RANDOM.uniform(size=(*image.shape[:3], 2))
    expected = explicit_product(image, p)
    double = laplacian_product(image, p)
    assert double.dtype == "float64"
    np.testing.assert_allclose(double, expected, atol=1e-8)
    single = laplacian_product(image.astype("float32"), p.astype("float32"))
    assert single.dtype == "float32"
    # Against the matrix of what the float32 picture really holds: 1e-7 off in a gray window is another color.
    expected = explicit_product(image.astype("float32").astype("float64"), p)
    assert np.abs(single - expected).max() < 1e-4 * np.abs(expected).max()


def test_smallest_picture_and_another_epsilon():
    image, p = RANDOM.uniform(size=(1, 3, 3, 3)), RANDOM.uniform(size=(1, 3, 3, 1))
    np.testing.assert_allclose(laplacian_product(image, p, 0.1), explicit_product(image, p, 0.1), atol=1e-12)
    assert np.abs(laplacian_product(image, p, 0.1) - laplacian_product(image, p)).max() > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_affine_function_of_the_colors_costs_nothing(dtype):
    image = NOISE.astype(dtype)
    affine = image @ np.array([[0.3], [-0.5], [1.1]], dtype) + np.asarray(1, dtype)
    laplacian = MattingLaplacian(image)
    random = np.asarray(laplacian.energy(RANDOM.uniform(size=affine.shape)))
    assert np.all(np.abs(laplacian.energy(affine)) < 1e-5 * random)
    assert np.all(random > 1)


def test_energy_and_its_gradient():
    image, p = photo_like(8, 9), RANDOM.uniform(size=(1, 8, 9, 2))
    laplacian, variable = MattingLaplacian(image), tf.Variable(p)
    with tf.GradientTape() as tape:
        energy = laplacian.energy(variable)
    product = np.asarray(laplacian(p))
    np.testing.assert_allclose(energy, (p * product).sum(axis=(1, 2, 3)), rtol=1e-9)
    gradient = tape.gradient(energy, variable).numpy()
    np.testing.assert_allclose(gradient, 2 * product, atol=1e-10)
    for index in [(0, 0, 0, 0), (0, 4, 5, 1), (0, 7, 8, 0)]:
        step = np.zeros_like(p)
        step[index] = 1e-3
        difference = (laplacian.energy(p + step) - laplacian.energy(p - step)) / 2e-3
        np.testing.assert_allclose(gradient[index], difference[0], rtol=1e-6, atol=1e-8)


def test_gradient_of_the_product_is_the_product():
    image, p, direction = NOISE, RANDOM.uniform(size=(2, 9, 7, 1)), RANDOM.uniform(size=(2, 9, 7, 1))
    variable = tf.Variable(p)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(laplacian_product(image, variable) * direction)
    np.testing.assert_allclose(tape.gradient(value, variable), laplacian_product(image, direction), atol=1e-10)


def test_gradient_with_respect_to_the_picture_is_finite_and_right():
    image, p = tf.Variable(NOISE), RANDOM.uniform(size=(2, 9, 7, 1))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(MattingLaplacian(image, 1e-2).energy(p))
    step = np.zeros_like(NOISE)
    step[1, 4, 3, 2] = 1e-4
    up, down = (np.sum(MattingLaplacian(NOISE + s, 1e-2).energy(p)) for s in (step, -step))
    np.testing.assert_allclose(tape.gradient(value, image)[1, 4, 3, 2], (up - down) / 2e-4, rtol=1e-5)


def test_batch_equals_one_by_one():
    p = RANDOM.uniform(size=(2, 9, 7, 3))
    both = np.asarray(laplacian_product(NOISE, p))
    for i in range(2):
        np.testing.assert_allclose(both[i], laplacian_product(NOISE[i : i + 1], p[i : i + 1])[0], atol=1e-12)
    for c in range(3):
        np.testing.assert_allclose(both[..., c : c + 1], laplacian_product(NOISE, p[..., c : c + 1]), atol=1e-12)


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_inside_a_graph_of_unknown_size(jit):
    spec = tf.TensorSpec((None, None, None, 3), tf.float64)
    compiled = tf.function(laplacian_product, input_signature=[spec, spec], jit_compile=jit)
    for shape in [(1, 5, 8, 3), (2, 3, 4, 3)]:
        image, p = RANDOM.uniform(size=(2, *shape))
        np.testing.assert_allclose(compiled(image, p), laplacian_product(image, p), atol=1e-10)


def test_exports_to_every_format(tmp_path):
    def call(image, p):
        laplacian = MattingLaplacian(image)
        return {"product": laplacian(p), "energy": laplacian.energy(p)}

    def example(dims, seed):
        image = photo_like(dims["height"], dims["width"], seed).repeat(dims["batch"], 0).astype("float32")
        p = np.random.default_rng(seed).uniform(size=(*image.shape[:3], 1)).astype("float32")
        return {"image": image, "p": p}

    pictures, maps = ("batch", "height", "width", 3), ("batch", "height", "width", 1)
    servable = Servable(
        call=call,
        model=keras.Sequential([keras.Input((1,))]),
        inputs=(TensorSpec("image", pictures, "float32", "RGB, 0-1"), TensorSpec("p", maps, "float32", "0-1")),
        outputs=(
            TensorSpec("product", maps, "float32", "L p", atol=1e-3),
            TensorSpec("energy", ("batch",), "float32", "p^T L p", atol=1e-2),
        ),
        example=example,
        dims={"batch": 1, "height": 12, "width": 10},
        check_dims=({"batch": 2, "height": 9, "width": 16},),
    )
    report = export_servable(servable, "matting", tmp_path)
    assert {artifact.format for artifact in report.artifacts} == {"saved_model", "litert", "onnx"}


# --- the loss


def test_loss_is_the_energy_at_any_scale_of_values():
    p = RANDOM.uniform(size=NOISE.shape)
    expected = np.asarray(MattingLaplacian(NOISE).energy(p))
    loss = MattingEnergy(reduction=None)
    np.testing.assert_allclose(loss(NOISE, p), expected, rtol=1e-4)
    np.testing.assert_allclose(MattingEnergy(max_value=255, reduction=None)(255 * NOISE, 255 * p), expected, rtol=1e-4)
    again = keras.losses.deserialize(keras.losses.serialize(MattingEnergy(epsilon=1e-3, max_value=255)))
    assert (again.epsilon, again.max_value) == (1e-3, 255.0)


def test_loss_trains():
    photo = photo_like(12, 12).astype("float32")
    model = keras.Sequential([keras.Input((12, 12, 3)), keras.layers.Conv2D(3, 3, padding="same")])
    model.compile(keras.optimizers.Adam(0.01), loss=MattingEnergy(), jit_compile=False)
    losses = model.fit(photo, photo, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]


# --- mistakes


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((1, 2, 9, 3)), "at least 3x3"),
        (np.zeros((9, 9, 3)), r"\(N, H, W, 3\)"),
        (np.zeros((1, 9, 9, 4)), r"\(N, H, W, 3\)"),
        (np.zeros((1, 9, 9, 3), "uint8"), "Divide it by 255"),
        (np.full((1, 9, 9, 3), 200.0), "Divide it by 255"),
        (np.full((1, 9, 9, 3), np.nan), "finite"),
        (np.full((1, 9, 9, 3), -0.5), "0-1"),
    ],
)
def test_unusable_pictures(image, message):
    with pytest.raises(DataError, match=message):
        MattingLaplacian(image)


def test_unusable_maps_and_epsilon():
    laplacian = MattingLaplacian(NOISE)
    for shape in [(2, 9, 8, 1), (2, 9, 7), (1, 9, 7, 1)]:
        with pytest.raises(DataError, match="Received shape"):
            laplacian(np.zeros(shape))
    with pytest.raises(DataError, match="epsilon"):
        MattingLaplacian(NOISE, 0)
    with pytest.raises(DataError, match=r"\(H, W, 3\)"):
        matting_laplacian_matrix(NOISE)
