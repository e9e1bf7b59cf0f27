"""What makes the conformance battery quick: for every family a tiny config, made-up data, and a task on a file."""

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasmodels.backbones import sources
from kerasmodels.data import write_image
from kerasmodels.data.digits import FILES
from kerasmodels.data.segmentation import write_label_map
from kerasmodels.models import (
    closed_form_matting,
    cyclegan,
    deeplab,
    deformable_net,
    dense_crf,
    dilated_net,
    discogan,
    ebgan,
    fast_style,
    feature_patches,
    neural_style,
    photo_style,
    wgan,
)


@dataclass(frozen=True)
class Tiny:
    """A family in miniature.

    Args:
        config: a network of a few thousand weights and 4 training steps if it trains, without data. At least one kernel
            should have 1024 weights: LiteRT leaves smaller ones alone when it reduces weights to 8 bits.
        data: writes made-up data into a folder and returns the fields of the config that name it.
        dims: small values of the servables' named dimensions; no picture side should be a multiple of the network's
            stride, so that padding is seen too.
        task: (folder, run, out) -> `run_options` that use the weights of the run folder `run`, None where there is
            nothing to train. It writes its inputs into `folder`; results go into the folder `out`.
    """

    config: Any
    data: Callable[[Path], Mapping[str, Any]]
    dims: Mapping[str, int]
    task: Callable[[Path, Path | None, Path], Any]


def family_of(key: str) -> str:
    """The family of a row of `TINY`: `family`, or `family:kind` where a config makes models of several kinds."""
    return key.partition(":")[0]


def photo(seed: int, height: int, width: int) -> np.ndarray:
    """A made-up picture: smooth colours, an edge, a little grain. RGB 0-255, uint8."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(x * random.uniform(2, 12) + y * random.uniform(2, 12) + random.uniform(0, 6)) for _ in range(3)]
    picture = 128 + 90 * np.stack(waves, axis=-1)
    picture[x + y > random.uniform(0.6, 1.2)] *= 0.5
    return np.clip(picture + random.normal(0, 4, picture.shape), 0, 255).astype("uint8")


def write_vgg16(path: Path) -> Path:
    """Weights of VGG16 that were never trained, in torchvision's keys; they keep the size of what passes through."""
    random = np.random.default_rng(0)
    arrays = {}
    for key, shape in sources.shapes("vgg16").items():
        layer, kind = key.removeprefix("conv").split("/")
        spread = (2 / np.prod(shape[:-1])) ** 0.5 if kind == "kernel" else 0.1
        block, number = layer.split("_")
        arrays[f"block{block}_conv{number}_{kind}"] = spread * random.standard_normal(shape, "float32")
    np.savez(path, **arrays)
    return path


# --- dense crf --------------------------------------------------------------------------------------------------------


def _dense_crf_task(folder: Path, run: Path | None, out: Path) -> dense_crf.RunOptions:
    strokes = np.zeros((45, 62, 3), "uint8")
    strokes[:6], strokes[-6:] = (255, 0, 0), (0, 0, 255)
    return dense_crf.RunOptions(
        image=write_image(folder / "photo.png", photo(7, 45, 62)),
        labels=write_image(folder / "strokes.png", strokes),
        out=out / "labels.png",
        overlay=out / "overlay.png",
    )


# --- dilated net ------------------------------------------------------------------------------------------------------


def _dilated_net_data(folder: Path) -> Mapping[str, Any]:
    for number in range(3):
        picture = photo(number, 48 + 8 * number, 64)
        write_image(folder / "photos" / f"{number}.png", picture)
        labels = picture[..., 0] // 86
        labels[:5] = 255
        write_label_map(folder / "masks" / f"{number}.png", labels)
    return {"photos": folder / "photos", "masks": folder / "masks"}


_TINY_LABELS: dict[str, Any] = {
    "names": ("sky", "house", "road"),
    "crf_iterations": 2,
    "crf_gaussian_compat": 0.2,
    "crf_bilateral_compat": 0.2,
    "crf_bilateral_sxy": 20,
    "crf_radius": 1,
    "crf_stride": 2,
}


