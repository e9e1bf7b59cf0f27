"""DQN: a network that learns to play from the screen and the score alone.

Mnih, Kavukcuoglu, Silver, Graves, Antonoglou, Wierstra, Riedmiller: Playing Atari with Deep Reinforcement Learning,
2013; Mnih et al.: Human-level control through deep reinforcement learning, Nature 2015.

Reproduced: both networks, Q-learning from a replay memory, with and without a target network, all of the preprocessing
of Atari's screens, evaluation with epsilon 0.05, the average Q of held-out states as the measure of progress.

| departure from the papers | why |
|---|---|
| the defaults are for Catch; variants `2013` and `nature` are the papers' | a first run in a minute, without ROMs |
| 2013: rate, discount, RMSProp's constants, steps per update are Nature's; rows 18-101 kept | the paper is silent |
| losses are means over the batch, not sums | Keras' custom; RMSProp hardly sees a factor |
| the first observation fills a stack where an episode begins, not zeros | a screen that the game does show |
| double and dueling networks, prioritized replay, returns of several steps are options | later papers' |

A step of `fit` is one update. `train_every` steps of the game come before each, `learning_starts` before the first.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from kerasmodels.config import Fraction, NonNegativeInt, PositiveInt, TrainingConfig, check
from kerasmodels.data.environments import Environment, make_environment, pushed, spaces
from kerasmodels.data.replay import ReplayMemory, ReplaySampler
from kerasmodels.family import Family, Task
from kerasmodels.paper_model import PaperModel
from kerasmodels.servables.policy import policy
from kerasmodels.tasks.play import PlayOptions, film, play_files

__all__ = ["DQN", "Config"]


class Config(TrainingConfig):
    """What to learn, and how. The defaults learn Catch within a minute."""

    game: str = "catch"
    """catch; an Atari game by the name of its ROM, such as pong; or a Gymnasium environment, such as CartPole-v1."""
    network: Literal["2013", "nature", "small", "dense"] | None = None
    """2013 and nature: the papers', for frames of 84 x 84; small: one convolution, for small frames; dense: for
    vectors. Left out: 2013 for frames of 84 x 84, else small or dense."""
    double: bool = False
    """The network that learns chooses the next action, the target network values it (van Hasselt et al. 2016)."""
    dueling: bool = False
    """Value and advantages have layers of their own (Wang et al. 2016)."""

    loss: Literal["huber", "squared"] = "huber"
    """huber: errors beyond 1 have gradients of 1, which is what Nature calls clipping them; squared: 2013's."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """rmsprop: Nature's, centered, with its constants."""
    discount: Fraction = 0.99
    """Of rewards, for each step: gamma."""
    target_every: NonNegativeInt = 200
    """Updates after which the target network becomes a copy of the network; 0: there is none (2013)."""
    train_every: PositiveInt = 1
    """Steps of the game from one update to the next."""
    learning_starts: PositiveInt = 500
    """Steps of the game, by random actions, before the first update."""
    epsilon_first: Fraction = 1.0
    """Share of random actions when learning begins."""
    epsilon_last: Fraction = 0.05
    """Share of random actions in the end."""
    epsilon_steps: PositiveInt = 3000
    """Steps of the game from the first to the last."""

    replay: PositiveInt = 10000
    """Observations kept. 1,000,000 frames of 84 x 84 are 7.06 GB."""
    replay_file: Path | None = None
    """Keep them in this file, mapped into memory, instead of in memory. Checkpoints hold them in any case."""
    prioritized: bool = False
    """Draw what was predicted badly more often (Schaul et al. 2016)."""
    return_steps: PositiveInt = 1
    """Rewards that are summed up before the value of a state is taken."""
    clip_rewards: bool = False
    """Rewards are -1, 0 or 1 by their sign; in training only."""
    life_loss: bool = False
    """No value follows the loss of a life, though the game goes on; in training only."""
    stack: PositiveInt = 1
    """Observations that the network sees at once."""

    frame_skip: PositiveInt = 4
    """Atari: frames for which an action is held. (2013 has 3 for Space Invaders.)"""
    pooled: Literal[1, 2] = 2
    """Atari: an observation is the maximum over the last two frames, or the last."""
    resize: Literal["stretch", "crop"] = "stretch"
    """Atari: the screen to 84 x 84 (Nature), or to 110 x 84 and a part of it (2013)."""
    noops: NonNegativeInt = 30
    """Atari: an episode begins with 1 to so many frames of doing nothing."""
    fire: bool = False
    """Atari: press fire when an episode begins."""
    sticky: Fraction = 0.0
    """Atari: chance that the last action is repeated, in each frame."""
    all_actions: bool = False
    """Atari: all 18 actions, not the game's own."""
    time_limit: PositiveInt = 108_000
    """Atari: frames after which an episode is cut off."""

    steps: PositiveInt = 6000

    def validate(self) -> None:
        """Raise UsageError where fields contradict each other."""
        check(self.batch <= self.learning_starts, f"learning_starts >= the batch of {self.batch}", self.learning_starts)
        least = self.stack + self.return_steps + 1
        check(
            self.replay > least and self.learning_starts > least, f"replay and learning_starts > {least}", self.replay
        )
        check(self.target_every > 0 or not self.double, "a target network (target_every > 0) for double", 0)

    def made_environment(self, seed: int) -> Environment:
        """The game, with the preprocessing."""
        atari = ("frame_skip", "pooled", "resize", "noops", "fire", "sticky", "all_actions", "time_limit")
        return make_environment(self.game, seed, **{name: getattr(self, name) for name in atari})

    def epsilon(self, played: int) -> float:
        """Share of random actions after so many steps of the game."""
        along = min(max(played - self.learning_starts, 0) / self.epsilon_steps, 1.0)
        return self.epsilon_first + (self.epsilon_last - self.epsilon_first) * along


