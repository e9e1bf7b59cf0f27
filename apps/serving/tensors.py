"""What stands in requests and answers: TensorFlow Serving's JSON, the V2 protocol with its binary tensors, pictures."""

import base64
import binascii
import io
import json
import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from kerasmodels.apps.serving.batching import Arrays
from kerasmodels.apps.serving.models import Model
from kerasmodels.data.images import image_size, read_image
from kerasmodels.data.segmentation import voc_palette
from kerasmodels.errors import DataError, ServingError

DTYPES = {
    "BOOL": "bool",
    "UINT8": "uint8",
    "UINT16": "uint16",
    "UINT32": "uint32",
    "UINT64": "uint64",
    "INT8": "int8",
    "INT16": "int16",
    "INT32": "int32",
    "INT64": "int64",
    "FP16": "float16",
    "FP32": "float32",
    "FP64": "float64",
    "BYTES": "string",
}
"""V2's name of a dtype -> NumPy's."""
DATATYPES = {dtype: name for name, dtype in DTYPES.items()}
BYTES_SIGNATURE = "serve_bytes"
PNG_SIGNATURE = "serve_png"
"""Takes files as the one above, and answers with PNG files of the outputs that are pictures, or maps of classes."""
BYTES_SUFFIX = "_bytes"
TYPES = {"png": "image/png", "jpeg": "image/jpeg", "json": "application/json"}
"""What a picture's answer may be written as -> media type."""


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object of a request.

    Raises:
        ServingError: 400, it is none.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ServingError(
            400, f"expected a JSON object. Received: {len(body):,} bytes that are none ({error})."
        ) from None
    if not isinstance(value, dict):
        raise ServingError(400, f"expected a JSON object {{...}}. Received: a {type(value).__name__}.")
    return value


def text(value: Any) -> bytes:
    """`value` as JSON; numbers that are not finite become null."""
    try:
        return json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        return json.dumps(_finite(value), separators=(",", ":")).encode()


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def nested(array: np.ndarray) -> Any:
    """An array as nested lists, strings as text."""
    if array.dtype.kind in "SO":
        flat = [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in array.ravel().tolist()]
        return np.array(flat, object).reshape(array.shape).tolist()
    return array.tolist()


# --- pictures


def read_picture(content: bytes, model: Model, max_side: int | None = None) -> np.ndarray:
    """The picture in a JPEG, PNG, WebP, TIFF, BMP or GIF file: (H, W, 3) uint8, upright.

    Raises:
        ServingError: 415, it is none that can be read; 413, it has too many pixels.
    """
    try:
        height, width = image_size(content)
        if max_side is not None and max(height, width) > max_side:
            scale = max_side / max(height, width)
            height, width = max(1, round(height * scale)), max(1, round(width * scale))
        model.check_pixels(height * width)
        return read_image(content, max_side)
    except DataError as error:
        raise ServingError(413 if "too large" in str(error) else 415, str(error)) from None


def takes_picture(spec: Mapping[str, Any]) -> bool:
    """Whether an input or output holds pictures, or maps of one channel."""
    shape = spec["shape"]
    return len(shape) == 4 and shape[3] in (1, 3) and spec["dtype"] == "uint8"


