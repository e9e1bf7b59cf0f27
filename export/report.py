"""What an export made and measured: as an object, a table, `export.json` and a model card."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasmodels.export.formats import find
from kerasmodels.family import Servable

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Artifact:
    """One file or folder that was made and executed. Every field is in `export.json`.

    Args:
        format: name of the format.
        precision: fp32, fp16, dynamic (weights in 8 bits) or int8.
        path: relative to the output folder.
        executed: whether there is a runtime here to execute it. Only LiteRT files with Flex operators may lack one.
        verified: whether it was executed and is equal to the Keras model within tolerance. If it was executed and is
            not, its path ends in `.rejected`.
        problems: why not.
        sha256: of the file; of a folder, the digest of the lines "<sha256>  <path>\\n" of its files sorted by path.
        bytes: its size.
        inputs, outputs: name, dtype, shape, doc and kind of each; a name in a shape stands for a size that may vary.
        runtime: what executed it.
        measured: per output: max_abs_error, psnr (dB; None when nothing differs), equal (share) and the tolerance.
        cases: the calls that were compared.
        dims: value of each named dimension where an input must have a fixed size.
        operators: how often each operator occurs.
        opset: of ONNX, else None.
        versions: of the packages that made and executed it.
        seconds: that making and verifying took; of artifacts made together, an equal share.
        hostile: per hostile input its name, of each output max_abs_error and equal, and why it may be `unequal`, or "".
        note: what else its maker has to say of it, a sentence about "it".
    """

    format: str
    precision: str
    path: str
    executed: bool
    verified: bool
    problems: tuple[str, ...]
    sha256: str
    bytes: int
    inputs: tuple[Mapping[str, Any], ...]
    outputs: tuple[Mapping[str, Any], ...]
    runtime: str
    measured: tuple[Mapping[str, Any], ...]
    cases: tuple[Mapping[str, Any], ...]
    dims: Mapping[str, int]
    operators: Mapping[str, int]
    opset: int | None
    versions: Mapping[str, str]
    seconds: float
    hostile: tuple[Mapping[str, Any], ...] = ()
    note: str = ""

    @property
    def max_abs_error(self) -> float | None:
        """The largest of all outputs; None if they could not be compared."""
        return max((m["max_abs_error"] for m in self.measured), default=None)

    @property
    def psnr(self) -> float | None:
        """The smallest of all outputs, in dB, in reduced precision of those it is asked of; None if nothing differs."""
        asked = [m for m in self.measured if self.precision == "fp32" or "min_psnr" in m["tolerance"]]
        return min((m["psnr"] for m in asked if m["psnr"] is not None), default=None)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**dataclasses.asdict(self), "max_abs_error": self.max_abs_error, "psnr": self.psnr}


@dataclass(frozen=True)
class Report:
    """What one export made.

    Args:
        name: of the model.
        out: the output folder.
        artifacts: in the order of the table of formats.
        next_steps: lines to copy and paste: how to serve and run the artifacts.
    """

    name: str
    out: Path
    artifacts: tuple[Artifact, ...]
    next_steps: tuple[str, ...] = field(default_factory=tuple)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "name": self.name,
            "out": str(self.out),
            "artifacts": [artifact.to_dict() for artifact in self.artifacts],
            "next_steps": list(self.next_steps),
        }

    def table(self) -> "Table":
        """The measured numbers, for `rich`."""
        from rich.table import Table

        table = Table(title=f"{self.name}: executed and compared with Keras")
        table.add_column("artifact", overflow="fold")
        for column in ("precision", "MB", "max error", "equal", "PSNR dB", "cases"):
            table.add_column(column, justify="right")
        table.add_column("verdict")
        for row in self.artifacts:
            color = "green" if row.verified else "red" if row.executed else "yellow"
            table.add_row(row.path, *_numbers(row), f"[{color}]{_verdict(row)}[/]")
        return table


def _numbers(artifact: Artifact) -> list[str]:
    error, psnr = artifact.max_abs_error, artifact.psnr
    # How many floats are equal to the last bit says nothing.
    exact = {spec["name"] for spec in artifact.outputs if "float" not in spec["dtype"]}
    equal = min((m["equal"] for m in artifact.measured if m["name"] in exact), default=None)
    return [
        artifact.precision,
        f"{artifact.bytes / 1e6:.2f}",
        "-" if error is None else f"{error:.2g}",
        "-" if equal is None else f"{100 * equal:.2f} %",
        "-" if error is None else "inf" if psnr is None else f"{psnr:.1f}",
        str(len(artifact.cases)),
    ]


def _verdict(artifact: Artifact) -> str:
    if not artifact.verified:
        return "REJECTED" if artifact.executed else "NOT EXECUTED"
    if artifact.precision == "fp32":
        return "equal"
    levels = [m["tolerance"]["min_psnr"] for m in artifact.measured if "min_psnr" in m["tolerance"]]
    shares = [m["tolerance"]["min_equal"] for m in artifact.measured if "min_equal" in m["tolerance"]]
    gates = [*([f"{min(levels):g} dB"] if levels else []), *([f"{100 * min(shares):g} % equal"] if shares else [])]
    return f"{' and '.join(gates)} reached"


def snippet(package: str, imports: str, run: str, artifact: Artifact, servable: Servable) -> str:
    """A shell line with Python that loads inputs, runs an artifact and shows or saves what comes out.

    Args:
        package: that executes it, as pip knows it.
        imports, run: lines of Python.
        artifact, servable: what it is and was made from.
    """
    pictures = any(spec.kind == "image" for spec in (*servable.inputs, *servable.outputs))
    needed = f"{package}>={artifact.versions[package]}" if package in artifact.versions else package
    lines = [f"# pip install '{needed}' numpy{' pillow' if pictures else ''}", "import numpy as np"]
    lines += [*(["from PIL import Image"] if pictures else []), imports]
    for spec, described in zip(servable.inputs, artifact.inputs, strict=True):
        shape = tuple(artifact.dims[d] if isinstance(d, str) else d for d in spec.shape)
        if spec.kind == "image":
            # Where any size works, the picture keeps its own.
            any_size = all(isinstance(size, str) for size in described["shape"][1:3])
            size = "" if any_size else f".resize(({shape[2]}, {shape[1]}))"
            lines.append(f"{spec.name} = np.asarray(Image.open('photo.jpg').convert('RGB'){size})[None]")
        else:
            dtype = "U1" if spec.dtype == "string" else spec.dtype
            lines.append(f"{spec.name} = np.zeros({shape}, {dtype!r})  # {spec.doc}")
    lines += run.splitlines()
    for spec in servable.outputs:
        if spec.kind == "image":
            lines.append(f"Image.fromarray(result[{spec.name!r}][0]).save({f'{spec.name}.png'!r})")
        else:
            lines.append(f"print({spec.name!r}, result[{spec.name!r}].shape)")
    return "python - <<'EOF'\n" + "\n".join(lines) + "\nEOF"


def shape(spec: Mapping[str, Any]) -> str:
    """The shape of an input or output as people write it."""
    return " x ".join(str(size) for size in spec["shape"])


def model_card(models: Mapping[str, Mapping[str, Any]]) -> str:
    """`MODEL_CARD.md` for everything `export.json` lists, by name of the model."""
    return "\n".join(_card(name, model) for name, model in models.items())


def _card(name: str, model: Mapping[str, Any]) -> str:
    about = model["about"]
    lines = [f"# {name}", "", about["description"] or "No description.", ""]
    lines += [
        "| | |",
        "|---|---|",
        f"| made from | {about['source']} |",
        f"| author | {about['author'] or 'not known'} |",
    ]
    lines += [f"| license | {about['license'] or 'not known'} |", f"| made by | {about['producer']} |", ""]
    for title, specs in (("Inputs", about["inputs"]), ("Outputs", about["outputs"])):
        lines += [f"## {title}", "", "| name | type | shape | meaning |", "|---|---|---|---|"]
        lines += [f"| {s['name']} | {s['dtype']} | {shape(s)} | {s['doc']} |" for s in specs] + [""]
    lines += ["## Training", ""]
    training = model["training"]
    lines += [f"- {key}: {_plain(value)}" for key, value in training.items()] or ["Not known to the exporter."]
    lines += ["", "## Measured", ""]
    lines += ["| artifact | precision | MB | max error | equal | PSNR dB | cases | verdict |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|---|"]
    artifacts = [_artifact(a) for a in model["artifacts"]]
    for row in artifacts:
        verdict = "; ".join([_verdict(row), *row.problems])
        lines.append(f"| {row.path} | {' | '.join(_numbers(row))} | {verdict} |")
    lines += [
        "",
        "Unless the verdict says otherwise, an artifact was executed in its own runtime, in a fresh process on the "
        "CPU, and compared with the Keras model it was made from. How long a call takes, `kerasmodels bench` measures.",
        "",
    ]
    lines += [*_hostile(artifacts), "## Limits", ""]
    for name_ in dict.fromkeys(row.format for row in artifacts):
        rows = [row for row in artifacts if row.format == name_]
        lines += [f"- {name_}: {text}" for text in find(name_).exporter.limits(rows)]
        lines += [f"- {row.path} {row.note}" for row in rows if row.note]
    return "\n".join([*lines, ""])


def _hostile(rows: Sequence[Artifact]) -> list[str]:
    """The section on hostile inputs: each artifact's largest difference on each, and why it may be large."""
    names = list(dict.fromkeys(entry["input"] for row in rows for entry in row.hostile))
    if not names:
        return []
    lines = ["## Hostile inputs", "", "Largest difference of any output to Keras, on inputs that no example resembles."]
    lines += ["", f"| artifact | precision | {' | '.join(names)} |", f"|---|---|{'---:|' * len(names)}"]
    for row in rows:
        errors = {e["input"]: [output["max_abs_error"] for output in e["outputs"].values()] for e in row.hostile}
        cells = [f"{max(errors[name]):.2g}" if errors.get(name) else "-" for name in names]
        if row.hostile:
            lines.append(f"| {row.path} | {row.precision} | {' | '.join(cells)} |")
    reasons = dict.fromkeys((e["input"], e["unequal"]) for row in rows for e in row.hostile if e["unequal"])
    return [*lines, "", *(f"- {name}: need not be equal: {why}" for name, why in reasons), *([""] if reasons else [])]


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {_plain(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(v) for v in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _artifact(values: Mapping[str, Any]) -> Artifact:
    # An earlier release did not write what has a default.
    required = [f.name for f in dataclasses.fields(Artifact) if f.default is dataclasses.MISSING]
    later = {"hostile": tuple(values.get("hostile", ())), "note": values.get("note", "")}
    return Artifact(**{name: values[name] for name in required}, **later)