def _dilated_net_task(folder: Path, run: Path | None, out: Path) -> dilated_net.RunOptions:
    picture = write_image(folder / "holiday.jpg", photo(7, 45, 62))
    results = {name: out / f"{name}.png" for name in ("overlay", "legend")}
    return dilated_net.RunOptions(picture, out / "mask.png", run=run, **results, crf=True)


# --- deeplab ----------------------------------------------------------------------------------------------------------


def _deeplab_task(folder: Path, run: Path | None, out: Path) -> deeplab.RunOptions:
    picture = write_image(folder / "holiday.jpg", photo(7, 45, 62))
    results = {name: out / f"{name}.png" for name in ("overlay", "legend")}
    return deeplab.RunOptions(picture, out / "mask.png", run=run, **results, crf=True)


# --- deformable net ---------------------------------------------------------------------------------------------------


def _deformable_net_data(folder: Path) -> Mapping[str, Any]:
    random = np.random.default_rng(0)
    (folder / "mnist").mkdir()
    for images, labels in FILES.values():
        classes = random.integers(0, 10, 24, "uint8")
        pictures = np.stack([photo(int(c), 28, 28)[..., 0] for c in classes])
        for name, array in ((images, pictures), (labels, classes)):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / "mnist" / name).write_bytes(header + array.tobytes())
    return {"digits": folder / "mnist"}


def _deformable_net_task(folder: Path, run: Path | None, out: Path) -> deformable_net.RunOptions:
    picture = write_image(folder / "digit.jpg", photo(3, 40, 36))
    return deformable_net.RunOptions(inputs=(picture,), out=out / "seen.png", run=run, show_offsets=True)


def _detector_data(folder: Path) -> Mapping[str, Any]:
    for number in range(3):
        write_image(folder / "photos" / f"{number}.png", photo(number, 48 + 8 * number, 64))
    return {**_deformable_net_data(folder), "photos": folder / "photos"}


def _detector_task(folder: Path, run: Path | None, out: Path) -> deformable_net.RunOptions:
    pictures = tuple(write_image(folder / f"{k}.jpg", photo(k, 70 - k, 90 + k)) for k in range(2))
    return deformable_net.RunOptions(
        inputs=pictures, out=out / "seen.png", run=run, show_offsets=True, size=64, least=0.0, boxes=out / "boxes.json"
    )


# --- fast style -------------------------------------------------------------------------------------------------------


def _fast_style_data(folder: Path) -> Mapping[str, Any]:
    for number, suffix in enumerate((".png", ".jpg", ".png")):
        write_image(folder / "photos" / f"{number}{suffix}", photo(number, 48 + 8 * number, 64))
    return {
        "style": write_image(folder / "painting.png", photo(99, 40, 56)),
        "photos": folder / "photos",
        "vgg": str(write_vgg16(folder / "vgg16.npz")),
    }


def _fast_style_task(folder: Path, run: Path | None, out: Path) -> fast_style.RunOptions:
    picture = write_image(folder / "holiday.jpg", photo(7, 45, 62))
    return fast_style.RunOptions(inputs=(picture,), out=out / "painted.png", run=run)


# --- closed-form matting ----------------------------------------------------------------------------------------------


def _matting_task(folder: Path, run: Path | None, out: Path) -> closed_form_matting.RunOptions:
    trimap = np.full((30, 41, 3), 128, "uint8")
    trimap[:, :9], trimap[:, -12:] = 255, 0
    return closed_form_matting.RunOptions(
        photo=write_image(folder / "photo.png", photo(7, 30, 41)),
        trimap=write_image(folder / "trimap.png", trimap),
        out=out / "cutout.png",
    )


# --- feature patches --------------------------------------------------------------------------------------------------


def _feature_patches_task(folder: Path, run: Path | None, out: Path) -> feature_patches.RunOptions:
    for number in range(3):
        write_image(folder / "photos" / f"{number}.png", photo(number, 40 + number, 52))
    return feature_patches.RunOptions(
        unit=(3, 17), out=out / "grid.png", photos=folder / "photos", layer="relu2_1", vgg="random", k=2, maximise=True,
        steps=2,
    )  # fmt: skip


# --- neural style -----------------------------------------------------------------------------------------------------


