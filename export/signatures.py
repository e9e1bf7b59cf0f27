"""A servable as a SavedModel: raw variables, named tensors, and JPEG/PNG bytes where the input is a picture."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kerasmodels.errors import ExportError, KerasModelsError, storage_error
from kerasmodels.family import Servable, TensorSpec
from kerasmodels.ops.deformable import Form, traced_as

DEFAULT = "serving_default"
BYTES = "serve_bytes"
PNG = "serve_png"


class _Variables(tf.Module):
    """Holds variables and nothing else.

    A module that held the Keras model itself would convert to LiteRT without an error and compute NaN.
    """

    def __init__(self, servable: Servable):
        super().__init__()
        self.weights = [v.value for v in servable.model.variables]
        # Vocabularies are no variables, but a SavedModel must hold them.
        layers = servable.model._flatten_layers()
        self.tables = [layer.lookup_table for layer in layers if hasattr(layer, "lookup_table")]


def picture_input(servable: Servable) -> TensorSpec | None:
    """The input that can also be fed JPEG/PNG bytes: the only one, if it is a picture."""
    only = servable.inputs[0]
    return only if len(servable.inputs) == 1 and only.kind == "image" else None


def bytes_name(spec: TensorSpec) -> str:
    """Name of the byte-string input of the `serve_bytes` and `serve_png` signatures, or output of the latter."""
    return f"{spec.name}_bytes"


def png_outputs(servable: Servable) -> list[TensorSpec]:
    """The outputs that `serve_png` returns as PNG files: pictures, and maps of labels as gray ones; if the servable
    takes one picture, else none."""
    if picture_input(servable) is None:
        return []
    return [
        spec
        for spec in servable.outputs
        if spec.kind == "image" or (0 < len(spec.classes) <= 256 and len(spec.shape) == 3 and "float" not in spec.dtype)
    ]


def encode(spec: TensorSpec, picture: tf.Tensor) -> tf.Tensor:
    """An output of one picture, (H, W, 3) or labels (H, W), as a PNG file: scalar string."""
    pixels = tf.cast(picture, tf.uint8)
    return tf.io.encode_png(pixels if spec.kind == "image" else pixels[..., tf.newaxis])


def decode(content: tf.Tensor) -> tf.Tensor:
    """A JPEG, PNG, GIF or BMP file as an RGB picture.

    Gray becomes three equal channels, 16-bit PNGs are rounded to 8 bits, an alpha channel is laid over white, CMYK
    JPEGs are converted, of an animation the first frame counts. EXIF rotation is not applied, nor is the transparency
    of single palette colors.

    Args:
        content: scalar string.

    Returns:
        (H, W, 3) uint8.
    """

    def png() -> tf.Tensor:
        # Read as 16-bit, to which any PNG widens exactly. TensorFlow fills in a wrong alpha where a file of less than
        # 8 bits has none, so it is asked for only where the header says that there is one.
        kind = tf.io.decode_raw(tf.strings.substr(content, 25, 1), tf.uint8)[0]
        return tf.cond((kind == 4) | (kind == 6), transparent, opaque)

    def opaque() -> tf.Tensor:
        rgb = tf.cast(tf.io.decode_png(content, channels=3, dtype=tf.uint16), tf.float32)
        return tf.cast(tf.round(rgb / 257.0), tf.uint8)

    def transparent() -> tf.Tensor:
        rgba = tf.cast(tf.io.decode_png(content, channels=4, dtype=tf.uint16), tf.float32)
        opacity = rgba[..., 3:] / 65535.0
        over_white = rgba[..., :3] * opacity + 65535.0 * (1.0 - opacity)
        return tf.cast(tf.round(over_white / 257.0), tf.uint8)

    def other() -> tf.Tensor:
        return tf.io.decode_image(content, channels=3, dtype=tf.uint8, expand_animations=False)

    picture = tf.cond(tf.strings.substr(content, 0, 4) == b"\x89PNG", png, other)
    return tf.ensure_shape(picture, (None, None, 3))


def outputs_of(servable: Servable, arrays: Mapping[str, Any]) -> dict[str, tf.Tensor]:
    """`servable.call`, its outputs in the declared order.

    Raises:
        ExportError: it returned other names than it declares.
    """
    found = servable.call(**arrays)
    declared = [spec.name for spec in servable.outputs]
    if not isinstance(found, dict) or set(found) != set(declared):
        received = sorted(found) if isinstance(found, dict) else type(found).__name__
        raise ExportError(f"expected the servable's call to return the outputs {declared}. Received: {received!r}.")
    return {name: tf.identity(found[name], name=name) for name in declared}


def reference(servable: Servable, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the live Keras model answers, computed on the CPU, where every artifact is executed too."""
    with tf.device("/CPU:0"):
        found = outputs_of(servable, {k: tf.constant(v) for k, v in arrays.items()})
    # Strings as bytes of a fixed length, which can be written without pickle.
    return {k: v.numpy().astype("S") if v.dtype == tf.string else v.numpy() for k, v in found.items()}


