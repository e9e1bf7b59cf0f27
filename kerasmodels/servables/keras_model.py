"""Anyone's Keras model as a servable: its inputs and outputs by name, and examples to prove artifacts with."""

import contextlib
import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import tree

from kerasmodels.errors import UsageError, unknown_name
from kerasmodels.family import Servable, TensorSpec
from kerasmodels.servables.images import example_images

PREPROCESSING: Mapping[str, str] = {
    "none": "0-255, as they are",
    "unit": "0-1",
    "tf": "-1 to 1",
    "torch": "0-1, less ImageNet's mean and over its deviation",
    "caffe": "blue first, 0-255 less ImageNet's mean",
}
"""What a network takes pictures as; tf, torch and caffe are the names that `keras.applications` has for them."""
Example = Any
"""An array, or a list or dict of arrays."""

_MEAN = np.array([0.485, 0.456, 0.406], "float32")
_DEVIATION = np.array([0.229, 0.224, 0.225], "float32")
_CAFFE = np.array([103.939, 116.779, 123.68], "float32")
_USUAL = {"height": (128, 96), "width": (128, 160), "depth": (16, 32)}
"""Sizes that models are tried with where the user gave none: multiples of 32, as encoders with five halvings want."""
_LENGTHS = (16, 24)
_FURTHER = 32
_BATCHES = (1, 3)
_WHOLE_NUMBERS = 10
_WORDS = ("a", "the", "model", "unknown")
_RELATIVE = 1e-4
"""Largest difference of floating outputs in fp32, as a part of their largest value (of 1, if that is less)."""
_OUTPUT_DTYPES = ("float32", "float64", "int32", "int64", "uint8", "bool", "string")
_TEXT = "text goes in or out, which only a SavedModel can hold: export what lies behind the lookup on its own."


@dataclass(frozen=True)
class _Leaf:
    """An array that the model takes: None in its shape is a size that the model leaves open."""

    shape: tuple[int | None, ...]
    dtype: str
    name: str = ""


def of_keras_model(
    model: keras.Model,
    *,
    example: Example = None,
    preprocess: str | Callable[[Any], Any] | None = None,
    classes: Sequence[str] = (),
) -> Servable:
    """A servable of any built Keras model: functional, Sequential or subclassed, with several inputs and outputs.

    Inputs and outputs have the names of the model's dicts or layers; what Keras has only numbered is called `input`
    or `output`. The batch and all sizes that the model leaves open may vary. A model under mixed precision is served
    in float32.

    Args:
        model: on the TensorFlow backend.
        example: arrays that the model takes, used to verify and calibrate: one, a list, or a dict by name; with a
            batch axis, or a single example without. Numbers are made up if left out. A subclassed model whose `call`
            takes several arguments needs it: a dict by argument.
        preprocess: for a model of one RGB picture (N, H, W, 3), what turns 0-255 into what the model takes: a name of
            `PREPROCESSING`, or a function of a float32 tensor in TensorFlow or `keras.ops`. It becomes a part of the
            artifacts, which then take uint8 pictures, and of a SavedModel, which also takes JPEG and PNG files.
        classes: what the values of the last axis of the only output mean, in order.

    Raises:
        UsageError: the model is not built, or one of the arguments does not fit it.
    """
    if not isinstance(model, keras.Model):
        raise UsageError(f"expected a keras.Model. Received: {type(model).__name__}.")
    given = None if example is None else tree.map_structure(np.asarray, example)
    nested, by_argument = _inputs(model, given)
    leaves, names = tree.flatten(nested), _names(nested, "input")
    inputs = tuple(_input_spec(name, leaf, len(leaves) > 1) for name, leaf in zip(names, leaves, strict=True))
    arrays = None if given is None else _fitted(given, inputs, leaves)
    converted = None
    if preprocess is not None:
        converted = _preprocessing(inputs, preprocess)
        inputs = (replace(inputs[0], dtype="uint8", kind="image", doc="RGB pictures, 0-255"),)

    def forward(**tensors: Any) -> dict[str, tf.Tensor]:
        flat = [tensors[name] for name in names]
        if converted is not None:
            flat = [converted(tf.cast(flat[0], tf.float32))]
        packed = tree.pack_sequence_as(nested, flat)
        with _as_served(model):
            found = model(**packed, training=False) if by_argument else model(packed, training=False)
        return dict(zip(_names(_output_layers(model, found), "output"), tree.flatten(found), strict=True))

    dims, other = _sizes(inputs, arrays)
    make = _examples(model, inputs, arrays)
    outputs = _output_specs(forward, make, dims, other)
    if classes:
        outputs = _with_classes(outputs, classes)
    texts = any(spec.dtype == "string" for spec in (*inputs, *outputs))
    return Servable(
        call=forward,
        model=model,
        inputs=inputs,
        outputs=outputs,
        example=make,
        dims=dims,
        check_dims=(other,) if other != dims else (),
        doc=f"the Keras model {model.name}",
        without={("litert", "fp32"): _TEXT, ("onnx", "fp32"): _TEXT} if texts else {},
    )