_ATARI: dict[str, Any] = {"stack": 4, "train_every": 4, "clip_rewards": True, "life_loss": True}
_RMSPROP: dict[str, Any] = {"optimizer": "rmsprop", "learning_rate": 2.5e-4}
_MILLION: dict[str, Any] = {"replay": 1_000_000, "learning_starts": 50_000, "epsilon_last": 0.1}
VARIANTS = {
    "paper": Config(),
    "2013": Config(
        game="breakout", network="2013", loss="squared", target_every=0, resize="crop", epsilon_steps=250_000,
        steps=612_500, **_ATARI, **_RMSPROP, **_MILLION,
    ),
    "nature": Config(
        game="breakout", network="nature", target_every=10_000, epsilon_steps=1_000_000, steps=12_500_000,
        **_ATARI, **_RMSPROP, **_MILLION,
    ),
    "pong": Config(
        game="pong", network="2013", learning_rate=1e-4, target_every=500, return_steps=3, replay=100_000,
        learning_starts=5_000, epsilon_last=0.02, epsilon_steps=50_000, steps=400_000, **{**_ATARI, "train_every": 2},
    ),
    "cartpole": Config(
        game="CartPole-v1", learning_rate=5e-4, batch=64, target_every=250, train_every=2, replay=50_000,
        learning_starts=1000, epsilon_last=0.04, epsilon_steps=10_000, steps=25_000, double=True,
    ),
    "quick": Config(steps=3000),
}  # fmt: skip


# --- networks ---------------------------------------------------------------------------------------------------------

_NETWORKS: dict[str, tuple[list[tuple[int, int, int]], int]] = {
    "2013": ([(16, 8, 4), (32, 4, 2)], 256),
    "nature": ([(32, 8, 4), (64, 4, 2), (64, 3, 1)], 512),
    "small": ([(16, 3, 1)], 128),
    "dense": ([], 128),
}
"""Filters, size and stride of each convolution, and units of the layer behind them."""
_RELU: dict[str, Any] = {"activation": "relu", "kernel_initializer": "he_uniform"}
"""Smaller first weights than He's leave most units without a slope: frames of a game are nearly the same everywhere."""


