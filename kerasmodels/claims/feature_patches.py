"""The claims of `feature_patches`: what units see, and that the patches which excite a unit are alike."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import keras
import numpy as np
from keras import layers
from PIL import Image

from kerasmodels.backbones import VGG16, VGG19, receptive_field
from kerasmodels.claims.evidence import average, seen
from kerasmodels.data import list_images, read_image, write_image
from kerasmodels.errors import DataError
from kerasmodels.family import Claim, Experiment
from kerasmodels.models.feature_patches import Config, FeaturePatches
from kerasmodels.tasks.patches import patch_sheet, top_patches


def fields(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """The receptive field of every convolution: by arithmetic, and as far as gradients reach."""
    published = {
        "vgg16": (3, 5, 10, 14, 24, 32, 40, 60, 76, 92, 132, 164, 196),
        "vgg19": (3, 5, 10, 14, 24, 32, 40, 48, 68, 84, 100, 116, 156, 188, 220, 252),
        "alexnet": (11, 51, 99, 131, 163),
    }
    # Averages, because a maximum has a gradient at one place only.
    networks = {
        "vgg16": lambda: VGG16(["conv5_3"], weights=None, pooling="avg"),
        "vgg19": lambda: VGG19(["conv5_4"], weights=None, pooling="avg"),
        "alexnet": _alexnet,
    }
    claims = []
    for name, sizes in published.items():
        network = networks[name]()
        names = [layer.name for layer in network.layers if isinstance(layer, layers.Conv2D)][: 7 if quick else None]
        computed = [receptive_field(network, layer).size[0] for layer in names]
        expected, ours, reach = (
            ", ".join(map(str, numbers)) for numbers in (sizes[: len(names)], computed, _reach(network, names))
        )
        text = f"receptive fields of {name}'s convolutions"
        claims += [
            Claim(f"{name}_fields", f"{text} by arithmetic, pixels", expected, ours, equals=expected),
            Claim(f"{name}_reach", f"{text} as far as gradients reach, pixels", expected, reach, equals=expected),
        ]
    return claims


def _alexnet() -> keras.Model:
    """The geometry of AlexNet's convolutions, one channel each."""
    picture = keras.Input((None, None, 1))
    x = layers.AveragePooling2D(3, 2)(layers.Conv2D(1, 11, 4, name="conv1")(picture))
    x = layers.AveragePooling2D(3, 2)(layers.Conv2D(1, 5, padding="same", name="conv2")(x))
    for name in ("conv3", "conv4", "conv5"):
        x = layers.Conv2D(1, 3, padding="same", name=name)(x)
    return keras.Model(picture, x)


