"""Playing games with a trained network, or with an exported file alone; scores, and a video of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from kerasmodels.config import Fraction, NonNegativeInt, PositiveInt
from kerasmodels.data.environments import Environment, pushed
from kerasmodels.data.grids import grid
from kerasmodels.errors import UsageError
from kerasmodels.family import RunReport
from kerasmodels.tasks import TrainedOptions

Values = Callable[[np.ndarray], np.ndarray]
"""States (N, *shape, stack) -> values of the actions (N, A)."""


class PlayOptions(TrainedOptions):
    """Play a game with a trained network."""


def play(
    values: Values,
    environment: Environment,
    stack: int,
    *,
    episodes: int = 30,
    epsilon: float = 0.05,
    seed: int = 0,
    watch: Callable[[Environment], None] | None = None,
    longest: int = 10**9,
) -> list[float]:
    """Scores of episodes, rewards as the game counts them.

    Args:
        values: of the actions.
        environment: the game.
        stack: observations in a state.
        episodes: how many.
        epsilon: share of random actions; 0.05 in the papers.
        seed: of these.
        watch: called before each action, and at the end of each episode.
        longest: actions after which an episode is given up.
    """
    scores: list[float] = []
    random = np.random.default_rng(seed)
    for _ in range(episodes):
        state, score = pushed(None, environment.reset(), stack), 0.0
        for _ in range(longest):
            if watch is not None:
                watch(environment)
            lucky = random.random() < epsilon
            action = int(random.integers(len(environment.actions)) if lucky else values(state[None])[0].argmax())
            step = environment.step(action)
            score += step.reward
            state = pushed(state, step.observation, stack)
            if step.terminated or step.truncated:
                break
        if watch is not None:
            watch(environment)
        scores.append(score)
    return scores


def film(model: Any) -> dict[str, np.ndarray]:
    """Eight pictures of up to 64 actions, side by side."""
    return {}


def play_files(options: PlayOptions) -> RunReport:
    """Play, and write what the options ask for."""
    raise UsageError("not yet")