def _network(config: Config, prefix: str = "") -> keras.Model:
    """(N, H, W, stack) uint8 or (N, features, stack) float32 -> values of the actions (N, A), float32."""
    shape, dtype, actions = spaces(config.game, config.all_actions)
    frames, large = len(shape) == 2, shape == (84, 84)
    kind = config.network or ("2013" if large else "small" if frames else "dense")
    check(kind == "dense" or frames, f"network=dense for observations {shape}", kind)
    check(kind in ("dense", "small") or large, f"frames of 84 x 84 for network={kind}", shape)

    def dense(units: int, name: str, **kwargs: Any) -> keras.Layer:
        return layers.Dense(units, name=f"{prefix}{name}", **kwargs)

    def head(x: Any, outputs: int, hidden: str, name: str) -> Any:
        return dense(outputs, name, dtype="float32")(dense(units, hidden, **_RELU)(x))

    x = state = keras.Input((*shape, config.stack), dtype=np.dtype(dtype).name, name="state")
    x = layers.Rescaling(1 / 255, name="scaled")(x) if frames else x
    convolutions, units = _NETWORKS[kind]
    for number, (filters, size, stride) in enumerate(convolutions, 1):
        x = layers.Conv2D(filters, size, stride, name=f"{prefix}conv{number}", **_RELU)(x)
    x = layers.Flatten(name="flat")(x)
    if kind == "dense":
        x = dense(units, "dense", **_RELU)(x)
    values = head(x, actions, "hidden", "values")
    if config.dueling:
        values = Advantages(dtype="float32", name="dueling")([values, head(x, 1, "level_hidden", "level")])
    return keras.Model(state, values, name=f"{prefix}network")


@keras.saving.register_keras_serializable("kerasmodels")
class Advantages(keras.Layer):
    """Values of actions, (N, A), from their advantages (N, A) and the value of the state (N, 1): Wang et al. 2016."""

    def call(self, inputs: Sequence[Any]) -> Any:
        advantages, level = inputs
        return level + advantages - ops.mean(advantages, axis=1, keepdims=True)


def _target(config: Config) -> keras.Model | None:
    if not config.target_every:
        return None
    network = _network(config, "target_")
    network.trainable = False
    return network


