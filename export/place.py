"""The output folder of exports: an index, a card, and artifacts that come into place together or not at all."""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kerasmodels import reading, storage
from kerasmodels.errors import UsageError
from kerasmodels.export import formats as table
from kerasmodels.export.report import Artifact, model_card

INDEX = "export.json"
CARD = "MODEL_CARD.md"
REJECTED = ".rejected"


def digest(path: Path) -> str:
    """sha256 of a file; of a folder, of the lines "<sha256>  <path>\\n" of its files sorted by path."""
    if path.is_file():
        return storage.sha256(path)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    lines = "".join(f"{storage.sha256(p)}  {p.relative_to(path).as_posix()}\n" for p in files)
    return hashlib.sha256(lines.encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Made:
    """An artifact of the model `name`, still in the staging folder; `artifact.path` is a file's name."""

    name: str
    path: Path
    artifact: Artifact


class Place:
    """The output folder: everything is made in a hidden folder inside it and renamed into place at the end."""

    def __init__(self, out: Path):
        self.out = out

    def read_index(self) -> dict[str, Any]:
        """The models of an earlier export into the same folder.

        Raises:
            UsageError: there is an export.json that is none of ours.
        """
        path = self.out / INDEX
        if not path.exists():
            return {}
        try:
            with reading.damaged():
                models = reading.read_json(path)["models"]
                model_card(models)
                if not all(isinstance(a["path"], str) for model in models.values() for a in model["artifacts"]):
                    raise ValueError("a path is no text")
            return models
        except (OSError, ValueError) as error:
            raise UsageError(
                f"expected {path} to be written by an earlier export ({error}). Move it away, or choose another folder."
            ) from error

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A hidden folder inside the output folder, which is made if need be and removed again if left empty."""
        absent = [folder for folder in (self.out, *self.out.parents) if not folder.exists()]
        self.out.mkdir(parents=True, exist_ok=True)
        try:
            with storage.scratch(self.out, ".export-") as staging:
                yield staging
        finally:
            for folder in absent:
                with suppress(OSError):
                    folder.rmdir()

    def commit(
        self, described: Mapping[str, Mapping[str, Any]], made: Mapping[str, Sequence[Made]], staging: Path
    ) -> dict[str, list[Artifact]]:
        """Rename everything into place.

        Args:
            described: `about` and `training` of each model, for the index.
            made: the artifacts of each.
            staging: the folder that `staging` made.

        Returns:
            The artifacts of each model with their final paths.
        """
        # Other exports into the same folder may have ended meanwhile, and wait here for each other.
        with storage.locked(self.out):
            return self._commit(described, made, self.read_index(), staging)

    def _commit(
        self,
        described: Mapping[str, Mapping[str, Any]],
        made: Mapping[str, Sequence[Made]],
        index: Mapping[str, Any],
        staging: Path,
    ) -> dict[str, list[Artifact]]:
        artifacts: dict[str, list[Artifact]] = {}
        moves, models = [], dict(index)
        for name, about in described.items():
            artifacts[name] = []
            for item in made[name]:
                relative = table.find(item.artifact.format).exporter.place(self.out, name, item.artifact.path)
                if item.artifact.executed and not item.artifact.verified:
                    relative = relative.with_name(relative.name + REJECTED)
                moves.append((item.path, relative))
                artifacts[name].append(dataclasses.replace(item.artifact, path=relative.as_posix()))
            models[name] = {**about, "artifacts": self._kept(name, artifacts[name], index)}
        # Written before anything is renamed, so that a full disk is met while nothing has changed yet.
        texts = {INDEX: json.dumps({"models": models}, indent=2, default=str) + "\n", CARD: model_card(models)}
        for form in table.FORMATS:
            served = [
                name for name, found in artifacts.items() if any(a.format == form.name and a.verified for a in found)
            ]
            texts |= form.exporter.server_files(self.out, served) if served else {}
        for number, text in enumerate(texts.values()):
            (staging / f"text-{number}").write_bytes(text.encode(errors="backslashreplace"))

        for path, relative in moves:
            target = self.out / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir() and relative.name.endswith(REJECTED):
                shutil.rmtree(target)
            os.replace(path, target)
        for number, relative_name in enumerate(texts):
            os.replace(staging / f"text-{number}", self.out / relative_name)
        return artifacts

    def _kept(self, name: str, artifacts: Sequence[Artifact], index: Mapping[str, Any]) -> list[dict[str, Any]]:
        """A model's artifacts of earlier exports that are still there, and these."""
        replaced = {artifact.path for artifact in artifacts}
        earlier = index.get(name, {"artifacts": []})["artifacts"]
        kept = [a for a in earlier if a["path"] not in replaced and (self.out / a["path"]).exists()]
        return [*kept, *(artifact.to_dict() for artifact in artifacts)]
