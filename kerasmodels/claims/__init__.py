"""The evidence: one file per paper, whose `EXPERIMENTS` measure its claims on the model that users get."""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kerasmodels import registry

if TYPE_CHECKING:
    from kerasmodels.family import Experiment


def experiments(family: str) -> "Mapping[str, Experiment]":
    """The experiments of a family, by name.

    Raises:
        UsageError: no such family.
    """
    module = registry.row(family).module.replace(".models.", ".claims.")
    return importlib.import_module(module).EXPERIMENTS