def _reach(network: keras.Model, names: Sequence[str]) -> list[int]:
    """How many rows of the picture have a gradient of an inner unit of each layer, where no weight is negative or 0."""
    average(network)
    reaches = []
    for name in names:
        field, model = receptive_field(network, name), keras.Model(network.input, network.get_layer(name).output)
        position = -(field.start[0] // field.jump[0]) + 1
        box = field.box((position, position))[0]
        reached = seen(model, box[1] + 2 * field.jump[0], position, position)
        reaches.append(box[1] - box[0] if reached == tuple(box) else -1)
    return reaches


def alike(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Are a unit's nine patches alike, and are they what the unit sees? VGG19, which did not choose them, says.

    Paper: figure 2. Photos: those of --data, one patch a photo; the figures show scikit-image's photos, cut in pieces.
    """
    own = list(_pieces(96 if quick else 160))
    photos = own if data is None else [(str(path), read_image(path, 384)) for path in list_images(data)]
    network = VGG19(["relu4_1"])
    random = np.random.default_rng(0)
    claims, errors, gains = [], [0.0], []
    for layer in ("relu1_2", "relu2_2", "relu3_3", "relu4_3")[: 3 if quick else 4]:
        model = FeaturePatches(Config(layer=layer))
        units = [int(u) for u in random.choice(model.units, 8 if quick else 24, replace=False)]
        found = top_patches(model, photos, units)
        best = {unit: patches for unit, patches in found.items() if len(patches) == 9}
        for unit, patches in best.items():
            pixels = np.stack([patch.pixels for patch in patches if patch.inside])
            values = np.array([patch.activation for patch in patches if patch.inside])
            errors += list(np.abs(np.asarray(model.on_patches(pixels))[:, unit] - values) / values)
        chosen = [_spread(network, [patch.pixels for patch in patches]) for patches in best.values()]
        others = [_spread(network, _random_patches(photos, model.field.size[0], random)) for _ in best]
        ratio = float(np.mean(chosen) / np.mean(others))
        text = (
            f"{layer}: distance between the nine patches of a unit, as a part of that between nine random patches "
            f"(mean of {len(best)} units; {len(photos)} photos or pieces)"
        )
        claims.append(Claim(layer, text, "figure 2: they are alike", round(ratio, 3), at_most=0.999))
        if layer in ("relu3_3", "relu4_3"):
            shown = list(best)[:4]
            ours = top_patches(model, own, shown)
            maximized = model.maximize(shown, 20 if quick else 120)
            write_image(figures / f"feature_patches_{layer}.jpg", patch_sheet(ours, 9, maximized, 72))
            excited = np.asarray(model.on_patches(maximized))
            gains += [excited[i, unit] / best[unit][0].activation for i, unit in enumerate(shown)]
    return [
        *claims,
        Claim(
            "patch_alone",
            "a unit on its patch alone, without padding, against its value in the whole photo: largest difference, as "
            "a part of the value",
            "the same number",
            float(f"{max(errors):.2g}"),
            at_most=1e-4,
        ),
        Claim(
            "maximized",
            "a picture optimized to excite a unit, against its best patch: activation, as a multiple (least of the "
            "figures')",
            "not given",
            round(float(min(gains)), 2),
            at_least=1.01,
        ),
    ]


def _spread(network: keras.Model, patches: Sequence[np.ndarray]) -> float:
    """Mean cosine distance between the patches' features, averaged over positions, of all pairs."""
    large = [
        np.asarray(Image.fromarray(patch).resize((64, 64), Image.Resampling.BICUBIC), "float32") for patch in patches
    ]
    features = np.mean(network(np.stack(large))["relu4_1"], axis=(1, 2))
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    return float(np.mean(1 - (features @ features.T)[np.triu_indices(len(patches), 1)]))


def _random_patches(
    photos: Sequence[tuple[str, np.ndarray]], side: int, random: np.random.Generator
) -> list[np.ndarray]:
    """Nine patches from anywhere in nine photos, whose sides are no shorter than the patch."""
    large = [photo for _, photo in photos if min(photo.shape[:2]) >= side]
    patches = []
    for photo in (large[i] for i in random.choice(len(large), 9, replace=len(large) < 9)):
        top, left = (int(random.integers(0, n - side + 1)) for n in photo.shape[:2])
        patches.append(photo[top : top + side, left : left + side])
    return patches


def _pieces(side: int) -> Iterator[tuple[str, np.ndarray]]:
    """Photos that come with scikit-image and are free of rights, cut into squares that do not overlap."""
    try:
        import skimage.data
    except ImportError:
        raise DataError(
            "this experiment shows photos of scikit-image, which is not installed: pip install scikit-image."
        ) from None
    for name in ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "brick", "grass", "gravel", "camera"):
        photo = np.asarray(getattr(skimage.data, name)())
        photo = np.repeat(photo[..., None], 3, axis=2) if photo.ndim == 2 else photo
        for top in range(0, photo.shape[0] - side + 1, side):
            for left in range(0, photo.shape[1] - side + 1, side):
                yield f"{name} {top} {left}", photo[top : top + side, left : left + side]


EXPERIMENTS = {
    "fields": Experiment("what units see, by arithmetic and by gradients", fields),
    "alike": Experiment("patches that excite the same unit are alike", alike),
}
