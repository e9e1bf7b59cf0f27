"""Where the pictures made of given pictures go."""

from collections.abc import Sequence
from pathlib import Path

from kerasmodels.data.images import list_images
from kerasmodels.errors import UsageError
from kerasmodels.family import check


def files_and_targets(inputs: Sequence[Path], out: Path) -> list[tuple[Path, Path]]:
    """Each given picture, and where to write what becomes of it.

    Args:
        inputs: pictures, or folders of pictures.
        out: the target of a single picture; else a folder, in which each gets its own name with the suffix .png.

    Raises:
        UsageError: there is no input, two would be written to one place, or an input would be overwritten.
        DataError: a folder has no pictures.
    """
    check(len(inputs) > 0, "at least one picture or folder", tuple(inputs))
    files = [file for given in inputs for file in (list_images(given) if given.is_dir() else [given])]
    single = len(inputs) == 1 and not inputs[0].is_dir()
    targets = [out] if single else [out / f"{file.stem}.png" for file in files]
    first: dict[Path, Path] = {}
    for file, target in zip(files, targets, strict=True):
        if target in first:
            raise UsageError(
                f"expected pictures of distinct names. Received: {first[target]} and {file}, which would both be "
                f"written to {target}. Give them separately."
            )
        first[target] = file
    taken = {file.resolve() for file in files}
    for target in targets:
        check(target.resolve() not in taken, "a place to write where no input is overwritten", str(target))
    return list(zip(files, targets, strict=True))
