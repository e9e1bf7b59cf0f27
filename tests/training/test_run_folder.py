"""run.json and its siblings as anyone may have changed them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerasmodels import presets, registry
from kerasmodels.errors import TrainingError, UsageError, WeightsError
from kerasmodels.export.place import Place
from kerasmodels.runs import RUN_CARD, RunFolder
from kerasmodels.training import write_gallery
from kerasmodels.training.gallery import columns
from tests.fuzz.corpus import export_index, run_card

FAMILY = registry.family("wgan")


def write(folder: Path, card: Any) -> Path:
    (folder / "weights.npz").touch()
    (folder / "run.json").write_text(card if isinstance(card, str) else json.dumps(card))
    return folder


NO_CARDS = ["[]", "[" * 100_000, "", "null", '{"family": 3, "config": {}}', '{"family": "wgan"}']
NO_INDEX = ["[]", "{}", '{"models": []}', '{"models": {"a": 3}}', '{"models":' + "[" * 100_000]


@pytest.mark.parametrize("text", NO_CARDS, ids=range(len(NO_CARDS)))
def test_records_that_are_none(tmp_path: Path, text: str):
    write(tmp_path, text)
    for read in (RunFolder(tmp_path).read, RunFolder(tmp_path).trained, lambda: write_gallery(tmp_path)):
        with pytest.raises(TrainingError, match=r"run\.json is damaged"):
            read()


@pytest.mark.parametrize("field", RUN_CARD)
def test_a_record_has_every_field_of_its_type(tmp_path: Path, field: str):
    card = run_card(FAMILY)
    assert RunFolder(write(tmp_path, card)).read() == card
    for wrong in ({k: v for k, v in card.items() if k != field}, {**card, field: [1]}):
        write(tmp_path, wrong)
        with pytest.raises(TrainingError, match=f"without {field} of the right type"):
            RunFolder(tmp_path).read()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("width", value) for value in ("32", 1.5, None, [1], {}, True)),
        *(("learning_rate", value) for value in ("0.1", None, [0.1], False)),
        *(("precision", value) for value in ("float", 16, None, ["float32"])),
    ],
)
def test_values_of_a_config_are_of_their_types(field: str, value: Any):
    assert field in run_card(FAMILY)["config"]
    with pytest.raises(UsageError, match=rf"{field}.*[Rr]eceived: "):
        FAMILY.config.from_dict({field: value})


@pytest.mark.parametrize("text", NO_INDEX, ids=range(len(NO_INDEX)))
def test_an_index_of_exports_that_is_none(tmp_path: Path, text: str):
    (tmp_path / "export.json").write_bytes(export_index())
    assert list(Place(tmp_path).read_index()) == ["a"]
    (tmp_path / "export.json").write_text(text)
    with pytest.raises(UsageError, match=r"export\.json to be written by an earlier export"):
        Place(tmp_path).read_index()


@pytest.mark.parametrize("text", ["[]", "{}", '{"family": "wgan"}', '{"family": "wgan", "config": 3}'])
def test_a_damaged_card_of_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.setattr(presets, "PRESETS", tmp_path)
    (tmp_path / "wgan").mkdir()
    (tmp_path / "wgan" / "a.json").write_text(text)
    with pytest.raises(WeightsError, match=r"a\.json is damaged"):
        presets.preset("wgan", "a")


def test_damage_in_a_log_costs_its_rows_only(tmp_path: Path):
    log = b"step,loss\n1,0.5\n2,x\n3,\x00\n\xff\xfe\n4,\n5,1,2\n6,0.25\n7"
    (tmp_path / "log.csv").write_bytes(log)
    np.testing.assert_array_equal(columns(tmp_path / "log.csv")["step"], [1, 4, 6])
    assert "<b>loss</b> 0.25" in write_gallery(tmp_path).read_text(encoding="utf-8")
    RunFolder(tmp_path).cut_log(4)
    assert (tmp_path / "log.csv").read_text() == "step,loss\n1,0.5\n4,\n"
    (tmp_path / "log.csv").write_bytes(log[5:])
    RunFolder(tmp_path).cut_log(4)
    assert (tmp_path / "log.csv.damaged").read_bytes() == log[5:]
