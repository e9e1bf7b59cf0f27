"""Playing games with a trained network, or with an exported file alone; scores, and a video of it."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from kerasmodels.config import Fraction, NonNegativeInt, PositiveInt, check
from kerasmodels.data.environments import ATARI, Atari, Environment, GymEnvironment, Step, make_environment, pushed
from kerasmodels.data.grids import tiled
from kerasmodels.data.video import SUFFIXES, write_gif, write_video
from kerasmodels.errors import DataError, UsageError
from kerasmodels.family import RunReport
from kerasmodels.tasks import TrainedOptions

Values = Callable[[np.ndarray], np.ndarray]
"""States (N, *shape, stack) -> values of the actions (N, A)."""


class PlayOptions(TrainedOptions):
    """Play a game with a trained network, or with an exported file, and tell the scores."""

    artifact: Path | None = None
    """An exported policy (.tflite, .onnx or a SavedModel's version folder), instead of a preset; with --game."""
    game: str | None = None
    """The game. Left out: the one that the network has learned."""
    resize: Literal["stretch", "crop"] = "stretch"
    """Atari, with --artifact: as the network was trained."""
    video: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """A video of the best episode to write (.mp4; needs the extra `video`), or .gif."""
    episodes: PositiveInt = 10
    """How many to play."""
    epsilon: Fraction = 0.05
    """Share of random actions; 0.05 is the papers'."""
    seed: NonNegativeInt = 1
    """Of the episodes, and of the random actions."""

    def validate(self) -> None:
        """Raise UsageError where the options contradict each other."""
        if self.artifact is not None:
            check(self.preset is None and self.run is None, "one of --preset, --run and --artifact", str(self.artifact))
            check(self.game is not None, "--game with --artifact: the file does not say which one it plays", None)
        suffix = self.video.suffix if self.video is not None else ".gif"
        check(suffix == ".gif" or suffix in SUFFIXES, "a video's name, such as out.mp4 or out.gif", str(self.video))


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
    """Eight pictures of the greedy policy's first 64 actions, side by side; none of games that cannot be shown."""
    environment, pictures = model.config.made_environment(0), []
    if isinstance(environment, GymEnvironment):
        return {}

    def watch(shown: Environment) -> None:
        pictures.append(shown.picture())

    play(model.values, environment, model.config.stack, episodes=1, epsilon=0.0, watch=watch, longest=64)
    chosen = [pictures[i] for i in np.linspace(0, len(pictures) - 1, 8).astype(int)]
    return {"play": tiled(np.stack(chosen), 1, 8)}


def play_files(options: PlayOptions) -> RunReport:
    """Play, and write what the options ask for."""
    if options.artifact is not None:
        game = str(options.game)
        environment = make_environment(game, options.seed, resize=options.resize)
        values, stack, environment = _of_artifact(options.artifact, environment)
    else:
        model = options.trained("dqn").load()
        game, stack, values = model.config.game, model.config.stack, model.values
        if options.game not in (None, game):
            raise UsageError(
                f"expected the game that the network has learned, {game}: another one has other actions and other "
                f"screens. Received: game={options.game!r}. Train for it: kerasmodels train dqn --game {options.game} "
                "--out runs/mine."
            )
        environment = model.config.made_environment(options.seed)
    scores: list[float] = []
    best: list[np.ndarray] = []
    for episode in range(options.episodes):
        pictures: list[np.ndarray] = []
        watch = None if options.video is None else lambda shown, seen=pictures: seen.append(shown.picture())
        seed = options.seed + episode
        scores += play(values, environment, stack, episodes=1, epsilon=options.epsilon, seed=seed, watch=watch)
        if scores[-1] == max(scores):
            best = pictures
    facts = {
        "game": game,
        "mean score": round(float(np.mean(scores)), 2),
        "best score": max(scores),
        "scores": [round(score, 2) for score in scores],
    }
    if options.video is None:
        return RunReport(facts=facts)
    rate = 15 if game in ATARI else 6
    if options.video.suffix == ".gif":
        write_gif(options.video, best, 1000 // rate)
    else:
        write_video(options.video, best, rate)
    return RunReport((options.video,), {**facts, "frames": len(best)})


class _Screens:
    """An Atari game whose observations are the screens of an action, (pooled, H, W), as `act_on_screens` takes them."""

    dtype = np.uint8

    def __init__(self, game: Atari):
        self._game, self.actions, self.picture = game, game.actions, game.picture
        self.shape = game.screens.shape
        self.state, self.set_state = game.state, game.set_state

    def reset(self) -> np.ndarray:
        self._game.reset()
        return self._game.screens

    def step(self, action: int) -> Step:
        return dataclasses.replace(self._game.step(action), observation=self._game.screens)


def _of_artifact(path: Path, environment: Environment) -> tuple[Values, int, Environment]:
    """An exported policy: values of the actions, observations in a state, and the game as the policy sees it."""
    try:
        call, name, shape, actions = _loaded(path)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise DataError(f"{path} cannot be read as an exported policy ({error}).") from error
    values: Values = call
    if name == "screens" and isinstance(environment, Atari):
        environment = _Screens(environment)
        stack = shape[0] // environment.shape[0]
        fits = shape[1:] == [*environment.shape[1:], 3]

        def of_screens(state: np.ndarray) -> np.ndarray:
            gray = state[0].transpose(3, 0, 1, 2).reshape(shape[:3])
            return call(np.repeat(gray[..., None], 3, axis=3))

        values = of_screens
    else:
        stack, fits = shape[-1], name == "state" and list(shape[1:-1]) == list(environment.shape)
    if not fits or actions != len(environment.actions):
        raise UsageError(
            f"expected a policy for observations {environment.shape} and {len(environment.actions)} actions. Received: "
            f"{path}, whose input {name} is {shape}, for {actions} actions. It plays another game."
        )
    return values, stack, environment


def _loaded(path: Path) -> tuple[Values, str, list[int], int]:
    """What runs an artifact: input -> values; the input's name and shape; how many actions there are."""
    if path.suffix == ".tflite":
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(str(path)).get_signature_runner("serving_default")
        ((name, given),) = runner.get_input_details().items()
        actions = runner.get_output_details()["values"]["shape_signature"][-1]
        return (lambda x: runner(**{name: x})["values"]), name, [int(n) for n in given["shape_signature"]], int(actions)
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (only,) = session.get_inputs()
        (values,) = (each for each in session.get_outputs() if each.name == "values")
        return (lambda x: session.run(["values"], {only.name: x})[0]), only.name, only.shape, values.shape[-1]
    import tensorflow as tf

    loaded = tf.saved_model.load(str(path))
    signature = loaded.signatures["serving_default"]
    ((name, spec),) = signature.structured_input_signature[1].items()
    actions = signature.structured_outputs["values"].shape[-1]
    # `loaded` owns the variables.
    return (
        (lambda x: (loaded, signature(**{name: tf.constant(x)}))[1]["values"].numpy()),
        name,
        list(spec.shape),
        actions,
    )
