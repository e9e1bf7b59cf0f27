"""Is an artifact equal to the Keras model? It is executed in a fresh process, and its answers are compared.

In fp32, floating outputs may differ by the `atol` their spec declares. Integers come from floats by rounding or argmax,
where the last bit of a float decides: the share of values that differ is about the mean error of the floats in units
of a level. 99.5 % of the values must be equal, which for pictures is a mean error of 2e-5 of their range, and pictures
may not differ by more than one level (or `atol`, if larger) anywhere.

In reduced precisions the peak signal-to-noise ratio of pictures and floats must reach the servable's `min_psnr`. It
says nothing of decisions: class 3 is not nearer to class 4 than to class 9. Of integers that are no levels of a picture
(uint8), and of what follows from them (within a level), a share must be equal, `min_equal`; slots without an order are
paired first, by `align`. int8 is measured on pictures like those it was calibrated with, where the user gave some:
every fourth is kept for that.

All that is asked of friendly examples together. On each hostile input (`kerasmodels.export.hostile`) by itself an fp32
artifact must keep the same tolerances, unless the servable says in `unequal` why it cannot; but of pictures no share is
asked there, only that they are within a level: a picture of few colors has few results, and where one of them lies at
the edge of rounding, all its pixels go the same way. An artifact of reduced precision, whose quality is a matter of
the pictures it was made for, must answer with finite values.
"""

import dataclasses
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasmodels.errors import UsageError
from kerasmodels.export import children, hostile, signatures
from kerasmodels.family import Servable, TensorSpec

MIN_EQUAL = 0.995
FIXED_SEEDS = 3


@dataclass(frozen=True)
class Case:
    """Inputs of one call and what the Keras model answers to them.

    Args:
        signature: the signature to call.
        dims: value of each named dimension.
        inputs: an array, or a list of files' bytes, for each input.
        expected: the outputs; of the signature that answers with files, all their pixels in a row.
        hostile: name of the hostile input it is; empty for a friendly one.
    """

    signature: str
    dims: Mapping[str, int]
    inputs: Mapping[str, np.ndarray | list[bytes]]
    expected: Mapping[str, np.ndarray]
    hostile: str = ""


@dataclass(frozen=True)
class Measured:
    """How one output compares over all cases.

    Args:
        name: of the output.
        max_abs_error: largest absolute difference.
        psnr: in dB over the outputs' range; None if there is no difference at all.
        equal: share of values that are exactly equal.
        tolerance: what was demanded: `atol`, `min_equal`, `min_psnr`.
    """

    name: str
    max_abs_error: float
    psnr: float | None
    equal: float
    tolerance: Mapping[str, float]


@dataclass(frozen=True)
class Trial:
    """An artifact and what it has to be equal to.

    Args:
        path: file or folder.
        servable: what it was made from.
        cases: inputs and expected outputs.
        precision: of the artifact.
        free: named dimensions that may vary in it.
    """

    path: Path
    servable: Servable
    cases: Sequence[Case]
    precision: str = "fp32"
    free: Sequence[str] = ()


@dataclass(frozen=True)
class Verdict:
    """What executing an artifact showed. It is accepted if `problems` is empty."""

    problems: tuple[str, ...]
    measured: tuple[Measured, ...]
    cases: tuple[Mapping[str, Any], ...]
    versions: Mapping[str, str]
    hostile: tuple[Mapping[str, Any], ...] = ()


