"""LiteRT (.tflite): built-in operators, fixed batch, standard metadata inside the file."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ai_edge_litert import schema_py_generated as schema

from kerasmodels.errors import UnsupportedOpsError
from kerasmodels.export import children, litert_metadata
from kerasmodels.export.formats import Exporter
from kerasmodels.export.report import Artifact, shape, snippet
from kerasmodels.family import Servable

if TYPE_CHECKING:
    from kerasmodels.export.order import Order

# A file with one of these keeps its weights outside, uninitialized: it would run and compute garbage.
LOOSE_WEIGHTS = ("VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CALL_ONCE")
_NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
_SHOWN = 3


class LiteRT(Exporter):
    """A single file."""

    def make(self, orders: "Sequence[Order]") -> list[dict[str, Any]]:
        """See `Exporter`.

        Raises:
            UnsupportedOpsError: one needs operators that are not built in.
        """
        jobs = []
        for order in orders:
            source = order.sources.find(order.work / "litert_source", order.bound())
            jobs.append(
                {
                    "saved_model": str(source),
                    "out": str(order.path),
                    "precision": order.precision,
                    "allow_flex": order.allow_flex,
                    "calibration": order.save_calibration(),
                }
            )
        whats = [f"converting {order.name} to LiteRT" for order in orders]
        answers = children.call("convert_litert", jobs, whats, orders[0].work)
        for order, answer in zip(orders, answers, strict=True):
            if "unsupported" in answer:
                raise _unsupported(answer["unsupported"])
            found = self.operators(order.path)
            forbidden = {name for name in found if name in LOOSE_WEIGHTS}
            if not order.allow_flex:
                forbidden |= {name for name in found if name.startswith(("Flex", "CUSTOM:"))}
            if forbidden:
                raise _unsupported({name: [] for name in sorted(forbidden)})
            litert_metadata.attach(order.path, order.metadata, order.servable)
        return answers

    def operators(self, path: Path) -> dict[str, int]:
        """Most frequent first; TensorFlow's are called Flex..., custom ones CUSTOM:..."""
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

    def read_metadata(self, path: Path) -> dict[str, Any]:
        return json.loads(litert_metadata.read(path, litert_metadata.OWN))

    def limits(self, artifacts: Sequence[Artifact]) -> list[str]:
        sizes = sorted({", ".join(shape(spec) for spec in row.inputs) for row in artifacts})
        flex = [row.path for row in artifacts if _needs_flex(row.operators)]
        limits = [f"inputs are {' or '.join(sizes)}, one at a time."]
        return limits + ([f"{', '.join(flex)} needs an interpreter with the Flex delegate."] if flex else [])

    def not_executed(self, path: Path) -> str:
        if not _needs_flex(self.operators(path)):
            return ""
        return "no interpreter with the Flex delegate comes with TensorFlow's Python packages"

    def next_steps(self, artifact: Artifact, servable: Servable, path: Path) -> list[str]:
        """A Python snippet that runs the file."""
        if not artifact.executed:
            return [
                f"# {path} needs the Flex delegate: on Android add org.tensorflow:tensorflow-lite-select-tf-ops, "
                "on iOS TensorFlowLiteSelectTfOps"
            ]
        loader = "from ai_edge_litert.interpreter import Interpreter"
        arguments = ", ".join(f"{spec.name}={spec.name}" for spec in servable.inputs)
        run = f"result = Interpreter({str(path)!r}).get_signature_runner()({arguments})"
        return [snippet("ai-edge-litert", loader, run, artifact, servable)]


def _needs_flex(operators: Iterable[str]) -> bool:
    """Whether there are operators of TensorFlow's own among them."""
    return any(name.startswith("Flex") for name in operators)


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


EXPORTER = LiteRT()
