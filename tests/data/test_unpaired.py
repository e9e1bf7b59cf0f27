"""Streams of unpaired pictures of two domains."""

from pathlib import Path

import numpy as np
import pytest

from kerasmodels.data import unpaired, write_image
from kerasmodels.errors import DataError, UsageError
from tests.cases import photo


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Pictures of several sizes; those of b have no blue."""
    for name in "ab":
        for number, (height, width) in enumerate(((40, 48), (64, 33), (90, 70))):
            picture = photo(number, height, width).copy()
            picture[..., 2] *= name == "a"
            write_image(tmp_path / name / f"{number}.png", picture)
    return tmp_path / "a", tmp_path / "b"


def test_pairs_of_crops_from_pictures_of_mixed_sizes(folders, capsys):
    stream = [[np.asarray(side) for side in pair] for pair in unpaired(*folders, 32, batch=2, seed=5).take(4)]
    for a, b in stream:
        assert a.shape == b.shape == (2, 32, 32, 3)
        assert a[..., 2].max() > 0
        assert b[..., 2].max() == 0
    later = [np.asarray(side) for side in next(iter(unpaired(*folders, 32, batch=2, seed=5, start=3)))]
    for side, expected in zip(later, stream[3], strict=True):
        np.testing.assert_array_equal(side, expected)
    assert capsys.readouterr().err == ""


def test_pictures_smaller_than_the_crops_are_told_of(folders, capsys):
    a, b = next(iter(unpaired(*folders, 36)))
    assert a.shape == b.shape == (1, 36, 36, 3)
    said = capsys.readouterr().err
    assert said.count("warning: 1 of 3 pictures in") == 2
    assert "smaller than 36 x 36 pixels (the smallest, 1.png: 33 x 64)" in said


def test_domains_that_cannot_be_learned(folders, tmp_path: Path):
    with pytest.raises(UsageError, match="--a DIR --b DIR"):
        unpaired(folders[0], None, 32)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures in"):
        unpaired(folders[0], tmp_path / "empty", 32)
    write_image(tmp_path / "one" / "a.png", photo(0, 40, 40))
    with pytest.raises(DataError, match="at least 2 pictures of each domain"):
        unpaired(tmp_path / "one", folders[1], 32)