def _neural_style_data(folder: Path) -> Mapping[str, Any]:
    return {
        "content": write_image(folder / "photo.png", photo(7, 45, 62)),
        "style": (write_image(folder / "painting.png", photo(99, 40, 56)),),
        "height": 40,
        "width": 55,
    }


def _neural_style_task(folder: Path, run: Path, out: Path) -> neural_style.RunOptions:
    return neural_style.RunOptions(
        content=write_image(folder / "holiday.jpg", photo(7, 45, 62)),
        style=(write_image(folder / "painting.png", photo(99, 40, 56)),),
        out=out / "painted.png",
        start_from=run,
        **_NEURAL_STYLE,
        steps=3,
    )


_NEURAL_STYLE: dict[str, Any] = {
    "size": 48,
    "network": "vgg16",
    "vgg": "random",
    "content_layers": ("conv2_2",),
    "style_layers": ("conv1_1", "conv2_1"),
    "tv_weight": 1e-3,
}


# --- photo style ------------------------------------------------------------------------------------------------------


def _photo_style_data(folder: Path) -> Mapping[str, Any]:
    return {
        "photo": write_image(folder / "photo.png", photo(1, 66, 92)),
        "reference": write_image(folder / "reference.png", photo(2, 40, 36)),
    }


def _photo_style_task(folder: Path, run: Path, out: Path) -> photo_style.RunOptions:
    picture = write_image(folder / "holiday.jpg", photo(1, 99, 138))
    return photo_style.RunOptions(photo=picture, out=out / "evening.png", run=run)


# --- cyclegan ---------------------------------------------------------------------------------------------------------


def _cyclegan_data(folder: Path) -> Mapping[str, Any]:
    for name in "ab":
        for number in range(3):
            write_image(folder / name / f"{number}.png", photo(ord(name) + number, 40, 48))
    return {"a": folder / "a", "b": folder / "b"}


def _cyclegan_task(folder: Path, run: Path | None, out: Path) -> cyclegan.RunOptions:
    picture = write_image(folder / "picture.png", photo(3, 37, 46))
    return cyclegan.RunOptions(inputs=(picture,), out=out / "b.png", run=run, direction="b_to_a")


# --- discogan ---------------------------------------------------------------------------------------------------------


def _discogan_task(folder: Path, run: Path | None, out: Path) -> discogan.RunOptions:
    picture = write_image(folder / "picture.png", photo(3, 37, 46))
    return discogan.RunOptions(inputs=(picture,), out=out / "a.png", run=run, direction="b_to_a")


# --- wgan -------------------------------------------------------------------------------------------------------------


def _wgan_data(folder: Path) -> Mapping[str, Any]:
    for number in range(5):
        write_image(folder / "pictures" / f"{number}.png", photo(number, 20, 24))
    return {"pictures": folder / "pictures"}


def _wgan_task(folder: Path, run: Path | None, out: Path) -> wgan.RunOptions:
    return wgan.RunOptions(out=out / "sheet.png", run=run, rows=2, columns=3, between=True)


# --- ebgan ------------------------------------------------------------------------------------------------------------


def _ebgan_task(folder: Path, run: Path | None, out: Path) -> ebgan.RunOptions:
    for number, (height, width) in enumerate(((20, 33), (9, 40))):
        write_image(folder / "seen" / f"{number}.png", photo(number, height, width))
    return ebgan.RunOptions(inputs=(folder / "seen",), out=out / "maps", run=run)