class Cases:
    """The cases of a servable; the Keras model answers each only once."""

    def __init__(self, servable: Servable, dims: Mapping[str, int]):
        self._servable, self._dims = servable, dims
        self._known: dict[tuple[tuple[tuple[str, int], ...], int], Case] = {}
        self._hostile: list[Case] | None = None

    def tensors(self, dims: Mapping[str, int], seed: int) -> Case:
        """The example of `dims` and `seed`.

        Raises:
            UsageError: it does not fit the specs.
        """
        key = (tuple(sorted(dims.items())), seed)
        if key not in self._known:
            inputs = dict(self._servable.example(dims, seed))
            _check_arrays("example inputs", inputs, self._servable.inputs, dims)
            expected = signatures.reference(self._servable, inputs)
            _check_arrays("outputs", expected, self._servable.outputs, dims)
            self._known[key] = Case(signatures.DEFAULT, dims, inputs, expected)
        return self._known[key]

    def fixed(self) -> list[Case]:
        """Several inputs of the fixed size."""
        return [self.tensors(self._dims, seed) for seed in range(FIXED_SEEDS)]

    def given(self, examples: Sequence[Mapping[str, np.ndarray]]) -> list[Case]:
        """Inputs of the user's."""
        answers = [signatures.reference(self._servable, inputs) for inputs in examples]
        return [
            Case(signatures.DEFAULT, self._dims, inputs, expected)
            for inputs, expected in zip(examples, answers, strict=True)
        ]

    def dynamic(self, batches: Sequence[int]) -> list[Case]:
        """Inputs of every size worth checking, and of each batch size."""
        sizes = [dict(self._dims), *({**self._dims, **other} for other in self._servable.check_dims)]
        if "batch" not in self._dims:
            batches = (1,)
        found = []
        for index, size in enumerate(sizes):
            for batch in batches:
                dims = {**size, "batch": batch} if "batch" in self._dims else size
                found.append(self.tensors(dims, index * len(batches) + batch))
        return found

    def hostile(self) -> list[Case]:
        """The hostile inputs, of the fixed size.

        Raises:
            UsageError: the Keras model itself does not answer them with finite values.
        """
        if self._hostile is None:
            self._hostile = []
            for name, inputs in hostile.inputs(self._servable, self._servable.example(self._dims, 0)):
                expected = signatures.reference(self._servable, inputs)
                _check_arrays(f"outputs for the hostile input {name!r}", expected, self._servable.outputs, self._dims)
                self._hostile.append(Case(signatures.DEFAULT, self._dims, inputs, expected, name))
            unknown = set(self._servable.unequal) - {case.hostile for case in self._hostile}
            if unknown:
                raise UsageError(
                    f"expected the keys of the servable's `unequal` to be hostile inputs of it, which are "
                    f"{[case.hostile for case in self._hostile]}. Received: {sorted(unknown)}."
                )
        return self._hostile

    def files(self) -> list[Case]:
        """Real PNG and JPEG files, for a servable that takes one picture; answered with files, too, several sizes."""
        import tensorflow as tf

        picture = signatures.picture_input(self._servable)
        if picture is None:
            return []
        name = signatures.bytes_name(picture)
        pair = self.tensors({**self._dims, "batch": 2}, 1) if "batch" in self._dims else self.tensors(self._dims, 0)
        pixels = np.asarray(pair.inputs[picture.name])
        pngs = Case(signatures.BYTES, pair.dims, {name: [_encoded(p, "PNG") for p in pixels]}, pair.expected)
        # JPEG decoders differ by a level or two, so the pixels to compare with are TensorFlow's.
        content = _encoded(pixels[0], "JPEG")
        decoded = {picture.name: signatures.decode(tf.constant(content)).numpy()[None]}
        expected = signatures.reference(self._servable, decoded)
        dims = {**self._dims, "batch": 1} if "batch" in self._dims else dict(self._dims)
        return [pngs, Case(signatures.BYTES, dims, {name: [content]}, expected), *self._answered_with_files(picture)]

    def _answered_with_files(self, picture: TensorSpec) -> list[Case]:
        outputs = signatures.png_outputs(self._servable)
        singles = [case for case in self.dynamic((1, 2)) if len(case.inputs[picture.name]) == 1]
        contents = [_encoded(np.asarray(case.inputs[picture.name])[0], "PNG") for case in singles]
        expected = {
            spec.name: np.concatenate([case.expected[spec.name].ravel() for case in singles]) for spec in outputs
        }
        case = Case(signatures.PNG, self._dims, {signatures.bytes_name(picture): contents}, expected)
        return [case] if outputs else []