def _as_input(picture: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    return picture if spec["shape"][3] == 3 else picture.mean(-1, keepdims=True).round().astype("uint8")


def fitted(picture: np.ndarray, spec: Mapping[str, Any]) -> np.ndarray:
    """The picture as the input takes it: cut at its edges and scaled if the height and width are fixed."""
    height, width = spec["shape"][1:3]
    if isinstance(height, str) or isinstance(width, str) or picture.shape[:2] == (height, width):
        return _as_input(picture, spec)
    fit = ImageOps.fit(Image.fromarray(picture), (width, height), Image.Resampling.BILINEAR)
    return _as_input(np.asarray(fit), spec)


def picture_input(model: Model) -> Mapping[str, Any]:
    """The only input, if it takes pictures.

    Raises:
        ServingError: 400, the model takes something else.
    """
    (first, *others) = model.inputs
    if others or not takes_picture(first):
        names = ", ".join(f"{spec['name']} ({spec['doc']})" for spec in model.inputs)
        raise ServingError(
            400, f"expected a model that takes one picture. {model.name} takes: {names}. Use its predict or infer."
        )
    return first


def drawn(array: np.ndarray, spec: Mapping[str, Any]) -> Image.Image | None:
    """What an output of one picture shows: a picture, labels in PASCAL VOC's colors, or a map of 0-1 in gray."""
    if array.ndim == 3 and array.shape[-1] == 3 and array.dtype == np.uint8:
        return Image.fromarray(array)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 2 or 1 in array.shape:
        return None
    if array.dtype.kind in "iu":
        if array.dtype != np.uint8 and (array.min() < 0 or array.max() > 255):
            return None
        image = Image.fromarray(array.astype("uint8"))
        if array.dtype != np.uint8:
            image.putpalette(voc_palette().ravel().astype("uint8").tobytes())
        return image
    if array.dtype.kind == "f":
        return Image.fromarray(np.clip(np.rint(np.nan_to_num(array) * 255), 0, 255).astype("uint8"))
    return None


def encoded(image: Image.Image, kind: str) -> bytes:
    """A picture as a PNG or JPEG file."""
    written = io.BytesIO()
    if kind == "jpeg":
        image.convert("RGB").save(written, "JPEG", quality=95)
    else:
        image.save(written, "PNG", compress_level=1)  # three times as fast as the usual 6, a tenth larger
    return written.getvalue()


def summary(found: Mapping[str, np.ndarray], model: Model, most: int = 100_000) -> dict[str, Any]:
    """The outputs for one picture as JSON: small arrays whole, of label maps the share of each label."""
    told = {}
    for spec in model.outputs:
        array = found[spec["name"]][0]
        value: dict[str, Any] = {"shape": list(array.shape), "dtype": str(array.dtype), "doc": spec["doc"]}
        if array.dtype.kind in "iu" and array.ndim == 2:
            labels, counts = np.unique(array, return_counts=True)
            value["share"] = {str(k): n / array.size for k, n in zip(labels.tolist(), counts.tolist(), strict=True)}
        elif array.size <= most and not takes_picture(spec):
            value["data"] = nested(array)
        told[spec["name"]] = value
    return {"model_name": model.name, "model_version": str(model.version), "outputs": told}


# --- TensorFlow Serving's JSON


def takes_files(signature: Any) -> bool:
    """Whether a request that names this signature gives pictures as files.

    Raises:
        ServingError: 400, there is no such signature.
    """
    if signature in (BYTES_SIGNATURE, PNG_SIGNATURE):
        return True
    if signature not in ("serving_default", ""):
        raise ServingError(
            400,
            f"unknown signature {str(signature)[:80]!r}. Known: serving_default; {BYTES_SIGNATURE} for files of "
            f"pictures, and {PNG_SIGNATURE} to have files back, too.",
        )
    return False


def from_predict(request: Mapping[str, Any], model: Model) -> tuple[list[Arrays], bool]:
    """The inputs of a TensorFlow Serving request.

    Files of pictures, {"b64": ...}, may be of different sizes, which become calls of their own.

    Returns:
        The inputs of each call, and whether rows were asked for ("instances", not "inputs").

    Raises:
        ServingError: 400, 413 or 415.
    """
    signature = request.get("signature_name", "serving_default")
    in_files = takes_files(signature)
    by_row = "instances" in request
    if by_row == ("inputs" in request):
        raise ServingError(400, f'expected either "instances" or "inputs". Received: {sorted(map(str, request))}.')
    suffix = BYTES_SUFFIX if in_files else ""
    specs = {spec["name"] + (suffix if takes_picture(spec) else ""): spec for spec in model.inputs}
    if not by_row:
        columns = request["inputs"]
        if (
            not isinstance(columns, dict)
            or set(columns) == {"b64"}
            or (len(specs) == 1 and not set(columns) & set(specs))
        ):
            columns = {next(iter(specs)): columns}
        _same_names(columns, specs)
        files = {name for name, value in columns.items() if _files(value)}
        if not files:
            return [{specs[n]["name"]: array_of(v, specs[n]) for n, v in columns.items()}], False
        as_lists = {name: value if isinstance(value, list) else [value] for name, value in columns.items()}
        if len({len(value) for value in as_lists.values()}) != 1:
            raise ServingError(400, "expected as many rows of each input.")
        rows = [dict(zip(as_lists, values, strict=True)) for values in zip(*as_lists.values(), strict=True)]
    else:
        instances = request["instances"]
        if not isinstance(instances, list) or not instances:
            raise ServingError(400, '"instances": expected a list of at least one.')
        only = next(iter(specs)) if len(specs) == 1 else None
        rows = [
            {only: row} if only and not (isinstance(row, dict) and set(row) != {"b64"}) else row for row in instances
        ]
        if any(not isinstance(row, dict) for row in rows):
            raise ServingError(400, f"expected instances that are objects with {sorted(specs)}.")
        for row in rows:
            _same_names(row, specs)
        if not any(_files(value) for row in rows for value in row.values()):
            if model.most_rows is None:
                raise ServingError(400, f'{model.name} has no batch axis: expected "inputs", not "instances".')
            return [{specs[n]["name"]: array_of([row[n] for row in rows], specs[n]) for n in specs}], True
    if len(rows) > model.limits.request_rows:
        raise ServingError(413, f"expected at most {model.limits.request_rows} rows. Received: {len(rows)}.")
    calls: list[Arrays] = []
    pixels = 0
    for row in rows:
        arrays = {}
        for name, value in row.items():
            if _files(value) and takes_picture(specs[name]):
                picture = read_picture(from_b64(value), model)
                arrays[specs[name]["name"]] = _as_input(picture, specs[name])[np.newaxis]
                pixels += picture.shape[0] * picture.shape[1]
                model.check_pixels(pixels)
            else:
                arrays[specs[name]["name"]] = array_of([value], specs[name])
        calls.append(arrays)
    return calls, by_row


def as_files(answer: Arrays, model: Model) -> dict[str, list[bytes]]:
    """The pictures of an answer, and its maps of classes, as PNG files, one for each row.

    Raises:
        ServingError: 400, there are none.
    """
    made: dict[str, list[bytes]] = {}
    for spec in model.outputs:
        rows = answer[spec["name"]]
        of_classes = rows.ndim == 3 and 0 < len(spec.get("classes", ())) <= 256 and rows.dtype.kind in "iu"
        if of_classes or spec["kind"] == "image":
            files = [encoded(Image.fromarray(row.astype("uint8")), "png") for row in rows]
            made[spec["name"] + BYTES_SUFFIX] = files
    if not made:
        raise ServingError(
            400, f"expected a model whose outputs are pictures. {model.name} has none: use {BYTES_SIGNATURE}."
        )
    return made


def to_predict(answers: Sequence[Arrays], model: Model, by_row: bool, signature: str = "") -> dict[str, Any]:
    """The answer to `from_predict`, whose request named this signature."""
    if signature == PNG_SIGNATURE:
        files = [as_files(answer, model) for answer in answers]
        columns = {
            name: [{"b64": base64.b64encode(file).decode()} for each in files for file in each[name]]
            for name in files[0]
        }
        if not by_row:
            return {"outputs": next(iter(columns.values())) if len(columns) == 1 else columns}
        if len(columns) == 1:
            return {"predictions": next(iter(columns.values()))}
        return {"predictions": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]}
    names = [spec["name"] for spec in model.outputs]
    if by_row:
        rows = [
            nested(answer[names[0]][i]) if len(names) == 1 else {name: nested(answer[name][i]) for name in names}
            for answer in answers
            for i in range(len(answer[names[0]]))
        ]
        return {"predictions": rows}
    columns = {name: [row for answer in answers for row in nested(answer[name])] for name in names}
    if len(answers) == 1:
        columns = {name: nested(answers[0][name]) for name in names}
    return {"outputs": columns[names[0]] if len(names) == 1 else columns}