def _inputs(model: keras.Model, given: Any) -> tuple[Any, bool]:
    """What the model takes, a tree of `_Leaf`s, and whether its top level is a dict of arguments."""
    symbolic = getattr(model, "inputs", None)
    if symbolic and isinstance(model, keras.Sequential):
        return _leaf_of_tensor(symbolic[0]), False
    if symbolic:
        return tree.map_structure(_leaf_of_tensor, model.input), False
    parameters = inspect.signature(model.call).parameters.values()
    required = [
        p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    if given is not None:
        by_argument = isinstance(given, dict) and set(required) <= set(given) <= {p.name for p in parameters}
        nested = tree.map_structure(lambda a: _Leaf((None, *a.shape[1:]), _dtype(a.dtype.name)), given)
        if not model.built:
            first = tree.map_structure(lambda a: tf.constant(a[:1]), given)
            model(**first, training=False) if by_argument else model(first, training=False)
        return nested, by_argument
    shape = (model.get_build_config() or {}).get("input_shape") if model.built else None
    if len(required) > 1 or not isinstance(shape, tuple) or not all(n is None or isinstance(n, int) for n in shape):
        several = f"its call takes {', '.join(required)}"
        why = several if len(required) > 1 else "it has not been built on one array"
        raise UsageError(
            f"expected to know what {model.name} takes. It is no functional model, and {why}: give arrays with a batch "
            "axis as `example` (a dict by argument where there are several)."
        )
    return _Leaf((None, *shape[1:]), _dtype(model.input_dtype)), False


def _leaf_of_tensor(tensor: Any) -> _Leaf:
    return _Leaf(tuple(tensor.shape), _dtype(tensor.dtype), tensor.name)


def _dtype(name: str) -> str:
    """`string` for all that NumPy calls text."""
    return "string" if name == "object" or name.startswith(("str", "bytes")) else str(name)


def _names(nested: Any, kind: str) -> list[str]:
    """A name for each leaf: its path of keys in dicts, or the name that the user gave its layer, or the kind."""
    found = []
    flat = tree.flatten_with_path(nested)
    for path, leaf in flat:
        keys = [str(key) for key in path if isinstance(key, str)]
        own = getattr(leaf, "name", "")
        automatic = not own or re.fullmatch(r"(keras_tensor|input_layer|input)(_\d+)?", own)
        name = "_".join(keys) or ("" if automatic else own)
        found.append(re.sub(r"\W+", "_", name).strip("_"))
    if len(found) == 1 and not found[0]:
        return [kind]
    named = [name or f"{kind}_{number}" for number, name in enumerate(found)]
    return [name if named.count(name) == 1 else f"{name}_{number}" for number, name in enumerate(named)]


@dataclass(frozen=True)
class _Output:
    name: str


def _output_layers(model: keras.Model, found: Any) -> Any:
    """`found`, its leaves replaced by the layers' names where the user chose them."""
    names = [model.layers[-1].name] if isinstance(model, keras.Sequential) else getattr(model, "output_names", None)
    leaves = tree.flatten(found)
    if not names or len(names) != len(leaves):
        names = [""] * len(leaves)
    own = ["" if _numbered(model, name) else name for name in names]
    return tree.pack_sequence_as(found, [_Output(name) for name in own])


def _numbered(model: keras.Model, name: str) -> bool:
    """Whether Keras made the name up, of the class and a number."""
    if not name or not any(layer.name == name for layer in model.layers):
        return True
    stem = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", type(model.get_layer(name)).__name__)
    stem = re.sub(r"([a-z])([A-Z])", r"\1_\2", stem).lower()
    return re.fullmatch(rf"{stem}(_\d+)?", name) is not None


def _input_spec(name: str, leaf: _Leaf, several: bool) -> TensorSpec:
    """The spec of an input: the batch is shared, other open sizes are named by what they usually are."""
    shape: list[int | str] = []
    usual = {3: ("length",), 4: ("height", "width"), 5: ("depth", "height", "width")}.get(len(leaf.shape), ())
    first = keras.config.image_data_format() == "channels_first" and len(leaf.shape) > 3
    for axis, size in enumerate(leaf.shape):
        if size is not None:
            shape.append(int(size))
        elif axis == 0:
            shape.append("batch")
        else:
            place = axis - (2 if first else 1)
            word = usual[place] if 0 <= place < len(usual) else "length" if len(leaf.shape) == 2 else f"size_{axis}"
            shape.append(f"{name}_{word}" if several else word)
    return TensorSpec(name, tuple(shape), leaf.dtype, "as the Keras model takes it")


def _fitted(given: Any, inputs: Sequence[TensorSpec], leaves: Sequence[_Leaf]) -> list[np.ndarray]:
    """The example as one array for each input, with a batch axis.

    Raises:
        UsageError: it does not fit.
    """
    names = [spec.name for spec in inputs]
    if isinstance(given, dict) and set(given) == set(names):
        flat = [given[name] for name in names]
    else:
        flat = tree.flatten(given)
    if len(flat) != len(inputs):
        raise UsageError(f"expected an example for {', '.join(names)}. Received: {len(flat)} arrays.")
    fitted = []
    for spec, leaf, array in zip(inputs, leaves, flat, strict=True):
        array = array[None] if array.ndim == len(leaf.shape) - 1 else array
        fits = array.ndim == len(leaf.shape) and all(
            want in (None, got) for want, got in zip(leaf.shape[1:], array.shape[1:], strict=True)
        )
        kinds = ("SUO",) if leaf.dtype == "string" else ("biuf", "biuf")
        if not fits or array.dtype.kind not in kinds[0] or not array.size:
            wanted = ", ".join(str(d) for d in spec.shape)
            raise UsageError(
                f"expected an example for {spec.name} of {leaf.dtype} ({wanted}). "
                f"Received: {array.dtype.name} {array.shape}."
            )
        fitted.append(array.astype(np.bytes_ if leaf.dtype == "string" else leaf.dtype))
    if len({len(array) for array in fitted}) > 1:
        sizes = ", ".join(f"{spec.name} {len(array)}" for spec, array in zip(inputs, fitted, strict=True))
        raise UsageError(f"expected examples with as many rows in each input. Received: {sizes}.")
    return fitted


def _preprocessing(inputs: Sequence[TensorSpec], preprocess: str | Callable[[Any], Any]) -> Callable[[Any], Any]:
    """(N, H, W, 3) float32, 0-255 -> what the model takes.

    Raises:
        UsageError: an unknown name, or the model does not take one picture.
    """
    (only, *more) = inputs
    if more or len(only.shape) != 4 or only.shape[-1] != 3 or not only.dtype.startswith("float"):
        taken = "; ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in inputs)
        raise UsageError(f"preprocess is for a model of one RGB picture, float32 (N, H, W, 3). Received: {taken}.")
    if not isinstance(preprocess, str):
        return preprocess
    known: dict[str, Callable[[Any], Any]] = {
        "none": lambda x: x,
        "unit": lambda x: x / 255.0,
        "tf": lambda x: x / 127.5 - 1.0,
        "torch": lambda x: (x / 255.0 - _MEAN) / _DEVIATION,
        "caffe": lambda x: x[..., ::-1] - _CAFFE,
    }
    if preprocess not in known:
        raise unknown_name("preprocessing", preprocess, PREPROCESSING)
    return known[preprocess]


@contextlib.contextmanager
def _as_served(model: keras.Model) -> Iterator[None]:
    """Meanwhile layers under mixed precision compute in float32, which is what their variables are, and tensors that
    layers keep beside their variables (`Normalization` does) are constants, which every converter understands."""
    changed: list[tuple[Any, str, Any]] = []

    def change(layer: Any, name: str, value: Any) -> None:
        changed.append((layer, name, getattr(layer, name)))
        setattr(layer, name, value)

    try:
        for layer in _all_layers(model):
            if layer.dtype_policy.name.startswith("mixed_"):
                change(layer, "dtype_policy", "float32")
            for name, value in list(vars(layer).items()):
                if isinstance(value, tf.Tensor) and hasattr(value, "numpy"):
                    change(layer, name, value.numpy())
        yield
    finally:
        for layer, name, value in reversed(changed):
            setattr(layer, name, value)


def _all_layers(model: keras.Model) -> list[Any]:
    return [model, *model._flatten_layers(include_self=False)]


def _sizes(inputs: Sequence[TensorSpec], arrays: Sequence[np.ndarray] | None) -> tuple[dict[str, int], dict[str, int]]:
    """Two values of each open dimension: the one of files with a fixed size, and another to check free ones on."""
    dims: dict[str, int] = {}
    other: dict[str, int] = {}
    for number, spec in enumerate(inputs):
        for axis, name in enumerate(spec.shape):
            if not isinstance(name, str) or name in dims:
                continue
            if name == "batch":
                dims[name], other[name] = _BATCHES
            elif arrays is not None:
                dims[name], other[name] = arrays[number].shape[axis], arrays[number].shape[axis] + _FURTHER
            else:
                dims[name], other[name] = _USUAL.get(name.rsplit("_", 1)[-1], _LENGTHS)
    return dims, other


def _examples(
    model: keras.Model, inputs: Sequence[TensorSpec], arrays: Sequence[np.ndarray] | None
) -> Callable[[Mapping[str, int], int], dict[str, np.ndarray]]:
    """(dims, seed) -> the user's rows, repeated where a size is larger; or made-up numbers."""
    below = _smallest_table(model)

    def rows(array: np.ndarray, shape: Sequence[Any], seed: int) -> np.ndarray:
        for axis, size in enumerate(shape):
            start = seed * size if axis == 0 else 0
            array = np.take(array, np.arange(start, start + size), axis=axis, mode="wrap")
        return array

    def made_up(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
        if spec.dtype == "string":
            return np.array(random.choice(_WORDS, shape), np.bytes_)
        if spec.dtype == "bool":
            return random.random(shape) < 0.5
        if spec.dtype.startswith(("int", "uint")):
            return random.integers(0, below, shape).astype(spec.dtype)
        return random.standard_normal(shape).astype(spec.dtype)

    def example(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
        random, found = np.random.default_rng(seed), {}
        for number, spec in enumerate(inputs):
            shape: Any = spec.bind({"batch": 1, **dims})
            if arrays is not None:
                values = rows(arrays[number], shape, seed)
                found[spec.name] = np.clip(np.rint(values), 0, 255).astype("uint8") if spec.kind == "image" else values
            elif spec.kind == "image":
                n, height, width, _ = shape
                found[spec.name] = example_images({"batch": n, "height": height, "width": width}, seed)["image"]
            else:
                found[spec.name] = made_up(spec, shape, random)
        return found

    return example


def _smallest_table(model: keras.Model) -> int:
    """Integers below this are rows of every embedding of the model."""
    sizes = [layer.input_dim for layer in _all_layers(model) if isinstance(layer, keras.layers.Embedding)]
    return min([_WHOLE_NUMBERS, *sizes])


def _output_specs(
    forward: Callable[..., dict[str, tf.Tensor]],
    example: Callable[[Mapping[str, int], int], dict[str, np.ndarray]],
    dims: Mapping[str, int],
    other: Mapping[str, int],
) -> tuple[TensorSpec, ...]:
    """What comes out: a size that is an input's with both sets of dimensions is called the same.

    Raises:
        UsageError: the model cannot be called with its example, or answers with what no artifact can hold.
    """
    results = []
    for sizes in (dims, other):
        try:
            found = forward(**{name: tf.constant(array) for name, array in example(sizes, 0).items()})
        except Exception as error:
            # The model's own code runs, which may raise anything.
            shown = {name: list(array.shape) for name, array in example(sizes, 0).items()}
            raise UsageError(
                f"expected the model to take {shown}. Received: {type(error).__name__}: {error}. Give arrays that it "
                "takes as `example`."
            ) from error
        results.append(found)
    specs = []
    for name, first in results[0].items():
        second = results[1][name]
        if not isinstance(first, tf.Tensor) or first.dtype.name not in _OUTPUT_DTYPES:
            what = first.dtype.name if isinstance(first, tf.Tensor) else type(first).__name__
            raise UsageError(
                f"expected outputs of {', '.join(_OUTPUT_DTYPES)}. Received: {name} of {what}; a model under a pure "
                "half-precision policy must be loaded with dtype float32 first."
            )
        shape = tuple(
            next((d for d in dims if (dims[d], other[d]) == pair), f"{name}_size_{axis}") if pair[0] != pair[1]
            else pair[0]
            for axis, pair in enumerate(zip(first.shape, second.shape, strict=True))
        )  # fmt: skip
        largest = 1.0
        if first.dtype.is_floating:
            largest = max(1.0, *(float(tf.reduce_max(tf.abs(x))) if tf.size(x) else 0.0 for x in (first, second)))
        specs.append(TensorSpec(name, shape, first.dtype.name, "as the Keras model gives it", atol=_RELATIVE * largest))
    return tuple(specs)


def _with_classes(outputs: tuple[TensorSpec, ...], classes: Sequence[str]) -> tuple[TensorSpec, ...]:
    if len(outputs) != 1 or not outputs[0].shape or outputs[0].shape[-1] != len(classes):
        shapes = "; ".join(f"{spec.name} {spec.shape}" for spec in outputs)
        raise UsageError(f"expected one output whose last axis has the {len(classes)} classes. Received: {shapes}.")
    listed = ", ".join(f"{number} {name}" for number, name in enumerate(classes))
    return (replace(outputs[0], doc=f"of each class: {listed}", classes=tuple(classes)),)
