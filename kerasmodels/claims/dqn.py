"""The claims of `dqn`: what a network learns from screen and score, measured on the models that users get.

Trainings are `DQN.fit` on batches of its own source. Scores are those of whole episodes, with epsilon 0.05 as in the
papers unless said otherwise, and the rewards as the game counts them.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasmodels import presets
from kerasmodels.claims.evidence import over_seeds
from kerasmodels.data import write_image
from kerasmodels.data.environments import make_environment, pushed
from kerasmodels.errors import DataError
from kerasmodels.family import Claim, Experiment
from kerasmodels.models.dqn import DQN, FAMILY, VARIANTS, Config
from kerasmodels.tasks.play import play

RANDOM_PONG, PAPER_PONG = -20.4, 20.0


class _Curve(keras.callbacks.Callback):
    """What `fit` reports, each so many steps."""

    def __init__(self, every: int):
        super().__init__()
        self.every = every
        self.steps: list[int] = []
        self.held_out_q: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (batch + 1) % self.every == 0:
            self.steps.append(batch + 1)
            self.held_out_q.append(float(logs["held_out_q"]))
            print(f"{batch + 1} updates: { ({k: round(float(v), 3) for k, v in logs.items()}) }", file=sys.stderr)
            self.model.reset_metrics()


def _trained(config: Config, steps: int) -> tuple[DQN, _Curve]:
    keras.utils.set_random_seed(config.seed)
    model: Any = FAMILY.build(config)
    curve = _Curve(250)
    model.fit(FAMILY.batches(config, model), steps_per_epoch=steps, callbacks=[curve], verbose=0)
    return model, curve


def scores(model: DQN, episodes: int, epsilon: float = 0.05, seed: int = 1000) -> list[float]:
    """Of a trained model, on episodes that its training did not have."""
    environment = model.config.made_environment(seed)
    return play(model.values, environment, model.config.stack, episodes=episodes, epsilon=epsilon, seed=seed)


def interquartile_mean(values: Sequence[Sequence[float]], draws: int = 2000) -> tuple[float, float, float]:
    """The mean of the middle half of all scores, and its 95 % interval, from a bootstrap within each seed.

    Args:
        values: the scores of each seed's episodes.
        draws: of the bootstrap.

    Reference:
        Agarwal, Schwarzer, Castro, Courville, Bellemare: Deep Reinforcement Learning at the Edge of the Statistical
        Precipice, NeurIPS 2021.
    """

    def middle(flat: np.ndarray) -> float:
        ordered = np.sort(flat)
        cut = len(ordered) // 4
        return float(ordered[cut : len(ordered) - cut].mean())

    random = np.random.default_rng(0)
    rows = [np.asarray(each, float) for each in values]
    drawn = [middle(np.concatenate([random.choice(row, len(row)) for row in rows])) for _ in range(draws)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    return middle(np.concatenate(rows)), float(low), float(high)


def networks(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Section 4.1 of 2013, and Nature's methods: what they consist of, for a game of four actions."""
    counts = {}
    for name in ("2013", "nature"):
        counts[name] = DQN(VARIANTS[name]).network.count_params()
    return [
        Claim("parameters_2013", "parameters, 4 actions", "the layers of section 4.1", counts["2013"], equals=677_172),
        Claim("parameters_nature", "parameters, 4 actions", "the layers of 2015", counts["nature"], equals=1_686_180),
    ]


