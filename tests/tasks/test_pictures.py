"""Where results go."""

from pathlib import Path

import numpy as np
import pytest

from kerasmodels.data import write_image
from kerasmodels.errors import UsageError
from kerasmodels.tasks.pictures import check_targets, picture_jobs


def test_results_of_one_name_are_refused_with_their_inputs(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.webp", "b/sub/1.png"):
        write_image(tmp_path / name, np.zeros((2, 2, 3), "uint8"))
    out = tmp_path / "out"
    assert [target for _, target in picture_jobs([tmp_path / "b"], out)] == [out / "1.png", out / "sub" / "1.png"]
    with pytest.raises(UsageError, match=r"out/1\.png, what becomes of .*a/1\.png and of .*b/1\.webp"):
        picture_jobs([tmp_path / "a", tmp_path / "b"], out)


def test_neither_inputs_nor_results_are_overwritten(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no input is overwritten"):
        check_targets([tmp_path / "sub" / ".." / "a.png"], [tmp_path / "a.png", tmp_path / "b.png"])
    with pytest.raises(UsageError, match="a name of its own for each result"):
        check_targets([tmp_path / "a.png", tmp_path / "a.png"], [tmp_path / "b.png"])
