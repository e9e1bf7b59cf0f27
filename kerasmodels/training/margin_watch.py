"""Says when the margin of an energy-based GAN is useless."""

import sys
from collections.abc import Mapping

from kerasmodels.training.callbacks import StepCallback


class MarginWatch(StepCallback):
    """Says, once each, what makes a margin useless. `EBGAN.fit` has one; a margin that moves is not watched.

    For `patience` steps in a row the margin was below the energy that even real pictures keep, so that nothing can be
    told apart by it; or no generated picture was below the margin, so that the discriminator does not see them.

    Args:
        start: steps done before this `fit`.
        patience: steps.
    """

    def __init__(self, start: int = 0, patience: int = 500):
        super().__init__(start)
        self.patience = patience
        self.said: list[str] = []
        self._sums: dict[str, tuple[float, float]] = {}
        self._high = self._idle = 0

    def on_step(self, before: int, step: int, logs: Mapping[str, float]) -> None:
        margin, kind = self.model.config.margin, self.model.config.energy
        if self.model.config.final_margin is not None:
            return
        real, fake, below = (self._latest(term) for term in ("real", "fake", "below_margin"))
        self._high = self._high + step - before if real >= margin else 0
        self._idle = self._idle + step - before if below == 0 else 0
        if self._high >= self.patience:
            self._say(
                "the margin is too low",
                f"for {self._high} steps real pictures kept a mean energy ({kind}) of {real:.4g} or so, above the "
                f"margin {margin:g}: the discriminator cannot hold them below it and generated ones above it. Raise "
                f"--margin to {2 * real:.3g} or so.",
            )
        elif self._idle >= self.patience:
            self._say(
                "the hinge is never active",
                f"for {self._idle} steps no generated picture had an energy ({kind}) below the margin {margin:g} "
                f"(mean {fake:.4g}): the discriminator does not see them. Raise --margin, or lower --learning-rate.",
            )

    def _latest(self, term: str) -> float:
        """Of the steps since the last call alone: the model's means go on until someone resets them."""
        mean = next(metric for metric in self.model.metrics if metric.name == term)
        total, count = float(mean.total), float(mean.count)
        before, counted = self._sums.get(term, (0.0, 0.0))
        self._sums[term] = total, count
        return (total - before) / (count - counted) if count > counted else total / max(count, 1.0)

    def _say(self, what: str, why: str) -> None:
        if what not in self.said:
            self.said.append(what)
            print(f"warning: {what}: {why}", file=sys.stderr)
