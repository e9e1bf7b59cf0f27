"""The family in miniature, for the conformance battery."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasmodels.models import rnn_encoder_decoder
from tests.cases import Case

SOURCES = ("a man", "two dogs run", "the red house", "a child reads a book", "many people", "he sleeps")
TARGETS = (
    "un homme",
    "deux chiens courent",
    "la maison rouge",
    "un enfant lit un livre",
    "beaucoup de gens",
    "il dort",
)


def pairs(folder: Path) -> Mapping[str, Any]:
    """Six pairs of texts."""
    (folder / "pairs.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in zip(SOURCES, TARGETS, strict=True)))
    return {"pairs": folder / "pairs.tsv"}


def _task(folder: Path, run: Path | None, out: Path) -> Any:
    (folder / "texts.txt").write_text("two dogs\n\nunseen words\n")
    options = rnn_encoder_decoder.FAMILY.task.options
    return options(inputs=(folder / "texts.txt",), out=out / "texts.fr", run=run, max_length=6, scores=True)


# So high a rate that after four steps the words differ with what was read.
CASE = Case(
    config=rnn_encoder_decoder.Config(
        units=16, rank=20, maxout=16, source_words=24, target_words=60, max_length=8, optimizer="adam",
        learning_rate=0.1, attention="luong", biases=True, batch=3, steps=4,
    ),
    data=pairs,
    dims={"batch": 1, "length": 6},
    task=_task,
)  # fmt: skip