def _same_names(given: Mapping[str, Any], specs: Mapping[str, Any]) -> None:
    if set(given) != set(specs):
        raise ServingError(400, f"expected the inputs {sorted(specs)}. Received: {sorted(map(str, given))}.")


def _files(value: Any) -> bool:
    """Whether a value is a file in base64, or a list of such."""
    value = value[0] if isinstance(value, list) and value else value
    return isinstance(value, dict) and set(value) == {"b64"}


def from_b64(value: Mapping[str, Any]) -> bytes:
    """The bytes of {"b64": ...}. Raises ServingError (400) if they are none."""
    try:
        return base64.b64decode(value["b64"], validate=True)
    except (binascii.Error, ValueError, TypeError, KeyError) as error:
        raise ServingError(400, f'expected {{"b64": ...}} with base64 in it ({error}).') from None


def array_of(value: Any, spec: Mapping[str, Any]) -> np.ndarray:
    """Nested lists as an array of the input's dtype.

    Raises:
        ServingError: 400, they are ragged, or no such numbers.
    """
    dtype = spec["dtype"]
    try:
        if dtype == "string":
            texts = np.array(value, object)
            if not all(isinstance(v, str | dict) for v in texts.ravel().tolist()):
                raise ValueError("what is no text, or lists of different lengths")
            flat = [from_b64(v) if isinstance(v, dict) else v.encode() for v in texts.ravel().tolist()]
            return np.array(flat, object).reshape(texts.shape)
        found = np.array(value)
        if found.dtype.kind not in "biuf":
            raise ValueError(f"values of type {found.dtype}")
        wanted = np.dtype(dtype)
        if wanted.kind in "iu":
            if found.dtype.kind == "f" and not (found == np.rint(found)).all():
                raise ValueError("numbers that are not whole")
            bounds = np.iinfo(wanted)
            if found.size and (found.min() < bounds.min or found.max() > bounds.max):
                raise ValueError(f"numbers beyond {bounds.min} to {bounds.max}")
        with np.errstate(over="ignore"):
            return found.astype(wanted)
    except (ValueError, TypeError, OverflowError) as error:
        told = str(error).splitlines()[0][:200]
        raise ServingError(400, f"expected {spec['name']} as nested lists of {dtype}. Received: {told}.") from None