class Sources:
    """The SavedModels of one servable: what one converter has traced and saved, the next reads too."""

    def __init__(self, servable: Servable):
        self._servable = servable
        self._known: dict[tuple[tuple[tuple[str, int | None], ...], Form], Path] = {}

    def write(
        self, path: Path, dims: Mapping[str, int | None], accept_bytes: bool = False, form: Form = "portable"
    ) -> None:
        """See `write`; it must stay there as long as others may read it."""
        differs = write(self._servable, path, dims, accept_bytes, form)
        forms: tuple[Form, ...] = (form,) if differs else ("portable", "marked")
        self._known |= {(tuple(sorted(dims.items())), one): path for one in forms}

    def same(self, dims: Mapping[str, int | None]) -> bool:
        """Whether what was written with these dimensions is the same in every form."""
        found = {self._known.get((tuple(sorted(dims.items())), form)) for form in ("portable", "marked")}
        return len(found) == 1

    def find(self, path: Path, dims: Mapping[str, int | None], form: Form = "portable") -> Path:
        """The folder of one with these dimensions in this form, written to `path` if there is none yet."""
        key = tuple(sorted(dims.items())), form
        if key not in self._known:
            self.write(path, dims, form=form)
        return self._known[key]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without TensorFlow's and absl's remarks about what was saved where."""
    loggers = [logging.getLogger(name) for name in ("tensorflow", "absl")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def write(
    servable: Servable,
    path: Path,
    dims: Mapping[str, int | None],
    accept_bytes: bool = False,
    form: Form = "portable",
) -> bool:
    """Write the SavedModel.

    Args:
        servable: what to save.
        path: the folder to make.
        dims: value of each named dimension, None where it may vary.
        accept_bytes: add the `serve_bytes` signature if the servable takes one picture.
        form: how operators that TensorFlow lacks are written, see `kerasmodels.ops.traced_as`.

    Returns:
        Whether another form would have given another graph.

    Raises:
        ExportError: the servable cannot be traced or saved.
        StorageError: it cannot be written there.
    """
    specs = [tf.TensorSpec(spec.bind(dims), spec.dtype, name=spec.name) for spec in servable.inputs]
    names = [spec.name for spec in servable.inputs]

    @tf.function(input_signature=specs)
    def tensors(*arrays: tf.Tensor) -> dict[str, tf.Tensor]:
        return outputs_of(servable, dict(zip(names, arrays, strict=True)))

    signatures = {DEFAULT: tensors}
    picture = picture_input(servable)
    if accept_bytes and picture is not None:
        only = picture

        given = [tf.TensorSpec((None,), tf.string, name=bytes_name(only))]

        @tf.function(input_signature=given)
        def files(contents: tf.Tensor) -> dict[str, tf.Tensor]:
            signature = tf.TensorSpec((None, None, 3), tf.uint8)
            pictures = tf.map_fn(decode, contents, fn_output_signature=signature)
            # The same graph, so that the servable is traced, and later optimized, once.
            return tensors(tf.ensure_shape(pictures, specs[0].shape))

        signatures[BYTES] = files
        wanted = png_outputs(servable)

        @tf.function(input_signature=given)
        def pngs(contents: tf.Tensor) -> dict[str, tf.Tensor]:
            # One after the other: their sizes may differ.
            def one(content: tf.Tensor) -> list[tf.Tensor]:
                found = tensors(tf.ensure_shape(decode(content)[tf.newaxis], specs[0].shape))
                return [encode(spec, found[spec.name][0]) for spec in wanted]

            made = tf.map_fn(one, contents, fn_output_signature=[tf.TensorSpec((), tf.string)] * len(wanted))
            return {bytes_name(spec): file for spec, file in zip(wanted, made, strict=True)}

        if wanted:
            signatures[PNG] = pngs
    try:
        with _quiet(), tf.device("/CPU:0"), traced_as(form) as tracing:
            tf.saved_model.save(_Variables(servable), str(path), signatures=signatures)
        return tracing.asked
    except OSError as error:
        raise storage_error(path, error) from error
    except tf.errors.OpError as error:
        if isinstance(error, tf.errors.ResourceExhaustedError) or "No space left" in str(error):
            raise storage_error(path, OSError(28, "no space left")) from error
        raise ExportError(f"the servable could not be saved: {error.message}") from error
    except KerasModelsError:
        raise
    except Exception as error:
        # Tracing runs the servable's own code, which may raise anything.
        raise ExportError(
            f"the servable could not be traced with the dimensions {dict(dims)} and saved: {error}. "
            "Its call may use TensorFlow and keras.ops only, and the variables of its model only."
        ) from error
