"""Where results go."""

import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasmodels.data import image_size, write_image
from kerasmodels.errors import KerasModelsError, UsageError
from kerasmodels.tasks.generate import GenerateOptions
from kerasmodels.tasks.pictures import PicturesOptions, change_pictures, check_targets, picture_jobs


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


def test_results_cannot_lie_below_files_nor_replace_folders(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.png/2.png"):
        write_image(tmp_path / name, np.zeros((2, 2, 3), "uint8"))
    with pytest.raises(UsageError, match=r"folders above .*out/1\.png/2\.png\. Received: .*1\.png, which is a file"):
        picture_jobs([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    with pytest.raises(UsageError, match=r"b/1\.png, which is a folder"):
        picture_jobs([tmp_path / "a"], tmp_path / "b")
    with pytest.raises(UsageError, match="which is a file"):
        check_targets([tmp_path / "a" / "1.png" / "matte.png"], [tmp_path / "x.png"])


FILES = st.builds(
    lambda folders, stem, suffix: "/".join((*folders, stem + suffix)),
    st.lists(st.sampled_from(["a", "b", "1.png"]), max_size=2),
    st.sampled_from(["1", "2", "1.png"]),
    st.sampled_from([".png", ".JPG", ".jpeg", ".webp", ".mp4"]),
)
PLACES = st.sampled_from(
    ["in", "in/a", "in/b", "in/1.png", "in/../in/a", "link", "link/a", "out", "out.png", "out.jpg", "."]
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(FILES, min_size=1, max_size=5), st.lists(st.one_of(FILES, PLACES), min_size=1, max_size=3), PLACES)
def test_whatever_is_asked_no_file_is_lost(files: list[str], inputs: list[str], out: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "link").symlink_to("in", target_is_directory=True)
        (root / "in").mkdir()
        for name in files:
            file = root / "in" / name
            # The name of a folder may be taken by a file, and the other way round.
            with contextlib.suppress(OSError):
                file.parent.mkdir(parents=True, exist_ok=True)
                file.touch()
        asked = [root / name if (root / name).exists() else root / "in" / name for name in inputs]
        try:
            jobs = picture_jobs([path for path in asked if path.exists()] or [root / "in"], root / out)
        except KerasModelsError:
            return
        sources = {source.resolve() for source, _ in jobs}
        targets = [target.resolve() for _, target in jobs]
        assert jobs
        assert all(source.is_file() for source, _ in jobs)
        assert len(set(targets)) == len(targets)
        for target in targets:
            assert target not in sources
            # Nothing lies below a file.
            assert not any(parent in sources or parent in targets for parent in target.parents)
            assert not target.is_dir()


def test_a_format_that_cannot_hold_the_result_is_refused_before_any_work(tmp_path: Path) -> None:
    write_image(tmp_path / "wide.png", np.zeros((2, 17_000, 3), "uint8"))

    def load() -> Any:
        pytest.fail("the model was loaded")

    options = PicturesOptions(inputs=(tmp_path / "wide.png",), out=tmp_path / "out.webp", preset="any")
    with pytest.raises(UsageError, match=r"17,000 x 2 pixels.*out\.webp', where 16,383 a side are the most"):
        change_pictures(options, load)
    shrunk = dataclasses.replace(options, max_side=100)
    change_pictures(shrunk, lambda: lambda picture: picture)
    assert image_size(tmp_path / "out.webp") == (1, 100)
    with pytest.raises(UsageError, match=r"such as out\.png"):
        GenerateOptions(out=tmp_path / "out.xyz", preset="digits")
