"""Where results go."""

from pathlib import Path

import numpy as np
import pytest

from kerasmodels.data import write_image
from kerasmodels.data.targets import files_and_targets
from kerasmodels.errors import UsageError


def test_results_of_one_name_are_refused_with_their_inputs(tmp_path: Path):
    for name in ("a/1.png", "b/1.jpg", "b/2.png"):
        write_image(tmp_path / name, np.zeros((2, 2, 3), "uint8"))
    out = tmp_path / "out"
    assert [target for _, target in files_and_targets([tmp_path / "b"], out)] == [out / "1.png", out / "2.png"]
    with pytest.raises(UsageError, match=r"a/1\.png and .*b/1\.jpg, which would both be written to .*out/1\.png"):
        files_and_targets([tmp_path], out)
