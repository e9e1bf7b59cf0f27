"""The claims of `rnn_encoder_decoder`: unit, sizes, beams, ranking of phrases, translations, the space of phrases.

Multi30k (Elliott et al. 2016; non-commercial research) is read from the folder of --data: {train,val,test_2016_flickr}
.{en,fr}.gz. The model is the preset `multi30k`, English to French.
"""

import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasmodels.data import write_image
from kerasmodels.data.text import Complaints, Pair, read_parallel
from kerasmodels.errors import DataError
from kerasmodels.family import Claim, Experiment
from kerasmodels.layers import GatedUnit
from kerasmodels.models.rnn_encoder_decoder import FAMILY, VARIANTS, Config, RNNEncoderDecoder
from kerasmodels.tasks import phrases

PRESET = "multi30k"


# --- the unit and the sizes -------------------------------------------------------------------------------------------


def unit(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Equations 5-8 in float64 beside the layer, Keras' GRU, and the number of weights."""
    random = np.random.default_rng(0)
    layer = GatedUnit(1000 if not quick else 50, bias="all")
    layer.build((None, 100))
    for variable in layer.weights:
        variable.assign(random.normal(0, 0.05, variable.shape))
    units = layer.units
    x, h = random.normal(0, 1, (8, 100)), random.uniform(-1, 1, (8, units))
    kernel, gates, candidate, bias = (np.asarray(v.value, "float64") for v in layer.weights)
    parts = x @ kernel + bias
    z, r = np.split(1 / (1 + np.exp(-(parts[:, : 2 * units] + h @ gates))), 2, axis=1)
    exact = z * h + (1 - z) * np.tanh(parts[:, 2 * units :] + (r * h) @ candidate)
    found, _ = layer(x.astype("float32"), [h.astype("float32")])
    gru = keras.layers.GRUCell(units, reset_after=False)
    gru.build((None, 100))
    gru.set_weights([kernel, np.concatenate([gates, candidate], axis=1), bias])
    theirs, _ = gru(x.astype("float32"), [h.astype("float32")])
    model = RNNEncoderDecoder(VARIANTS["paper"])
    count = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
    return [
        Claim(
            "unit_oracle",
            f"a step of {units} units against its equations in float64, largest difference",
            "equations 5-8",
            float(np.abs(np.asarray(found) - exact).max()),
            at_most=1e-6,
        ),
        Claim(
            "unit_gru",
            "the same step against keras.layers.GRUCell(reset_after=False), largest difference",
            "not given",
            float(np.abs(np.asarray(found) - np.asarray(theirs)).max()),
            at_most=1e-6,
        ),
        Claim(
            "weights",
            "trained weights of the paper's model",
            "not given; its sizes make 17,250,300",
            count,
            equals=17_250_300,
        ),
    ]


# --- beams ------------------------------------------------------------------------------------------------------------


def beams(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """The preset's searches, of texts written for this: a wider beam finds no less likely text."""
    model, texts = _preset(), SENTENCES[: 8 if quick else None]
    found = {w: phrases.translate(model, texts, w, length_penalty=0, max_length=50) for w in (1, 2, 5, 10)}
    scores = np.array([[best[0][1] for best in each] for each in found.values()])
    again = phrases.score(model, [(text, best[0][0]) for text, best in zip(texts, found[5], strict=True)])
    return [
        Claim(
            "beam_at_least_greedy",
            f"{len(texts)} texts, beams of 2, 5 and 10: part whose score is at least that of greedy search",
            "not given",
            round(float(np.mean(scores[1:] >= scores[0] - 1e-4)), 4),
            at_least=0.95,
        ),
        Claim(
            "beam_gain",
            "mean gain in log-probability of a beam of 5 over greedy search",
            "not given",
            round(float(np.mean(scores[2] - scores[0])), 4),
            at_least=0.0,
        ),
        Claim(
            "beam_scores",
            "score that the search reports against log p of the text it found, median difference",
            "the same number",
            round(float(np.median(np.abs(again - scores[2]))), 6),
            at_most=1e-3,
        ),
    ]


# --- ranking ----------------------------------------------------------------------------------------------------------


def ranking(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Held-out pairs: the true target among nine of others, and beside itself in another order."""
    model, pairs = _preset(), _pairs(data, "test_2016_flickr")[: 40 if quick else 300]
    random = np.random.default_rng(0)
    asked: list[Pair] = []
    for i, (source, target) in enumerate(pairs):
        others = random.choice([k for k in range(len(pairs)) if k != i], 9, replace=False)
        words = target.split()
        shuffled = " ".join(words)
        while shuffled == target and len(set(words)) > 1:
            shuffled = " ".join(random.permutation(words))
        asked += [(source, target), *((source, pairs[k][1]) for k in others), (source, shuffled)]
    likely = phrases.score(model, asked).reshape(len(pairs), 11)
    return [
        Claim(
            "ranked_first",
            f"{len(pairs)} held-out pairs: part whose target is likelier than nine others'",
            "scores phrase pairs (section 3.1)",
            round(float(np.mean(likely[:, :1] > likely[:, 1:10].max(axis=1, keepdims=True))), 4),
            at_least=0.8,
        ),
        Claim(
            "likelier_than_shuffled",
            f"{len(pairs)} held-out pairs: part whose target is likelier than its words in another order",
            "captures linguistic regularities (section 4.3)",
            round(float(np.mean(likely[:, 0] > likely[:, 10])), 4),
            at_least=0.9,
        ),
    ]


# --- translations -----------------------------------------------------------------------------------------------------


def translations(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """BLEU of the preset on Multi30k's test_2016_flickr, as sacrebleu computes it on the texts as they are."""
    model, pairs = _preset(), _pairs(data, "test_2016_flickr")[: 20 if quick else None]
    claims = []
    for width in (1, 5):
        found = phrases.translate(model, [source for source, _ in pairs], width, max_length=50)
        value = _bleu([best[0][0] for best in found], [target for _, target in pairs])
        text = f"BLEU on {len(pairs)} texts of test_2016_flickr, English to French, beam of {width}"
        claims.append(Claim(f"bleu_beam_{width}", text, "not on this set", round(value, 2)))
    return claims


def attention(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """The same model with and without attention, trained by `fit` for as many updates, on held-out texts."""
    folder, pairs = _folder(data), _pairs(data, "val")[: 20 if quick else 200]
    found: dict[str, Any] = {}
    steps = 5 if quick else 900
    for kind in ("none", "luong"):
        config = Config(**{
            **VARIANTS["quick"].to_dict(), "attention": kind, "units": 160, "rank": 96, "maxout": 120, "steps": steps,
            "source": folder / "train.en.gz", "target": folder / "train.fr.gz",
        })  # fmt: skip
        keras.utils.set_random_seed(0)
        model: Any = FAMILY.build(config)
        model.fit(FAMILY.batches(config, model), steps_per_epoch=steps, verbose=0)
        tokens = sum(len(ids) + 1 for ids in model.target_vocabulary.encode_all(target for _, target in pairs))
        made = phrases.translate(model, [source for source, _ in pairs], 1, max_length=50)
        bleu = _bleu([best[0][0] for best in made], [target for _, target in pairs])
        found[kind] = -float(phrases.score(model, pairs).sum()) / tokens, bleu
    return [
        Claim(
            "attention_nats",
            f"{len(pairs)} held-out texts after {steps} updates: nats per token that attention saves",
            "of 2015",
            round(found["none"][0] - found["luong"][0], 4),
            at_least=0.0,
        ),
        Claim(
            "attention_bleu",
            f"the same: BLEU with attention less BLEU without ({found['luong'][1]:.1f}, {found['none'][1]:.1f})",
            "of 2015",
            round(found["luong"][1] - found["none"][1], 2),
            at_least=0.0,
        ),
    ]


# --- reduced precision ------------------------------------------------------------------------------------------------

_REDUCED = {("litert", "fp16"): 0.99, ("litert", "dynamic"): 0.9, ("litert", "int8"): 0.9, ("onnx", "fp16"): 0.99}


def reduced(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """The decoder's step, exported in half precision and in 8 bits: whether it would write the same ids.

    The ids before are those of the model; the state is the artifact's own, so that what is rounded adds up.
    """
    from kerasmodels.export import export_servable
    from kerasmodels.export.runners import runtimes

    model = _preset()
    encode, step = (FAMILY.servables(model)[name] for name in ("encode", "step"))
    length, texts = step.dims["length"], []
    for ids in model.source_vocabulary.encode_all(SENTENCES[: 3 if quick else None]):
        if len(ids) < length:
            texts.append(np.pad(np.array([ids], "int32"), [(0, 0), (0, length - len(ids))]))

    def written(call: Any, source: np.ndarray, forced: Sequence[int] | None) -> list[int]:
        given = {name: np.asarray(value) for name, value in encode.call(source=source).items()}
        given["source"], previous, found = source, 0, list[int]()
        while len(found) < (40 if forced is None else len(forced)):
            answer = call({"previous": np.array([previous], "int32"), **given})
            given["state"] = np.asarray(answer["next_state"])
            found.append(int(np.argmax(answer["log_probabilities"])))
            previous = (found if forced is None else forced)[len(found) - 1]
            if previous == 0:
                break
        return found

    theirs = [written(lambda given: step.call(**given), source, None) for source in texts]
    claims = []
    for (form, precision), gate in _REDUCED.items():
        with tempfile.TemporaryDirectory() as folder:
            export_servable(step, "step", folder, formats=[form], precision=precision)
            if form == "litert":
                loaded = runtimes.ai_edge_litert(str(next(Path(folder).rglob("*.tflite"))), 1)
            else:
                loaded = runtimes.onnxruntime(str(next(Path(folder).rglob("*.onnx"))), 1)
            same = [
                a == b
                for source, ids in zip(texts, theirs, strict=True)
                for a, b in zip(written(partial(loaded.call, runtimes.DEFAULT), source, ids), ids, strict=True)
            ]
        text = f"decoder step as {form}, {precision}: part of {len(same)} steps with the id that the model writes"
        claims.append(Claim(f"{form}_{precision}", text, "not given", round(float(np.mean(same)), 4), at_least=gate))
    return claims


# --- the space of phrases ---------------------------------------------------------------------------------------------


def space(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Figures 4 and 5: contexts of phrases in the plane; phrases of one kind lie together."""
    from kerasmodels.data import plots

    model, names = _preset(), [phrase for group in PHRASES for phrase in group]
    kinds = np.repeat(np.arange(len(PHRASES)), [len(group) for group in PHRASES])
    points = phrases.vectors(model, names)
    write_image(figures / "rnn_encoder_decoder_space.png", plots.labeled(phrases.plane(points), names))
    same = [np.mean(kinds[phrases.nearest(points, i, 3)] == kinds[i]) for i in range(len(names))]
    chance = np.mean([(np.sum(kinds == kind) - 1) / (len(kinds) - 1) for kind in kinds])
    return [
        Claim(
            "space_neighbors",
            f"{len(names)} phrases of {len(PHRASES)} kinds: part of the three nearest that are of the same kind",
            "similar phrases are close (figures 4, 5)",
            round(float(np.mean(same)), 4),
            at_least=round(2 * float(chance), 4),
        ),
        Claim("space_chance", "the same part of phrases drawn at random", "not given", round(float(chance), 4)),
    ]


PHRASES = (
    ("on the beach", "in a park", "in the street", "at the market", "near the river", "on a mountain"),
    ("two men", "three women", "four children", "two dogs", "several people", "a group of men", "five girls"),
    ("a man in a blue shirt", "a woman in a red dress", "a boy in a green jacket", "a girl in a white hat"),
    ("is running", "is jumping", "is swimming", "is sleeping", "is climbing", "are walking", "are dancing"),
    ("playing the guitar", "playing the drums", "playing a violin", "playing the piano"),
    ("playing soccer", "playing basketball", "playing tennis", "playing baseball", "playing hockey"),
    ("a brown dog", "a black dog", "a white cat", "a small horse", "a big bird"),
)  # fmt: skip
"""Phrases by kind, written for this."""

SENTENCES = [
    *(f"{who} {what} {where}." for who, what, where in zip(
        ("A man", "Two boys", "A young girl", "Three women", "A dog", "An old man", "Some people", "A child") * 3,
        ("is playing the guitar", "are running", "is eating an apple", "are talking", "is jumping", "is reading a book",
         "are waiting for a bus", "is riding a bike", "is walking", "play soccer", "is wearing a red hat",
         "are dancing", "sleeps", "is selling fruit", "are standing", "plays with a ball",
         "is cooking", "climb a wall", "is smiling",
         "are sitting at a table", "runs through the water", "is looking at a boat", "are skiing", "laughs"),
        ("in the street", "on the beach", "near a house", "in the park", "on the grass", "in a kitchen") * 4,
        strict=True,
    )),
]  # fmt: skip
"""Texts like those of the training, written for this."""


# --- shared -----------------------------------------------------------------------------------------------------------


def _preset() -> Any:
    return RNNEncoderDecoder.from_preset(PRESET)


def _folder(data: Path | None) -> Path:
    if data is None or not (data / "test_2016_flickr.en.gz").is_file():
        raise DataError(
            "expected --data FOLDER with Multi30k: train, val and test_2016_flickr, each as .en.gz and .fr.gz. "
            f"Received: {str(data) if data else None!r}. It is at https://github.com/multi30k/dataset."
        )
    return data


def _pairs(data: Path | None, part: str) -> list[Pair]:
    folder = _folder(data)
    return list(read_parallel(folder / f"{part}.en.gz", folder / f"{part}.fr.gz", Complaints("stop")))


def _bleu(found: list[str], references: list[str]) -> float:
    try:
        import sacrebleu
    except ImportError as error:
        raise DataError(f"BLEU needs sacrebleu ({error}). Install it: pip install sacrebleu.") from error
    return float(sacrebleu.corpus_bleu(found, [references]).score)


EXPERIMENTS = {
    "unit": Experiment("the gated hidden unit and the number of weights", unit),
    "beams": Experiment("beam search beside greedy search", beams),
    "ranking": Experiment("the true target among others, and among its own words in another order", ranking),
    "translations": Experiment("BLEU of the preset", translations),
    "attention": Experiment("with attention and without, after as many updates", attention),
    "reduced": Experiment("the decoder's step in half precision and in 8 bits", reduced),
    "space": Experiment("phrases of one kind lie together", space),
}