def catch(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Catch from the default config, five seeds, beside the same without a replay memory: the paper's central claim.

    Without: of the last `batch` observations each update draws (section 4 has the correlation of consecutive samples).
    """
    from kerasmodels.data import plots

    seeds, steps, episodes = (2, 1500, 100) if quick else (5, Config().steps, 500)
    few = 3
    caught, without, curves, all_scores = [], [], {}, []
    for seed in range(seeds):
        config = dataclasses.replace(Config(), seed=seed)
        model, curve = _trained(config, steps)
        found = scores(model, episodes, epsilon=0.0)
        all_scores.append(found)
        caught.append(float(np.mean(np.array(found) > 0)))
        curves[f"seed {seed}"] = (np.array(curve.steps) / 1000, np.array(curve.held_out_q))
        if seed < few:
            latest = dataclasses.replace(config, replay=config.batch + config.stack + 1)
            model, _ = _trained(latest, steps)
            without.append(float(np.mean(np.array(scores(model, episodes, epsilon=0.0)) > 0)))
        print(f"seed {seed}: {caught[-1]:.3f}, without replay {without[-1:]}", file=sys.stderr)
    write_image(figures / "dqn_catch_q.png", plots.curves(curves, "thousand updates", "average max Q, held-out states"))
    middle, low, high = interquartile_mean(all_scores)
    highest = max(max(y) for _, y in curves.values())
    return [
        over_seeds(
            "catch", f"Catch: balls caught after {steps} updates", "-", caught, 3, at_least=0.5 if quick else 0.95
        ),
        Claim(
            "catch_iqm", f"Catch: interquartile mean of the score, of [{low:.3f}, {high:.3f}]", "-", round(middle, 3)
        ),
        Claim(
            "catch_q_bounded",
            "Catch: the largest average max Q on held-out states; no return is above 1",
            "figure 2: smooth, and never diverged",
            round(highest, 3),
            at_most=1.1,
        ),
        over_seeds("catch_without_replay", "Catch: the same from the latest observations only", "worse", without, 3),
        Claim(
            "catch_replay_gain",
            f"Catch: balls caught more with the replay memory, mean of {few} seeds",
            "above 0 (section 4)",
            round(float(np.mean(caught[:few]) - np.mean(without)), 3),
            at_least=None if quick else 0.05,
        ),
    ]


def cartpole(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """CartPole-v1, as others report it; the preset, on a hundred episodes."""
    if "cartpole" in presets.presets("dqn"):
        model, what = DQN.from_preset("cartpole"), "the preset"
    else:
        config = VARIANTS["cartpole"]
        model, what = _trained(config, 500 if quick else config.steps)[0], "a training of the variant"
    found = scores(model, 20 if quick else 100, epsilon=0.0)
    text = f"CartPole: mean score of {len(found)} episodes, {what}"
    return [
        Claim(
            "cartpole",
            text,
            "CleanRL 488.7, rl-zoo 500",
            round(float(np.mean(found)), 1),
            at_least=None if quick else 470,
        )
    ]


def pong(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """The preset on thirty episodes, beside the paper's table 1, and beside random actions."""
    if "pong" not in presets.presets("dqn"):
        raise DataError(
            "expected the preset pong. Received: none shipped. Train it: kerasmodels train dqn --variant pong."
        )
    model: Any = DQN.from_preset("pong")
    episodes = 3 if quick else 30
    found = scores(model, episodes)
    by_chance = scores(model, episodes, epsilon=1.0)
    middle, low, high = interquartile_mean([found])
    text = f"Pong: mean score of {episodes} episodes, epsilon 0.05, the preset"
    return [
        Claim("pong", text, "20 (table 1)", round(float(np.mean(found)), 2), at_least=None if quick else 0),
        Claim("pong_best", "Pong: the best of them", "21 (table 1)", max(found)),
        Claim("pong_iqm", f"Pong: their interquartile mean, of [{low:.1f}, {high:.1f}]", "not given", round(middle, 2)),
        Claim("pong_random", "Pong: random actions", "-20.4 (table 1)", round(float(np.mean(by_chance)), 2)),
    ]


def screens(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Frames of three games beside AtariVectorEnv's of the emulator's authors, by the same random actions."""
    try:
        from ale_py.vector_env import AtariVectorEnv
    except ImportError:
        raise DataError("expected the extra `rl`: pip install 'kerasmodels[rl]'.") from None
    count, different, last = 500 if quick else 10_000, 0, 0
    for game in ("pong", "breakout", "seaquest"):
        theirs = AtariVectorEnv(
            game, 1, noop_max=0, use_fire_reset=False, reward_clipping=False, repeat_action_probability=0.0
        )
        ours, random, over = make_environment(game, 0, noops=0), np.random.default_rng(0), False
        frames, _ = theirs.reset(seed=0)
        state = pushed(None, ours.reset(), 1)
        different += bool((frames[0, 3] != state[..., 0]).any())
        for _ in range(count):
            action = int(random.integers(len(ours.actions)))
            frames, *_ = theirs.step(np.array([action]))
            if over:
                frame, over = ours.reset(), False
            else:
                step = ours.step(action)
                frame, over = step.observation, step.terminated
            unequal = bool((frames[0, 3] != frame).any())
            last, different = last + (unequal and over), different + (unequal and not over)
    text = f"frames of three games, {count} steps each, that differ from AtariVectorEnv's"
    return [
        Claim("screens", f"{text}, within episodes", "-", float(different), equals=0.0),
        Claim("screens_last", f"{text}, the last of an episode, of which nothing is learned", "-", float(last)),
    ]


EXPERIMENTS = {
    "networks": Experiment("both networks, by their parameters", networks),
    "catch": Experiment("Catch is learned, with a replay memory better than without; Q stays bounded", catch),
    "cartpole": Experiment("CartPole is learned from vectors", cartpole),
    "pong": Experiment("Pong is won, from screens", pong),
    "screens": Experiment("screens are those of the emulator's own vector environment", screens),
}
