"""Games to learn: Catch, which is bundled; Atari, on the emulator itself; and any Gymnasium environment.

Atari and Gymnasium need the `rl` extra (ale-py, which is GPL-2.0-only and brings the ROMs, and gymnasium). An
environment draws nothing from random states outside of it: the seed and the number of the episode decide, so that the
state of one can be saved and a training go on from it with equal bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol

import numpy as np

from kerasmodels.errors import DataError, UsageError, unknown_name

CATCH = "catch"
_GAMES = {
    3: "backgammon freeway skiing",
    4: "atlantis2 atlantis blackjack breakout casino kaboom",
    5: "frogger pacman surround tetris video_checkers",
    6: (
        "air_raid basic_math bowling carnival demon_attack galaxian king_kong name_this_game pong pooyan qbert "
        "sir_lancelot space_invaders up_n_down"
    ),
    7: "assault",
    8: "gopher phoenix tutankham",
    9: "asterix beam_rider crazy_climber enduro koolaid lost_luggage ms_pacman video_pinball",
    10: "amidar mr_do othello tic_tac_toe_3d time_pilot video_chess wizard_of_wor",
    12: "turmoil",
    14: "asteroids keystone_kapers kung_fu_master",
    16: "journey_escape",
    18: (
        "adventure alien bank_heist battle_zone berzerk boxing centipede chopper_command crossbow darkchambers "
        "defender donkey_kong double_dunk earthworld elevator_action entombed et fishing_derby flag_capture "
        "frostbite gravitar hangman haunted_house hero human_cannonball ice_hockey jamesbond kangaroo klax krull "
        "laser_gates mario_bros miniature_golf montezuma_revenge pitfall2 pitfall private_eye riverraid "
        "road_runner robotank seaquest solaris space_war star_gunner superman tennis trondead venture video_cube "
        "word_zapper yars_revenge zaxxon"
    ),
}
ATARI = {game: actions for actions, games in _GAMES.items() for game in games.split()}
"""The games of ale-py 0.12 for one player, and how many actions each has."""
SCREENS = {
    **dict.fromkeys(
        ("adventure", "air_raid", "keystone_kapers", "king_kong", "klax", "laser_gates", "mr_do", "pacman"), (250, 160)
    ),
    **dict.fromkeys(("sir_lancelot", "space_war"), (250, 160)),
    **{"carnival": (214, 160), "pooyan": (220, 160), "journey_escape": (230, 160)},
}
"""Height and width of the screens that are not 210 x 160."""


@dataclass(frozen=True)
class Step:
    """What an action led to.

    Args:
        observation: of the environment's `shape` and `dtype`.
        reward: as the game counts it, not clipped.
        terminated: the episode is over, and nothing follows: its value is the reward alone.
        truncated: the episode was cut off, by a limit of time; the state has a value as any other.
        life_lost: a life was lost, and the episode goes on.
    """

    observation: np.ndarray
    reward: float
    terminated: bool
    truncated: bool
    life_lost: bool = False


class Environment(Protocol):
    """A game with discrete actions. An observation is one frame or a vector; who plays stacks them.

    Attributes:
        actions: the names of the actions.
        shape: of an observation: (H, W) of a frame, or (N,).
        dtype: uint8 of a frame, else float32.
    """

    actions: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: Any

    def reset(self) -> np.ndarray:
        """Begin the next episode; its first observation."""

    def step(self, action: int) -> Step:
        """Take an action. After an episode's last step, `reset` comes first."""

    def picture(self) -> np.ndarray:
        """What a spectator sees now, (H, W, 3) uint8."""

    def state(self) -> dict[str, np.ndarray]:
        """All that decides what follows."""

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Put `state()` back; the next call may be `step`."""


class Catch:
    """A ball falls on a grid of 10 x 10; the paddle in the lowest row catches it or does not: a reward of 1 or -1.

    Args:
        seed: of the columns where the balls begin.

    Reference:
        Mnih, Heess, Graves, Kavukcuoglu: Recurrent Models of Visual Attention, NIPS 2014, section 4.4 (the game).
    """

    actions: tuple[str, ...] = ("left", "stay", "right")
    shape: tuple[int, ...] = (10, 10)
    dtype = np.uint8

    def __init__(self, seed: int = 0):
        self._seed, self._episode = seed, 0
        self._row = self._column = self._paddle = 0

    def reset(self) -> np.ndarray:
        random = np.random.default_rng([self._seed, self._episode])
        self._episode += 1
        self._row, self._column, self._paddle = 0, int(random.integers(10)), 5
        return self._frame()

    def step(self, action: int) -> Step:
        self._paddle = min(max(self._paddle + action - 1, 0), 9)
        self._row += 1
        over = self._row == 9
        reward = (1.0 if self._column == self._paddle else -1.0) if over else 0.0
        return Step(self._frame(), reward, over, False)

    def _frame(self) -> np.ndarray:
        frame = np.zeros(self.shape, np.uint8)
        frame[self._row, self._column] = 255
        frame[9, self._paddle] = 255
        return frame

    def picture(self) -> np.ndarray:
        return np.repeat(self._frame().repeat(16, 0).repeat(16, 1)[..., None], 3, 2)

    def state(self) -> dict[str, np.ndarray]:
        return {"catch": np.array([self._episode, self._row, self._column, self._paddle])}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        self._episode, self._row, self._column, self._paddle = map(int, state["catch"])


class Atari:
    """An Atari 2600 game, each part of the papers' preprocessing an argument.

    Args:
        game: the ROM's name, such as "pong".
        seed: of the no-ops at the beginning of each episode, and of the emulator.
        frame_skip: how many frames an action is held (4; the 2013 paper has 3 for Space Invaders).
        pooled: 2: an observation is the maximum over an action's last two frames, since sprites flicker; 1: the last.
        resize: "stretch": the whole screen to 84 x 84 (2015); "crop": to 110 x 84, of which rows 18 to 101 (2013).
        noops: an episode begins with 1 to so many frames of doing nothing, drawn anew; 0: none.
        fire: press FIRE after a reset, in games that wait for it.
        sticky: chance that the emulator repeats the last action instead, in each frame.
        all_actions: all 18 actions, not the game's own: another task.
        time_limit: frames after which an episode is cut off.

    Raises:
        DataError: the `rl` extra is not installed.
        UsageError: no such game.
    """

    dtype = np.uint8

    def __init__(
        self,
        game: str,
        seed: int = 0,
        *,
        frame_skip: int = 4,
        pooled: int = 2,
        resize: Literal["stretch", "crop"] = "stretch",
        noops: int = 30,
        fire: bool = False,
        sticky: float = 0.0,
        all_actions: bool = False,
        time_limit: int = 108_000,
    ):
        if game not in ATARI:
            raise unknown_name("game", game, [CATCH, *ATARI])
        ale_py = _needs("ale_py", "Atari games")
        ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self._emulator = ale_py.ALEInterface()
        self._emulator.setInt("random_seed", seed)
        self._emulator.setFloat("repeat_action_probability", sticky)
        self._emulator.loadROM(ale_py.roms.get_rom_path(game))
        self._saved = ale_py.ALEState
        emulator = self._emulator
        self._legal = emulator.getLegalActionSet() if all_actions else emulator.getMinimalActionSet()
        self.actions = tuple(action.name.lower() for action in self._legal)
        self.shape: tuple[int, ...] = (84, 84)
        self._seed, self._episode, self._frames, self._lives = seed, 0, 0, 0
        self._skip, self._pooled, self._resize, self._noops = frame_skip, pooled, resize, noops
        self._fire, self._limit = fire and "fire" in self.actions, time_limit
        self._noop = ale_py.Action.NOOP
        self._fired = ale_py.Action.FIRE
        self._screens = np.zeros((2, *emulator.getScreenDims()), np.uint8)

    def reset(self) -> np.ndarray:
        random = np.random.default_rng([self._seed, self._episode])
        self._episode += 1
        self._emulator.reset_game()
        for _ in range(int(random.integers(1, self._noops + 1)) if self._noops else 0):
            self._emulator.act(self._noop)
            if self._emulator.game_over():
                self._emulator.reset_game()
        if self._fire:
            self._emulator.act(self._fired)
        self._frames, self._lives = 0, self._emulator.lives()
        self._emulator.getScreenGrayscale(self._screens[0])
        self._screens[1] = self._screens[0]
        return observed(self._screens[0], self._resize)

    def step(self, action: int) -> Step:
        emulator, reward = self._emulator, 0.0
        held = self._legal[action]
        for frame in range(self._skip):
            reward += emulator.act(held)
            self._frames += 1
            over = emulator.game_over()
            if over or frame >= self._skip - self._pooled:
                # The one before the last frame stays, wherever the action ends.
                self._screens[1] = self._screens[0]
                emulator.getScreenGrayscale(self._screens[0])
            if over:
                break
        lives = emulator.lives()
        lost, self._lives = lives < self._lives, lives
        screen = self._screens[: self._pooled].max(axis=0)
        cut = self._frames >= self._limit and not over
        return Step(observed(screen, self._resize), reward, over, cut, lost)

    @property
    def screens(self) -> np.ndarray:
        """The gray screens that the last observation was made of, the older first, (pooled, H, W) uint8."""
        return self._screens[: self._pooled][::-1].copy()

    def picture(self) -> np.ndarray:
        return self._emulator.getScreenRGB()

    def state(self) -> dict[str, np.ndarray]:
        emulator = self._emulator.cloneState(include_rng=True).serialize()
        return {
            "emulator": np.frombuffer(emulator, np.uint8),
            "screens": self._screens.copy(),
            "counts": np.array([self._episode, self._frames, self._lives]),
        }

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        self._emulator.restoreState(self._saved(state["emulator"].tobytes()))
        self._screens[:] = state["screens"]
        self._episode, self._frames, self._lives = map(int, state["counts"])


class GymEnvironment:
    """An environment of Gymnasium with discrete actions, whose observations are vectors, or frames (H, W) of bytes.

    Its state is the number of the episode and the actions taken in it, which `set_state` takes again: Gymnasium cannot
    save an environment, but one that draws from its own generator alone repeats an episode from its seed.

    Args:
        name: as `gymnasium.make` takes it, such as "CartPole-v1".
        seed: of the episodes.

    Raises:
        DataError: gymnasium is not installed.
        UsageError: no such environment, actions that are no numbers, or observations of another kind.
    """

    def __init__(self, name: str, seed: int = 0):
        gymnasium = _needs("gymnasium", "environments of Gymnasium")
        try:
            self._made = gymnasium.make(name, render_mode=None)
        except gymnasium.error.Error as error:
            raise UsageError(f"expected an environment of Gymnasium. Received: {name!r} ({error}).") from None
        space, seen = self._made.action_space, self._made.observation_space
        if not isinstance(space, gymnasium.spaces.Discrete):
            raise UsageError(
                f"expected discrete actions, of which Q-learning takes the best. Received: {name} with {space}. "
                "Choose another environment, or one that makes its actions discrete."
            )
        frames = isinstance(seen, gymnasium.spaces.Box) and seen.dtype == np.uint8 and len(seen.shape) == 2
        if not frames and not (isinstance(seen, gymnasium.spaces.Box) and len(seen.shape) == 1):
            raise UsageError(
                f"expected observations that are vectors, or frames (H, W) of bytes. Received: {name} with {seen}. "
                "Wrap the environment so that it shows one of these; Atari games go by the name of their ROM, as pong."
            )
        self.shape, self.dtype = seen.shape, np.uint8 if frames else np.float32
        self._first = int(space.start)
        self.actions = tuple(str(self._first + i) for i in range(int(space.n)))
        self._seed, self._episode, self._taken = seed, 0, []  # type: int, int, list[int]
        self._observation = np.zeros(self.shape, self.dtype)

    def reset(self) -> np.ndarray:
        random = np.random.default_rng([self._seed, self._episode])
        self._episode += 1
        self._taken = []
        observation, _ = self._made.reset(seed=int(random.integers(2**31)))
        return np.asarray(observation, self.dtype)

    def step(self, action: int) -> Step:
        self._taken.append(action)
        observation, reward, terminated, truncated, _ = self._made.step(self._first + action)
        return Step(np.asarray(observation, self.dtype), float(reward), bool(terminated), bool(truncated))

    def picture(self) -> np.ndarray:
        raise UsageError("expected a game that can be shown: catch or Atari. Received: an environment of Gymnasium.")

    def state(self) -> dict[str, np.ndarray]:
        return {"episode": np.array(self._episode), "taken": np.array(self._taken, np.int64)}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        self._episode, taken = int(state["episode"]), state["taken"].tolist()
        if self._episode:
            self._episode -= 1
            self.reset()
            for action in taken:
                self.step(action)


def make_environment(game: str, seed: int = 0, **atari: Any) -> Environment:
    """The environment of a name.

    Args:
        game: "catch"; the name of an Atari ROM, such as "pong"; or of a Gymnasium environment, such as "CartPole-v1".
        seed: of its episodes.
        **atari: arguments of `Atari`, which the others do without.

    Raises:
        UsageError: there is none, or it cannot be learned by its kind.
        DataError: the `rl` extra is not installed.
    """
    if game == CATCH:
        return Catch(seed)
    if "-v" in game or "/" in game:
        return GymEnvironment(game, seed)
    return Atari(game, seed, **atari)


def spaces(game: str, all_actions: bool = False) -> tuple[tuple[int, ...], Any, int]:
    """Shape and dtype of a game's observations, and how many actions it has; Atari's without the emulator.

    Raises:
        UsageError: there is no such game, or it cannot be learned by its kind.
        DataError: it is Gymnasium's, which is not installed.
    """
    if game in ATARI:
        return (84, 84), np.uint8, 18 if all_actions else ATARI[game]
    environment = make_environment(game)
    return environment.shape, environment.dtype, len(environment.actions)


def pushed(state: np.ndarray | None, observation: np.ndarray, stack: int) -> np.ndarray:
    """The state (*shape, stack) after an observation; without a state before it, as often as there are places."""
    if state is None:
        return np.repeat(observation[..., None], stack, axis=-1)
    return np.concatenate([state[..., 1:], observation[..., None]], axis=-1)


def observed(screen: np.ndarray, resize: Literal["stretch", "crop"] = "stretch") -> np.ndarray:
    """A gray screen (H, W) uint8 as the network sees it, (84, 84) uint8: each pixel the mean of the area it covers."""
    if resize == "crop":
        return area_resized(screen, 110, 84)[18:102]
    return area_resized(screen, 84, 84)


def area_resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W) uint8, made smaller to (height, width): means over areas, first along rows, in float32, as OpenCV's."""
    return np.rint(_shrunk(_shrunk(picture.T, width).T, height)).astype(np.uint8)


