"""RNN Encoder-Decoder: the paper's sizes, what is counted, translating and scoring files, bad input."""

import dataclasses
import gzip
import io
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.data import read_image
from kerasmodels.errors import DataError, UsageError
from kerasmodels.layers.vocabulary import UNKNOWN
from kerasmodels.models import rnn_encoder_decoder as module
from kerasmodels.models.rnn_encoder_decoder import FAMILY, Config, RNNEncoderDecoder
from kerasmodels.tasks import phrases
from kerasmodels.training import train
from tests.cases import case_of

TINY = case_of("rnn_encoder_decoder")
TABLE = (
    "a man ||| un homme ||| 0.5 0.25 1 2.718 ||| 0-0 1-1 ||| 3 4 2\n"
    "two dogs ||| deux chiens ||| 0.1 0.2 0.3 0.4 ||| 0-0 ||| 1 1 1 ||| |||\n"
    "the house ||| la maison ||| 1e-3 1\n"
)


def trainable(model: keras.Model) -> int:
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (module.VARIANTS["paper"], 17_250_300),
        (module.VARIANTS["groundhog"], 17_269_501),
        (Config(summary=True), 18_250_300),
    ],
    ids=["paper", "groundhog", "summary"],
)
def test_parameters_are_the_paper_s(config: Config, expected: int) -> None:
    assert trainable(RNNEncoderDecoder(config)) == expected


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned its six pairs by heart."""
    folder = tmp_path_factory.mktemp("encdec")
    config = dataclasses.replace(TINY.config, learning_rate=0.02, steps=120, batch=6, **TINY.data(folder))
    train(FAMILY, config, folder / "run", preview_every=0, save_every=120, progress=False)
    return folder / "run"


@pytest.fixture(scope="module")
def model(run: Path) -> RNNEncoderDecoder:
    return RNNEncoderDecoder.from_preset(run)


@pytest.mark.parametrize("attention", ["none", "bahdanau", "luong"])
@pytest.mark.parametrize("context_reset", [False, True])
def test_a_step_at_a_time_is_the_whole(attention: Any, context_reset: bool) -> None:
    """`step` in a loop gives the probability that `call` gives; what is behind the end changes nothing."""
    config = dataclasses.replace(TINY.config, attention=attention, context_reset=context_reset, summary=True)
    keras.utils.set_random_seed(1)
    model = RNNEncoderDecoder(config)
    source, target = np.array([[3, 4, 0, 0], [5, 6, 7, 0]]), np.array([[9, 0, 0], [8, 7, 0]])
    state, shared = model.encode(source)
    previous, likely, counts = np.zeros(2, "int32"), np.zeros(2), np.ones(2)
    for t in range(3):
        logits, state = model.decoder.step(previous, state, shared)
        likely += counts * tf.nn.log_softmax(logits).numpy()[np.arange(2), target[:, t]]
        counts = counts * (target[:, t] != 0)
        previous = target[:, t]
    found = model((source, target))
    np.testing.assert_allclose(found, likely, atol=1e-5)
    behind = model((np.pad(source, [(0, 0), (0, 3)]), np.pad(target, [(0, 0), (0, 2)], constant_values=5)))
    np.testing.assert_allclose(behind, found, atol=1e-5)


def test_beams(model: RNNEncoderDecoder) -> None:
    """A beam of 1 is greedy search; a larger one finds no less likely text; scores are what `score` says."""
    texts = ["a man", "two dogs", "the red", "a child sleeps", "people", "he"]
    greedy = phrases.translate(model, texts, 1, length_penalty=0, max_length=8)
    rows = phrases.padded([model.source_vocabulary.encode(text) for text in texts])
    state, shared = model.encode(rows)
    previous, chosen = np.zeros(len(texts), "int32"), []
    for _ in range(8):
        logits, state = model.decoder.step(previous, state, shared)
        previous = np.argmax(logits, axis=1).astype("int32")
        chosen.append(previous)
    assert [best[0][0] for best in greedy] == [model.target_vocabulary.decode(row) for row in np.stack(chosen, 1)]
    for width in (3, 6):
        found = phrases.translate(model, texts, width, width, length_penalty=0, max_length=8)
        for text, narrow, wide in zip(texts, greedy, found, strict=True):
            assert [score for _, score in wide] == sorted((score for _, score in wide), reverse=True)
            assert wide[0][1] >= narrow[0][1] - 1e-5
            ended = [(t, s) for t, s in wide if "<unk>" not in t and 0 < len(t.split()) < 8]
            for (_, value), again in zip(ended, phrases.score(model, [(text, t) for t, _ in ended]), strict=True):
                assert value == pytest.approx(again, abs=1e-4)


def test_it_has_learned(model: RNNEncoderDecoder) -> None:
    pairs = list(zip(*map(list, (module_case().SOURCES, module_case().TARGETS)), strict=True))
    assert [best[0][0] for best in model.translate([a for a, _ in pairs], max_length=8)] == [b for _, b in pairs]
    likely = phrases.score(model, pairs)
    shuffled = phrases.score(model, [(a, pairs[i - 1][1]) for i, (a, _) in enumerate(pairs)])
    assert np.all(likely > shuffled)


def module_case() -> Any:
    import tests.families.rnn_encoder_decoder.case as case

    return case


def task(run: Path, **fields: Any) -> Any:
    return FAMILY.task.run(FAMILY.task.options(run=run, **fields))


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_phrase_table_gets_one_score_more(model: RNNEncoderDecoder, run: Path, tmp_path: Path, suffix: str) -> None:
    table, out = tmp_path / f"table{suffix}", tmp_path / f"out{suffix}"
    table.write_bytes(gzip.compress(TABLE.encode()) if suffix else TABLE.encode())
    report = task(run, do="score", inputs=(table,), out=out)
    text = (gzip.decompress(out.read_bytes()) if suffix else out.read_bytes()).decode()
    assert report.facts["lines"] == 3
    for before, after in zip(TABLE.splitlines(), text.splitlines(), strict=True):
        old, new = before.split(" ||| "), after.split(" ||| ")
        assert (new[:2], new[3:]) == (old[:2], old[3:])
        *kept, added = new[2].split(" ")
        assert " ".join(kept) == old[2]
        assert float(added) == pytest.approx(np.exp(phrases.score(model, [(old[0], old[1])])[0]), rel=1e-4)


@pytest.mark.parametrize(
    "line",
    [b"a man ||| un homme", b"||| un homme ||| 1", b"a ||| b ||| one two", b"a ||| b ||| nan", b"\xff ||| b ||| 1"],
)
def test_bad_lines_of_a_table(run: Path, tmp_path: Path, line: bytes) -> None:
    content = TABLE.encode() + line + b"\n" + TABLE.encode()
    (tmp_path / "table").write_bytes(content)
    options = {"do": "score", "inputs": (tmp_path / "table",), "out": tmp_path / "out"}
    with pytest.raises(DataError, match="table, line 4: expected source"):
        task(run, **options)
    assert not (tmp_path / "out").exists()
    with pytest.warns(UserWarning, match="1 lines were left out; the first: .*line 4"):
        report = task(run, bad_lines="skip", **options)
    assert report.facts["left as they were"] == 1
    lines = (tmp_path / "out").read_bytes().split(b"\n")
    assert lines[3] == line
    assert lines[:3] == lines[4:7]


def test_texts_are_translated_line_by_line(run: Path, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    content = "two dogs run\n\nthe red house\nzzz\n"
    (tmp_path / "en").write_text(content)
    report = task(run, inputs=(tmp_path / "en",), out=tmp_path / "fr", max_length=8)
    lines = (tmp_path / "fr").read_text().split("\n")
    assert (lines[:3], len(lines), report.facts["lines"]) == (["deux chiens courent", "", "la maison rouge"], 5, 4)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
    assert not task(run, max_length=8).outputs
    assert capsys.readouterr().out.split("\n") == lines
    task(run, inputs=(tmp_path / "en",), out=tmp_path / "best", max_length=8, n_best=2)
    rows = [line.split(" ||| ") for line in (tmp_path / "best").read_text().splitlines()]
    assert [row[0] for row in rows] == [str(number) for number in (1, 1, 2, 2, 3, 3, 4, 4)]
    assert rows[0][1] == "deux chiens courent"
    assert float(rows[0][2]) > float(rows[1][2])


def test_neighbors(run: Path, tmp_path: Path) -> None:
    (tmp_path / "phrases").write_text("a man\ntwo dogs\nthe red house\nhe sleeps\na man\n")
    report = task(run, do="neighbors", inputs=(tmp_path / "phrases",), out=tmp_path / "plane.png", near="a man")
    assert report.facts["phrases"] == 4
    assert len(report.facts["nearest"].split("; ")) == 3
    assert read_image(tmp_path / "plane.png").std() > 1


def test_words_that_are_not_in_the_vocabulary(model: RNNEncoderDecoder) -> None:
    assert model.source_vocabulary.encode("a zzz") == [*model.source_vocabulary.encode("a"), UNKNOWN]
    assert np.isfinite(phrases.score(model, [("zzz", "yyy")])).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\tb\nno tab\n", "line 2: expected source and target"),
        (b"a\tb\n\n", "line 2: expected source and target"),
        (b"a\tb\n\xff\tb\n", "line 2: expected text in UTF-8"),
    ],
)
def test_bad_pairs(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "pairs").write_bytes(content)
    config = dataclasses.replace(TINY.config, pairs=tmp_path / "pairs")
    with pytest.raises(DataError, match=message):
        FAMILY.build(config)
    with pytest.warns(UserWarning, match="1 lines were left out"):
        assert FAMILY.build(dataclasses.replace(config, bad_lines="skip")).source_vocabulary.words()[2] == "a"


def test_parallel_files(tmp_path: Path) -> None:
    (tmp_path / "en.gz").write_bytes(gzip.compress(b"a man\ntwo dogs\n"))
    (tmp_path / "fr").write_bytes(b"un homme\ndeux chiens\n")
    config = dataclasses.replace(TINY.config, source=tmp_path / "en.gz", target=tmp_path / "fr")
    assert FAMILY.build(config).target_vocabulary.encode("deux un") != [UNKNOWN, UNKNOWN]
    (tmp_path / "fr").write_bytes(b"un homme\n")
    with pytest.raises(DataError, match=r"whose lines belong together. Received: .*fr ends after 1 lines"):
        FAMILY.build(config)
    (tmp_path / "fr").write_bytes(b"un homme\n \n")
    with pytest.raises(DataError, match="fr, line 2: expected a text"):
        FAMILY.build(config)
    (tmp_path / "en.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match=r"readable text file. Received: .*en\.gz"):
        FAMILY.build(config)


def test_mistakes(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--pairs FILE, or --source FILE"):
        FAMILY.build(Config())
    with pytest.raises(UsageError, match="source and target, or none"):
        Config(source=tmp_path)
    with pytest.raises(UsageError, match="n_best <= beam"):
        FAMILY.task.options(run=run, n_best=9)
    with pytest.raises(UsageError, match="one file to score"):
        FAMILY.task.options(run=run, do="score")
    (tmp_path / "pairs").write_text("a b c d e f g h i\tb\n")
    config = dataclasses.replace(TINY.config, pairs=tmp_path / "pairs")
    with pytest.raises(DataError, match=r"at most 8 tokens\. Received: only longer ones"):
        FAMILY.batches(config, FAMILY.build(config))
