"""What a network does with sequences of bits, step by step, and pictures of where its heads were looking."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from kerasmodels import registry
from kerasmodels.config import Finite, NonNegativeInt, PositiveInt, check
from kerasmodels.data.algorithmic import AlgorithmicTask, AssociativeRecall, Example, NGrams, PrioritySort, RepeatCopy
from kerasmodels.data.video import write_gif
from kerasmodels.errors import DataError, UsageError
from kerasmodels.family import RunReport
from kerasmodels.servables import served
from kerasmodels.storage import check_writable, write_text
from kerasmodels.tasks import TrainedOptions
from kerasmodels.tasks.pictures import check_targets


class AnswerOptions(TrainedOptions):
    """Copy, recall, sort or predict bits or a text with a trained network, and see where its heads look."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The picture of memory and weightings to write: .png, or .gif, which moves. The answer is beside it, .txt."""
    text: Path | None = None
    """A text file: its characters are the vectors, in pieces of `length`. Bytes where vectors have 8 bits;
    where they have 6, capital letters, digits and signs (codes 32 to 95). The first piece is pictured."""
    vectors: tuple[str, ...] = ()
    """The vectors, such as 10110010 00000001; neither these nor a text: random ones."""
    length: PositiveInt | None = None
    """Vectors of a piece of text, or of random ones (associative_recall: items); left out: the largest trained on."""
    repeats: PositiveInt = 3
    """How often repeat_copy says it."""
    query: NonNegativeInt = 0
    """Which item associative_recall is asked with, from 0 on; it says the next one."""
    priorities: tuple[Finite, ...] = ()
    """Of the vectors of priority_sort, -1 to 1, highest first; left out: a text's in order, else random."""
    seed: NonNegativeInt = 0
    """Of what is random."""

    def validate(self) -> None:
        """Raise UsageError where options contradict each other."""
        check(not (self.text and self.vectors), "one of --text and --vectors", "both")
        check(self.out.suffix.lower() in (".png", ".gif"), "a picture name such as out.png or out.gif", str(self.out))


def answers(model: Any, inputs: np.ndarray) -> np.ndarray:
    """What a model of `ntm` says to inputs (N, T, C): probabilities (N, T, K) of the target bits to be 1.

    Raises:
        DataError: inputs of another shape, or not finite.
    """
    channels = model.config.made_task().channels[0]
    inputs = np.asarray(inputs, "float32")
    if inputs.ndim != 3 or inputs.shape[2] != channels or not np.isfinite(inputs).all():
        raise DataError(f"expected finite inputs (examples, steps, {channels}). Received: shape {inputs.shape}.")
    return served(model, "answer")(inputs=inputs)["outputs"]