def _shrunk(picture: np.ndarray, size: int) -> np.ndarray:
    """(N, M) -> (size, M), float32."""
    indexes, weights = overlaps(picture.shape[0], size)
    total = picture[indexes[0]] * weights[0]
    for index, weight in zip(indexes[1:], weights[1:], strict=True):
        total += picture[index] * weight
    return total


@cache
def overlaps(length: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Which of `length` pixels each of `size` larger ones covers, and which fraction of it each makes up.

    Returns:
        indexes (K, size) int, and weights (K, size, 1) float32, which are 0 where a pixel covers fewer than K.
    """
    edges = np.arange(size + 1) * (length / size)
    first = np.floor(edges[:-1] + 1e-9).astype(int)
    most = int((np.ceil(edges[1:] - 1e-9).astype(int) - first).max())
    index = first + np.arange(most)[:, None]
    covered = np.minimum(index + 1, edges[1:]) - np.maximum(index, edges[:-1])
    weights = np.maximum(covered, 0) * (size / length)
    weights[weights < 1e-6] = 0
    return np.minimum(index, length - 1), weights[..., None].astype(np.float32)


def _needs(module: str, what: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(
            f"{what} need the `rl` extra: pip install 'kerasmodels[rl]' (missing: {error.name})."
        ) from error