# --- the V2 protocol


def from_infer(request: Mapping[str, Any], binary: bytes) -> Arrays:
    """The inputs of a V2 request, whose binary tensors lie one after the other in `binary`.

    Raises:
        ServingError: 400.
    """
    inputs, arrays, at = request.get("inputs"), {}, 0
    if not isinstance(inputs, list) or not inputs:
        raise ServingError(400, '"inputs": expected a list of at least one tensor.')
    for tensor in inputs:
        if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str):
            raise ServingError(400, "expected tensors with a name, a shape and a datatype.")
        name, shape, datatype = tensor["name"], tensor.get("shape"), tensor.get("datatype")
        if datatype not in DTYPES:
            raise ServingError(400, f"unknown datatype {datatype!r} of {name}. Known: {', '.join(DTYPES)}.")
        if not isinstance(shape, list) or not all(type(n) is int and 0 <= n < 2**31 for n in shape) or len(shape) > 8:
            raise ServingError(400, f"expected the shape of {name} as a list of sizes. Received: {str(shape)[:100]}.")
        parameters = tensor.get("parameters") or {}
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        try:
            if size is None:
                flat = array_of(tensor.get("data"), {"name": name, "dtype": DTYPES[datatype]}).ravel()
            elif type(size) is not int or not 0 <= size <= len(binary) - at:
                raise ValueError(f"binary_data_size {size!r}, while {len(binary) - at} bytes follow")
            else:
                flat, at = _flat(binary[at : at + size], DTYPES[datatype]), at + size
            arrays[name] = flat.reshape(shape)
        except ValueError as error:
            raise ServingError(400, f"expected {name} to be {datatype} of {shape}. Received: {error}.") from None
    if at != len(binary):
        raise ServingError(400, f"expected {at} bytes of binary tensors. Received: {len(binary)}.")
    return arrays