def _encoded(pixels: np.ndarray, kind: str) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def _check_arrays(
    what: str, arrays: Mapping[str, np.ndarray], specs: Sequence[TensorSpec], dims: Mapping[str, int]
) -> None:
    known = {**{d: None for spec in specs for d in spec.shape if isinstance(d, str)}, **dims}
    for spec in specs:
        array = arrays.get(spec.name)
        shape = spec.bind(known)
        if (
            array is None
            or not spec.fits(array)
            or len(array.shape) != len(shape)
            or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True))
        ):
            received = "nothing" if array is None else f"{array.dtype.name} {array.shape}"
            raise UsageError(
                f"the servable's {what} do not fit its specs: expected {spec.name} to be {spec.dtype} {spec.shape} "
                f"with {dict(dims)}. Received: {received}."
            )
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise UsageError(f"the servable's {what} are not finite: {spec.name} holds NaN or infinite values.")


def verify(runtime: str, trials: Sequence[Trial], work: Path) -> list[Verdict]:
    """Execute artifacts in a fresh process, each on all of its cases, and compare.

    Args:
        runtime: what executes them.
        trials: the artifacts; one process takes them one after the other.
        work: folder for temporary files.
    """
    jobs = []
    for number, trial in enumerate(trials):
        data, listed = work / f"cases-{number}.npz", []
        arrays: dict[str, np.ndarray] = {}
        for index, case in enumerate(trial.cases):
            counts: dict[str, int | None] = {}
            for name, value in case.inputs.items():
                if isinstance(value, list):
                    counts[name] = len(value)
                    arrays |= {f"{index}/{name}/{i}": np.frombuffer(b, np.uint8) for i, b in enumerate(value)}
                else:
                    counts[name] = None
                    arrays[f"{index}/{name}"] = value
            listed.append({"signature": case.signature, "inputs": counts})
        np.savez(data, **arrays)  # type: ignore[arg-type]
        out = work / f"answers-{number}.npz"
        job = {"runtime": runtime, "path": str(trial.path), "data": str(data), "out": str(out), "cases": listed}
        jobs.append(job)
    whats = [f"executing {trial.path.name} in {runtime}" for trial in trials]
    answers = children.call("run_artifact", jobs, whats, work)
    verdicts = []
    for trial, job, answer in zip(trials, jobs, answers, strict=True):
        with np.load(str(job["out"])) as results:
            found = {key: results[key] for key in results.files}
        verdicts.append(_judge(trial, answer, {**found, **_pixels(trial, found)}))
    return verdicts