TINY: dict[str, Tiny] = {
    "fast_style": Tiny(
        config=fast_style.Config(
            channels=(4, 8, 16), blocks=1, end_kernel=5, upsampling="resize", size=32, style_size=48, steps=4, batch=2
        ),
        data=_fast_style_data,
        dims={"batch": 1, "height": 42, "width": 54},
        task=_fast_style_task,
    ),
    "neural_style": Tiny(
        config=neural_style.Config(**_NEURAL_STYLE, height=40, width=55, steps=4),
        data=_neural_style_data,
        dims={"height": 9, "width": 14, "style_height": 11, "style_width": 10},
        task=_neural_style_task,
    ),
    "photo_style": Tiny(
        config=photo_style.Config(
            height=33,
            width=46,
            reference_size=36,
            auto_masks=2,
            start="noise",
            vgg="random",
            steps=4,
            plain_steps=2,
        ),
        data=_photo_style_data,
        dims={"batch": 1, "height": 22, "width": 30},
        task=_photo_style_task,
    ),
    "closed_form_matting": Tiny(
        config=closed_form_matting.Config(served_iterations=20),
        data=lambda folder: {},
        dims={"batch": 1, "height": 26, "width": 37},
        task=_matting_task,
    ),
    "feature_patches": Tiny(
        config=feature_patches.Config(layer="relu2_1", vgg="random"),
        data=lambda folder: {},
        dims={"batch": 1, "height": 42, "width": 54},
        task=_feature_patches_task,
    ),
    "dilated_net": Tiny(
        config=dilated_net.Config(
            classes=3,
            blocks=(1, 1, 1, 1, 1),
            channels=(4, 6, 8, 12, 12),
            head=16,
            head_kernel=3,
            context="basic",
            rates=(1, 2),
            context_padding="same",
            trains="all",
            crop=142,
            steps=4,
            batch=2,
            context_init="glorot",
            learning_rate=0.1,
            **_TINY_LABELS,
        ),
        data=_dilated_net_data,
        dims={"batch": 1, "height": 12, "width": 18},
        task=_dilated_net_task,
    ),
    "deeplab": Tiny(
        config=deeplab.Config(
            classes=3,
            blocks=(1, 1, 1, 1),
            width=1 / 16,
            rates=(1, 2),
            pyramid=(0.5,),
            crop=65,
            steps=4,
            batch=2,
            learning_rate=1e-2,
            batch_norm="trained",
            clip=1.0,
            **_TINY_LABELS,
        ),
        data=_dilated_net_data,
        dims={"batch": 1, "height": 21, "width": 30},
        task=_deeplab_task,
    ),
    "dense_crf": Tiny(
        config=dense_crf.Config(labels=3, iterations=2, bilateral_sxy=20, radius=1, stride=2),
        data=lambda folder: {},
        dims={"batch": 1, "height": 9, "width": 13},
        task=_dense_crf_task,
    ),
    "deformable_net": Tiny(
        config=deformable_net.Config(filters=(8, 16), strides=(2, 2), deformable=1, steps=4, batch=2),
        data=_deformable_net_data,
        dims={"batch": 1, "height": 28, "width": 30},
        task=_deformable_net_task,
    ),
    "deformable_net:detector": Tiny(
        config=deformable_net.Config(
            task="detect",
            filters=(8, 12, 16),
            strides=(2, 2, 1),
            rates=(1, 1, 2),
            deformable=0,
            scene=48,
            bins=2,
            anchors=(12.0, 24.0),
            proposals=6,
            detections=12,
            steps=4,
            batch=2,
        ),
        data=_detector_data,
        dims={"batch": 1, "height": 45, "width": 50},
        task=_detector_task,
    ),
    "cyclegan": Tiny(
        config=cyclegan.Config(
            filters=4, blocks=1, judge_filters=4, size=32, upsampling="resize", pool=1, batch=2, steps=4
        ),
        data=_cyclegan_data,
        dims={"batch": 1, "height": 33, "width": 42},
        task=_cyclegan_task,
    ),
    "discogan": Tiny(
        config=discogan.Config(filters=4, size=32, batch=2, steps=4),
        data=_cyclegan_data,
        dims={"batch": 1, "height": 33, "width": 42},
        task=_discogan_task,
    ),
    "wgan": Tiny(
        config=wgan.Config(size=16, width=8, latent=12, critic_steps=2, batch=3, steps=4),
        data=_wgan_data,
        dims={"batch": 1},
        task=_wgan_task,
    ),
    "ebgan": Tiny(
        # Weights begin near 0: a high rate, so that the judge is more than a constant after 4 steps.
        config=ebgan.Config(
            size=16, filters=8, latent=12, margin=20.0, noise=0.1, batch=3, learning_rate=0.05, steps=4
        ),
        data=_wgan_data,
        dims={"batch": 1},
        task=_ebgan_task,
    ),
}