def trace(model: Any, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """One sequence (T, C) through the served step: `outputs` (T, K), and of each state what it was after each step:
    of an NTM `memory` (T, M, N), `reads` (T, heads, M), `weightings` (T, 2 heads, N)."""
    step, task = served(model, "step"), model.config.made_task()
    if inputs.ndim != 2 or inputs.shape[1] != task.channels[0]:
        raise DataError(f"expected inputs (steps, {task.channels[0]}). Received: shape {inputs.shape}.")
    states: dict[str, np.ndarray] = {
        spec.name: np.zeros([n or 1 for n in spec.bind({"batch": 1})], "float32")
        for spec in registry.family("ntm").servables(model)["step"].inputs
        if spec.name not in ("inputs", "first")
    }
    steps: list[dict[str, np.ndarray]] = []
    for number, frame in enumerate(np.asarray(inputs, "float32")):
        made = step(inputs=frame[np.newaxis], first=np.array([float(number == 0)], "float32"), **states)
        states = {name.removeprefix("new_"): value for name, value in made.items() if name != "outputs"}
        steps.append({"outputs": made["outputs"], **states})
    return {name: np.concatenate([each[name] for each in steps]) for name in steps[0]}


def memory_figure(example: Example, traced: Mapping[str, np.ndarray]) -> np.ndarray:
    """Inputs, target and output, what is read and where the heads look, over time, as in the paper's figures: uint8 (H,
    W, 3). The traced states may be those of an LSTM, which has no heads."""
    from kerasmodels.data import plots

    asked = example.weights[:, np.newaxis]
    panels = {
        "inputs": example.inputs.T,
        "target": (example.targets * asked).T,
        "output": (traced["outputs"] * asked).T,
    }
    if "weightings" in traced:
        reading = traced["reads"].shape[1]
        panels["read from the memory"] = traced["reads"].reshape(len(asked), -1).T
        panels["write weightings"] = traced["weightings"][:, reading:].sum(axis=1).T
        panels["read weightings"] = traced["weightings"][:, :reading].sum(axis=1).T
    return plots.heatmaps(panels, "step")


def memory_frames(example: Example, traced: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The memory after each step, and above it where the heads look: pictures (H, W, 3) uint8, all of one size."""
    from kerasmodels.data import plots

    if "memory" not in traced:
        raise UsageError(
            "expected a network with a memory for a moving picture. Received: an LSTM; write a .png of it."
        )
    reading = traced["reads"].shape[1]
    span, frames = float(np.abs(traced["memory"]).max()), []
    for step, (memory, weights) in enumerate(zip(traced["memory"], traced["weightings"], strict=True)):
        panels = {
            "write weightings": weights[reading:],
            "read weightings": weights[:reading],
            f"memory after step {step + 1} of {len(traced['memory'])}": memory / max(span, 1e-9),
            "output": np.where(example.weights > 0, traced["outputs"].T, 0) * (np.arange(len(example.weights)) <= step),
        }
        frames.append(plots.heatmaps(panels, "row of the memory; output: step", limits=(-1.0, 1.0)))
    return frames


def answer_files(options: AnswerOptions) -> RunReport:
    """Answer what the options give, and write picture and answer."""
    text_path = options.out.with_suffix(".txt")
    check_targets([options.out, text_path], [options.text] if options.text else [])
    check_writable(options.out)
    from kerasmodels.data import plots  # noqa: F401  what is missing is said before the work

    model = options.trained("ntm").load()
    task, began = model.config.made_task(), time.perf_counter()
    examples = _examples(task, options)
    said, bits, wrong = [], 0.0, 0
    for example in examples:
        probabilities = answers(model, example.inputs[np.newaxis])[0][example.weights > 0]
        target = example.targets[example.weights > 0]
        likelihood = np.where(target > 0.5, probabilities, 1 - probabilities)
        bits -= float(np.log2(np.maximum(likelihood, 1e-7)).sum())
        wrong += int(((probabilities > 0.5) != (target > 0.5)).sum())
        said.append(probabilities)
    traced = trace(model, examples[0].inputs)
    if options.out.suffix.lower() == ".gif":
        write_gif(options.out, memory_frames(examples[0], traced), 200)
    else:
        from kerasmodels.data import write_image

        write_image(options.out, memory_figure(examples[0], traced))
    write_text(text_path, _written(task, said, options))
    facts = {
        "task": task.name,
        "sequences": len(examples),
        "bits per sequence": round(bits / len(examples), 3),
        "wrong bits": f"{wrong} of {sum(each.size for each in said)}",
        "seconds": round(time.perf_counter() - began, 1),
    }
    return RunReport((options.out, text_path), facts)


def _examples(task: AlgorithmicTask, options: AnswerOptions) -> list[Example]:
    """What the options ask for: the pieces of a text, or one example."""
    random, length = np.random.default_rng(options.seed), options.length or task.largest[0]
    check(length >= task.least[0], f"a length >= {task.least[0]} for {task.name}", length)
    if options.text is not None:
        codes = _codes(task, options.text)
        return [_encoded(task, codes[i : i + length], options, random) for i in range(0, len(codes), length)]
    if options.vectors:
        words = list("".join(options.vectors)) if isinstance(task, NGrams) else options.vectors
        return [_encoded(task, task.checked(_parsed(words)), options, random)]
    return [task.draw(random, (length, options.repeats)[: len(task.sizes)])]


def _encoded(task: Any, vectors: np.ndarray, options: AnswerOptions, random: np.random.Generator) -> Example:
    """The example of these vectors."""
    if isinstance(task, RepeatCopy):
        return task.encode(vectors, options.repeats)
    if isinstance(task, AssociativeRecall):
        if len(vectors) % task.item or len(vectors) < 2 * task.item:
            raise DataError(f"expected items of {task.item} vectors, two or more. Received: {len(vectors)} vectors.")
        return task.encode(vectors.reshape(-1, task.item, vectors.shape[1]), options.query)
    if isinstance(task, PrioritySort):
        if options.priorities and len(options.priorities) != len(vectors):
            raise DataError(f"expected {len(vectors)} priorities. Received: {len(options.priorities)}.")
        given = np.array(options.priorities or random.uniform(-1, 1, len(vectors)))
        if options.text is not None and not options.priorities:
            given = 1 - 2 * (np.unique(vectors, axis=0, return_inverse=True)[1] + 0.5) / len(np.unique(vectors, axis=0))
        return task.encode(vectors, given)
    return task.encode(vectors)


def _parsed(words: Sequence[str]) -> np.ndarray:
    """Words such as 10110010 as vectors."""
    lengths = {len(word) for word in words}
    if len(lengths) > 1 or not all(set(word) <= {"0", "1"} for word in words):
        raise DataError(f"expected vectors of 0 and 1, all of one length. Received: {' '.join(words):.80}.")
    return np.array([[float(digit) for digit in word] for word in words])


def _codes(task: AlgorithmicTask, path: Path) -> np.ndarray:
    """The characters of a text file as vectors."""
    if task.bits not in (6, 8):
        raise UsageError(f"expected --vectors: a text has no characters of {task.bits} bits. Received: --text {path}.")
    try:
        codes = np.frombuffer(path.read_bytes(), "uint8")
    except OSError as error:
        raise DataError(f"expected a text file. Received: {path} ({error.strerror}).") from error
    if task.bits == 6:
        codes = np.frombuffer(bytes(codes).upper().replace(b"\n", b" "), "uint8").astype(int) - 32
        if ((codes < 0) | (codes > 63)).any():
            raise DataError(f"expected letters, digits and signs of ASCII in {path}, for vectors of 6 bits.")
    if not len(codes):
        raise DataError(f"expected characters in {path}. Received: an empty file.")
    return (codes[:, np.newaxis].astype(int) >> np.arange(task.bits)[::-1]) & 1


def _written(task: AlgorithmicTask, said: Sequence[np.ndarray], options: AnswerOptions) -> str:
    """The answers as text: characters, or a line for each vector; of ngrams, the probability of each bit to be 1."""
    if isinstance(task, NGrams):
        return "".join(f"{p:.4f}\n" for probabilities in said for p in probabilities[:, 0])
    bits = [(probabilities[:, : task.bits] > 0.5).astype(int) for probabilities in said]
    if isinstance(task, RepeatCopy):
        bits = [each[:-1] for each in bits]  # without the end's mark
    if options.text is None:
        return "".join("".join(map(str, vector)) + "\n" for each in bits for vector in each)
    codes = np.concatenate(bits) @ (1 << np.arange(task.bits)[::-1])
    return bytes((codes + (32 if task.bits == 6 else 0)).astype("uint8")).decode("utf-8", errors="replace")