def _pixels(trial: Trial, found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is in the files that a signature answered with, in a row."""
    from PIL import Image

    pixels = {}
    for index, case in enumerate(trial.cases):
        for spec in signatures.png_outputs(trial.servable) if case.signature == signatures.PNG else ():
            files = found.get(f"{index}/{signatures.bytes_name(spec)}", np.zeros(0, "S1"))
            arrays = [np.asarray(Image.open(io.BytesIO(bytes(file)), formats=["PNG"])).ravel() for file in files]
            pixels[f"{index}/{spec.name}"] = np.concatenate([np.zeros(0, np.uint8), *arrays]).astype(spec.dtype)
    return pixels


def _judge(trial: Trial, answer: Mapping[str, Any], found: Mapping[str, np.ndarray]) -> Verdict:
    """What is to be said of an artifact that declares `answer` and computed `found`."""
    servable, cases, precision = trial.servable, trial.cases, trial.precision
    problems = [
        *_declared(servable.inputs, answer["inputs"], cases[0].dims, trial.free, "input"),
        *_declared(servable.outputs, answer["outputs"], cases[0].dims, trial.free, "output"),
    ]
    if answer["foreign"]:
        problems.append(f"it was executed beside modules of this library ({', '.join(answer['foreign'])})")
    friendly = {index: case for index, case in enumerate(cases) if not case.hostile}
    measured, suffered = [], []
    found = _aligned(servable, friendly, found) if precision != "fp32" else found
    for spec in servable.outputs:
        result, trouble = _compare(spec, friendly, found, _tolerance(servable, spec, precision))
        problems += trouble
        if result is not None:
            measured.append(result)
    for index, case in enumerate(cases):
        if case.hostile:
            row, trouble = _withstood(servable, index, case, found, precision)
            problems += trouble
            suffered.append(row)
    return Verdict(
        tuple(problems),
        tuple(measured),
        tuple(_described(case) for case in friendly.values()),
        answer["versions"],
        tuple(suffered),
    )


def not_executed(why: str) -> Verdict:
    """The verdict on an artifact for which there is no runtime."""
    return Verdict((f"not executed: {why}",), (), (), {})


def _withstood(
    servable: Servable, index: int, case: Case, found: Mapping[str, np.ndarray], precision: str
) -> tuple[dict[str, Any], list[str]]:
    """How the artifact answered one hostile input, and what is wrong with that."""
    why, problems, outputs = servable.unequal.get(case.hostile, ""), [], {}
    for spec in servable.outputs:
        demanded = _tolerance(servable, spec, precision) if precision == "fp32" else {}
        if spec.kind == "image" and not spec.follows:
            demanded = {name: bound for name, bound in demanded.items() if name != "min_equal"}
        result, trouble = _compare(spec, {index: case}, found, demanded)
        if result is None or not why:
            problems += [f"on the hostile input {case.hostile!r}: {line}" for line in trouble]
        if result is not None:
            outputs[spec.name] = {"max_abs_error": result.max_abs_error, "equal": result.equal}
    return {"input": case.hostile, "outputs": outputs, "unequal": why}, problems


def _described(case: Case) -> dict[str, Any]:
    inputs = {}
    for name, value in case.inputs.items():
        if isinstance(value, list):
            inputs[name] = ["PNG file" if item.startswith(b"\x89PNG") else "JPEG file" for item in value]
        else:
            inputs[name] = list(value.shape)
    return {"signature": case.signature, "inputs": inputs}


def _declared(
    specs: Sequence[TensorSpec], declared: list[dict[str, Any]], dims: Mapping[str, int], free: Sequence[str], kind: str
) -> list[str]:
    """What is wrong with the names, dtypes and shapes an artifact declares."""
    by_name = {d["name"]: d for d in declared}
    if set(by_name) != {spec.name for spec in specs}:
        return [f"expected the {kind}s {[spec.name for spec in specs]}, it has {sorted(by_name)}"]
    problems = []
    for spec in specs:
        entry = by_name[spec.name]
        if entry["dtype"] != spec.dtype:
            problems.append(f"expected {kind} {spec.name} to be {spec.dtype}, it is {entry['dtype']}")
        if len(entry["shape"]) != len(spec.shape):
            problems.append(f"expected {kind} {spec.name} to have the shape {spec.shape}, it has {entry['shape']}")
            continue
        for want, got in zip(spec.shape, entry["shape"], strict=True):
            if isinstance(want, str) and want in free:
                good = got is None or got == want
            elif isinstance(want, str) and want in dims:
                good = got == dims[want] or (kind == "output" and got is None)
            else:
                good = not isinstance(want, int) or got in (want, None)
            if not good:
                problems.append(
                    f"expected dimension {want} of {kind} {spec.name} to be "
                    f"{'free' if want in free else dims.get(str(want), want)}, it is {got}"
                )
    return problems


def _tolerance(servable: Servable, spec: TensorSpec, precision: str) -> dict[str, float]:
    """What is demanded of an output."""
    decision = bool(spec.follows) or not spec.dtype.startswith(("float", "uint8"))
    if precision != "fp32":
        if decision:
            return {"min_equal": servable.min_equal.get(precision, 1.0)}
        return {"min_psnr": servable.min_psnr.get(precision, math.inf)}
    if spec.dtype.startswith("float"):
        return {"atol": spec.atol}
    levels = {"atol": max(1.0, spec.atol)} if spec.kind == "image" and not decision else {}
    return {"min_equal": MIN_EQUAL, **levels}


def _aligned(
    servable: Servable, cases: Mapping[int, Case], found: Mapping[str, np.ndarray]
) -> Mapping[str, np.ndarray]:
    """The answers with their slots in the expected order."""
    names = [spec.name for spec in servable.outputs]
    aligned = dict(found)
    for index, case in cases.items():
        answer = {name: found[f"{index}/{name}"] for name in names if f"{index}/{name}" in found}
        same = all(name in answer and answer[name].shape == np.shape(case.expected.get(name, ())) for name in names)
        if servable.align is not None and same:
            ordered = servable.align(case.expected, answer)
            aligned |= {f"{index}/{name}": ordered[name] for name in names}
    return aligned


def _compare(
    spec: TensorSpec, cases: Mapping[int, Case], found: Mapping[str, np.ndarray], demanded: Mapping[str, float]
) -> tuple[Measured | None, list[str]]:
    """The difference over all cases, and what is too much of it."""
    largest, squares, count, equal = 0.0, 0.0, 0, 0
    low, high = math.inf, -math.inf
    for index, case in cases.items():
        if spec.name not in case.expected:
            continue
        want, got = case.expected[spec.name], found.get(f"{index}/{spec.name}")
        where = f"case {index} ({case.signature}, {dict(case.dims)})"
        if got is None or got.shape != want.shape:
            shape = "nothing" if got is None else f"the shape {got.shape}"
            return None, [f"output {spec.name} has {shape} in {where}, expected {want.shape}"]
        if not spec.fits(got):
            return None, [f"output {spec.name} is {got.dtype.name} in {where}, expected {want.dtype.name}"]
        if np.issubdtype(got.dtype, np.floating) and not np.isfinite(got).all():
            return None, [f"output {spec.name} holds NaN or infinite values in {where}"]
        if spec.dtype == "string":
            want, got = np.zeros(want.shape), (got != want).astype(np.float64)
        want, got = want.astype(np.float64), got.astype(np.float64)
        difference = np.abs(got - want)
        largest = max(largest, float(difference.max(initial=0)))
        squares += float(np.square(difference).sum())
        count += difference.size
        # What is painted with decisions is rounded besides.
        equal += int((difference <= (1 if spec.follows and spec.kind == "image" else 0)).sum())
        low, high = min(low, float(want.min(initial=np.inf))), max(high, float(want.max(initial=-np.inf)))
    part = equal / max(count, 1)
    spread = 255.0 if spec.kind == "image" else (high - low if high > low else 1.0)
    psnr = 10 * math.log10(spread**2 / (squares / count)) if squares else None

    problems = []
    for name, bound in demanded.items():
        if name == "min_psnr" and psnr is not None and not psnr >= bound:
            problems.append(f"output {spec.name} has a PSNR of {psnr:.1f} dB, expected {bound:g} dB")
        elif name == "min_equal" and part < bound:
            problems.append(f"only {100 * part:.2f} % of output {spec.name} are equal, expected {100 * bound:g} %")
        elif name == "atol" and not largest <= bound:
            levels = " levels" if spec.kind == "image" else ""
            problems.append(f"output {spec.name} differs by {largest:.3g}{levels}, expected at most {bound:g}")
    return Measured(spec.name, largest, psnr, part, demanded), problems


def as_dict(measured: Measured) -> dict[str, Any]:
    """Plain JSON values."""
    return {**dataclasses.asdict(measured), "tolerance": dict(measured.tolerance)}