# --- model ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class DQN(PaperModel):
    """A deep Q-network: the value of each action in a state of a game.

    `fit` takes the dataset that `FAMILY.batches(config, model)` makes: it plays the game with the model.

    Args:
        config, dtype: see `PaperModel`.
        network, target: networks of one's own, of the same shapes.

    Shapes:
        (N, H, W, stack) uint8 frames, the latest last, or (N, features, stack) float32 -> (N, actions), float32.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> model = km.models.DQN(km.models.DQN.Config(game="pong", stack=4))
        >>> tuple(model(np.zeros((2, 84, 84, 4), "uint8")).shape), model.count_params() // 2
        ((2, 6), 677686)

    Reference:
        Mnih et al. 2013, 2015.
    """

    Config = Config
    family_name = "dqn"
    one_device = "it plays one game, and learns a small batch after each few steps of it"
    networks = {"network": _network, "target": _target}  # noqa: RUF012
    trained_by = {"all": ("network",)}  # noqa: RUF012

    def __init__(self, config: Any = None, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        *shape, stack = self.network.input_shape[1:]
        config = self.config
        self.sampler = ReplaySampler(
            config.replay, tuple(shape), stack=stack, steps=config.return_steps, discount=config.discount,
            prioritized=config.prioritized,
        )  # fmt: skip
        self._values = tf.function(self.call, autograph=False, reduce_retracing=True)

    def loss_terms(self) -> Sequence[str]:
        """The loss; the mean over the batch of the values of the best actions; and what `Playing` tells."""
        return ("loss", "q", "score", "held_out_q", "epsilon")

    def default_optimizer(self, group: str) -> keras.optimizers.Optimizer:
        if self.config.optimizer == "adam":
            return keras.optimizers.Adam(self.config.learning_rate, epsilon=1e-5)
        return keras.optimizers.RMSprop(self.config.learning_rate, rho=0.95, epsilon=0.01, centered=True)

    def compile(self, optimizer: Any = None, loss: Any = None, **kwargs: Any) -> None:
        super().compile(optimizer, loss, **kwargs)
        # XLA makes one pass over memory of the dozen that an optimizer's formulas are.
        variables = self.optimizer_groups()["all"]
        self._apply = tf.function(
            lambda gradients: self.optimizers["all"].apply(gradients, variables), jit_compile=True, autograph=False
        )

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.network(inputs, training=training)

    def values(self, states: np.ndarray) -> np.ndarray:
        """Values of the actions in states (N, ...) -> (N, actions), as arrays."""
        return self._values(tf.constant(states)).numpy()

    def train_step(self, data: Any) -> dict[str, Any]:
        rows, played = data
        with tf.device("CPU"):  # where the replay memory is
            drawn = self.sampler(rows, played["count"][0], self.config.batch, self.seed_generator)
        self._copy_to_target()
        target = drawn["rewards"] + drawn["discounts"] * self._next_values(drawn["next_states"])
        with tf.GradientTape() as tape:
            values = self.network(drawn["states"], training=True)
            errors = target - tf.gather(values, drawn["actions"], batch_dims=1)
            if self.config.loss == "huber":
                losses = tf.where(tf.abs(errors) < 1, 0.5 * tf.square(errors), tf.abs(errors) - 0.5)
            else:
                losses = tf.square(errors)
            loss = tf.reduce_mean(drawn["weights"] * losses)
        self._apply(tape.gradient(loss, self.network.trainable_variables))
        self.sampler.prioritize(drawn["places"], errors)
        told = {name: played[name][0] for name in ("score", "held_out_q", "epsilon")}
        self.report(loss=loss, q=tf.reduce_mean(tf.reduce_max(values, axis=1)), **told)
        return self.reported()

    def _next_values(self, states: Any) -> Any:
        """(N,): what the best action is worth."""
        valued = self.network if self.target is None else self.target
        values = valued(states, training=False)
        if not self.config.double:
            return tf.reduce_max(values, axis=1)
        return tf.gather(values, tf.argmax(self.network(states, training=False), axis=1), batch_dims=1)

    def _copy_to_target(self) -> None:
        if self.target is None:
            return
        pairs = list(zip(self.target.variables, self.network.variables, strict=True))

        def copy() -> None:
            for theirs, mine in pairs:
                theirs.assign(mine)

        tf.cond(self.optimizer.iterations % self.config.target_every == 0, copy, lambda: None)

    def training_state(self) -> dict[str, np.ndarray]:
        return self.sampler.state()

    def set_training_state(self, state: Mapping[str, np.ndarray]) -> None:
        if state:
            self.sampler.set_state(state)


# --- playing while it learns ------------------------------------------------------------------------------------------


class Playing:
    """The source of batches: plays the game with the model, by epsilon-greedy actions, and remembers.

    A batch is the rows of the replay memory, of which the model's step draws, and what `fit` is to show: `score`, the
    mean over the last 100 episodes, and `held_out_q`, the mean value of the best action in 256 states of the time
    before learning, computed anew after each 250 updates. What is random follows from the seed and the step's number.
    """

    def __init__(self, config: Config):
        self.config = config
        self._environment = config.made_environment(config.seed)
        shape, dtype = self._environment.shape, self._environment.dtype
        self._replay = ReplayMemory(config.replay, shape, dtype, config.replay_file)
        self._state: Any = None
        self._age = self._played = 0
        self._score: float = 0.0
        self._scores: list[float] = []
        self._held_out = np.zeros((0, *shape, config.stack), dtype)
        self._held_out_q = np.nan

    def batches(self, model: DQN, start: int) -> tf.data.Dataset:
        """See `Source`."""

        def play() -> Iterator[dict[str, np.ndarray]]:
            number = start
            while True:
                while self._played < self.config.learning_starts + number * self.config.train_every:
                    self._step(model)
                if number % 250 == 0 or np.isnan(self._held_out_q):
                    self._held_out_q = float(model.values(self._held_out).max(axis=1).mean())
                told = {
                    "score": np.mean(self._scores or [self._score]),
                    "held_out_q": self._held_out_q,
                    "epsilon": self.config.epsilon(self._played),
                }
                count = {"count": np.array([self._replay.count])}
                yield count | {name: np.array([value], np.float32) for name, value in told.items()}
                number += 1

        specs = {name: tf.TensorSpec((1,), tf.float32) for name in ("score", "held_out_q", "epsilon")}
        specs["count"] = tf.TensorSpec((1,), tf.int64)
        options = tf.data.Options()
        # What is played ahead would not know the model's last update.
        options.experimental_optimization.apply_default_optimizations = False
        options.experimental_optimization.inject_prefetch = False
        options.autotune.enabled = False
        rows = self._replay.rows
        played = tf.data.Dataset.from_generator(play, output_signature=specs)
        return played.map(lambda told: (rows, told)).with_options(options)

    def _step(self, model: DQN) -> None:
        config, environment = self.config, self._environment
        if self._state is None:
            self._state = pushed(None, environment.reset(), config.stack)
            self._age, self._score = 0, 0.0
        held = max(config.learning_starts // 256, 1)
        if self._played < config.learning_starts and self._played % held == 0 and len(self._held_out) < 256:
            self._held_out = np.concatenate([self._held_out, self._state[None]])
        random = np.random.default_rng([config.seed, 1, self._played])
        if self._played < config.learning_starts or random.random() < config.epsilon(self._played):
            action = int(random.integers(len(environment.actions)))
        else:
            action = int(model.values(self._state[None])[0].argmax())
        step = environment.step(action)
        end = step.terminated or (step.life_lost and config.life_loss)
        reward = float(np.sign(step.reward)) if config.clip_rewards else step.reward
        self._replay.append(self._state[..., -1], self._age, action, reward, end)
        self._played += 1
        self._age += 1
        self._score += step.reward
        self._state = pushed(self._state, step.observation, config.stack)
        if step.terminated or step.truncated:
            if step.truncated and not end:
                self._replay.append(step.observation, self._age, 0, 0.0, False, weight=0)
            self._scores = [*self._scores[-99:], self._score]
            self._state = None

    def state(self) -> dict[str, np.ndarray]:
        """See `Source`."""
        numbers = np.array([self._age, self._played, self._state is None])
        own = {"numbers": numbers, "scores": np.array(self._scores), "score": np.array(self._score)}
        own |= {"held_out": self._held_out, "held_out_q": np.array(self._held_out_q)}
        if self._state is not None:
            own["state"] = self._state
        parts = {"replay": self._replay.state(), "game": self._environment.state()}
        return own | {f"{part}/{name}": value for part, values in parts.items() for name, value in values.items()}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """See `Source`."""
        self._age, self._played, between = map(int, state["numbers"])
        self._state = None if between else state["state"]
        self._scores, self._score = state["scores"].tolist(), float(state["score"])
        self._held_out, self._held_out_q = state["held_out"], float(state["held_out_q"])
        for part, owner in (("replay", self._replay), ("game", self._environment)):
            names = [name for name in state if name.startswith(f"{part}/")]
            owner.set_state({name.removeprefix(f"{part}/"): state[name] for name in names})


# --- family -----------------------------------------------------------------------------------------------------------


FAMILY = Family(
    name="dqn",
    config=Config,
    variants=VARIANTS,
    model=DQN,
    servables=lambda model: policy(model.network, model.config),
    task=Task(PlayOptions, play_files),
    source=Playing,
    preview=film,
)
