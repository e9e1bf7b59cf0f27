"""What users do with arrays and files. Each task has a function of arrays below, and options and files on top of it.

The command line, a server and a web page call the same functions.
"""

from pathlib import Path

from kerasmodels import presets
from kerasmodels.config import Config
from kerasmodels.runs import Trained


class TrainedOptions(Config):
    """Which trained model does it."""

    preset: str | None = None
    """Shipped weights; `kerasmodels list` names them."""
    run: Path | None = None
    """A run folder, instead of a preset."""

    def trained(self, family: str) -> Trained:
        """What --preset or --run name.

        Raises:
            UsageError: both or none is given, there is no such preset, or the folder is no run of the family.
            WeightsError: the training has not written its weights yet.
        """
        return presets.chosen(family, self.preset, self.run)