def _flat(content: bytes, dtype: str) -> np.ndarray:
    if dtype != "string":
        return np.frombuffer(content, np.dtype(dtype).newbyteorder("<"))
    texts, at = [], 0
    while at < len(content):
        if at + 4 > len(content):
            raise ValueError("a length that is cut short")
        (length,) = struct.unpack_from("<I", content, at)
        if at + 4 + length > len(content):
            raise ValueError(f"a text of {length} bytes that is cut short")
        texts.append(content[at + 4 : at + 4 + length])
        at += 4 + length
    return np.array(texts, object)


def to_infer(found: Arrays, model: Model, request: Mapping[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    """The answer to `from_infer`: the JSON, and the binary tensors that follow it.

    Raises:
        ServingError: 400, an output that the model has not.
    """
    parameters = request.get("parameters")
    all_binary = isinstance(parameters, dict) and parameters.get("binary_data_output") is True
    asked = request.get("outputs") or [{"name": spec["name"]} for spec in model.outputs]
    known = [spec["name"] for spec in model.outputs]
    outputs, pieces = [], []
    for each in asked if isinstance(asked, list) else [None]:
        if not isinstance(each, dict) or each.get("name") not in known:
            raise ServingError(400, f"expected outputs of {known}. Received: {str(each)[:100]}.")
        array = found[each["name"]]
        dtype = "string" if array.dtype.kind in "SUO" else array.dtype.name
        tensor = {"name": each["name"], "datatype": DATATYPES[dtype], "shape": list(array.shape)}
        own = each.get("parameters")
        if dtype != "string" and (own.get("binary_data", all_binary) if isinstance(own, dict) else all_binary):
            pieces.append(np.ascontiguousarray(array).tobytes())
            tensor["parameters"] = {"binary_data_size": len(pieces[-1])}
        else:
            tensor["data"] = nested(array.ravel())
        outputs.append(tensor)
    answer = {"model_name": model.name, "model_version": str(model.version), "outputs": outputs}
    if isinstance(request.get("id"), str):
        answer["id"] = request["id"]
    return answer, pieces


def infer_request(arrays: Mapping[str, np.ndarray]) -> tuple[bytes, dict[str, str]]:
    """A V2 request with binary tensors that asks for binary tensors: its body and headers."""
    inputs, pieces = [], []
    for name, array in arrays.items():
        dtype = "string" if array.dtype.kind in "SUO" else array.dtype.name
        if dtype not in DATATYPES:
            raise DataError(f"expected numbers or texts in {name}. Received: {dtype}.")
        tensor: dict[str, Any] = {"name": name, "datatype": DATATYPES[dtype], "shape": list(array.shape)}
        if dtype == "string":
            tensor["data"] = nested(array.ravel())
        else:
            pieces.append(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
            tensor["parameters"] = {"binary_data_size": len(pieces[-1])}
        inputs.append(tensor)
    head = text({"inputs": inputs, "parameters": {"binary_data_output": True}})
    return b"".join([head, *pieces]), {"Inference-Header-Content-Length": str(len(head))}


def infer_answer(content: bytes, headers: Mapping[str, str]) -> Arrays:
    """The outputs in the answer to `infer_request`."""
    size = int(headers.get("inference-header-content-length", len(content)))
    answer, at, found = json.loads(content[:size]), size, {}
    for tensor in answer["outputs"]:
        length = tensor.get("parameters", {}).get("binary_data_size")
        if length is None:
            flat = np.array(tensor["data"], None if tensor["datatype"] == "BYTES" else DTYPES[tensor["datatype"]])
        else:
            flat, at = _flat(content[at : at + length], DTYPES[tensor["datatype"]]), at + length
        found[tensor["name"]] = flat.reshape(tensor["shape"])
    return found
