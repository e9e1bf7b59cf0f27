"""LiteRT (.tflite): built-in operators, fixed batch, standard metadata inside the file."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_edge_litert import schema_py_generated as schema

from kerasmodels.errors import UnsupportedOpsError
from kerasmodels.export import children, litert_metadata
from kerasmodels.family import Servable

if TYPE_CHECKING:
    from kerasmodels.export.order import Order
    from kerasmodels.export.report import Artifact

# A file with one of these keeps its weights outside, uninitialized: it would run and compute garbage.
LOOSE_WEIGHTS = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE")
_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_SHOWN = 3


def make(order: "Order", out: Path) -> dict[str, Any]:
    """Write the file `out`; returns versions.

    Raises:
        UnsupportedOpsError: it needs operators that are not built in.
    """
    from kerasmodels.export import signatures

    source = order.work / "litert_source"
    signatures.write(order.servable, source, order.bound())
    job = {
        "saved_model": str(source),
        "out": str(out),
        "precision": order.precision,
        "allow_flex": order.allow_flex,
        "calibration": order.save_calibration(),
    }
    answer = children.call("convert_litert", job, "converting to LiteRT", out.parent)
    if "unsupported" in answer:
        raise _unsupported(answer["unsupported"])
    found = operators(out)
    forbidden = {name for name in found if name in LOOSE_WEIGHTS}
    if not order.allow_flex:
        forbidden |= {name for name in found if name.startswith(("Flex", "CUSTOM:"))}
    if forbidden:
        raise _unsupported({name: [] for name in sorted(forbidden)})
    litert_metadata.attach(out, order.metadata)
    return answer


def _unsupported(nodes: dict[str, list[str]]) -> UnsupportedOpsError:
    lines = []
    for name, places in nodes.items():
        more = f" and {len(places) - _SHOWN} more" if len(places) > _SHOWN else ""
        where = f" (in {', '.join(places[:_SHOWN])}{more})" if places else ""
        lines.append(f"{name}{where}")
    return UnsupportedOpsError(
        f"LiteRT has no built-in operator for {'; '.join(lines)}. Write it with other operations, or allow "
        "TensorFlow's own (allow_flex=True, --allow-flex): such a file needs an interpreter with the Flex delegate."
    )


def operators(path: Path) -> dict[str, int]:
    """How often each operator occurs, most frequent first; TensorFlow's are called Flex..., custom ones CUSTOM:..."""
    model = schema.Model.GetRootAs(path.read_bytes())
    names = []
    for i in range(model.OperatorCodesLength()):
        code = model.OperatorCodes(i)
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
        if number == schema.BuiltinOperator.CUSTOM:
            custom = code.CustomCode().decode()
            names.append(custom if custom.startswith("Flex") else f"CUSTOM:{custom}")
        else:
            names.append(_NAMES[number])
    found: Counter[str] = Counter()
    for i in range(model.SubgraphsLength()):
        graph = model.Subgraphs(i)
        found.update(names[graph.Operators(j).OpcodeIndex()] for j in range(graph.OperatorsLength()))
    return dict(found.most_common())


def needs_flex(path: Path) -> bool:
    """Whether the file has TensorFlow's own operators, for which the Python interpreters lack the Flex delegate."""
    return any(name.startswith("Flex") for name in operators(path))


def read_metadata(path: Path) -> dict[str, Any]:
    """What `make` wrote into the file."""
    return json.loads(litert_metadata.read(path, litert_metadata.OWN))


def next_steps(artifact: "Artifact", servable: Servable, path: Path) -> list[str]:
    """A Python snippet that runs the file."""
    from kerasmodels.export.report import snippet

    if not artifact.executed:
        return [
            f"# {path} needs the Flex delegate: on Android add org.tensorflow:tensorflow-lite-select-tf-ops, "
            "on iOS TensorFlowLiteSelectTfOps"
        ]
    loader = "from ai_edge_litert.interpreter import Interpreter"
    arguments = ", ".join(f"{spec.name}={spec.name}" for spec in servable.inputs)
    run = f"result = Interpreter({str(path)!r}).get_signature_runner()({arguments})"
    return [snippet(loader, run, artifact, servable)]
