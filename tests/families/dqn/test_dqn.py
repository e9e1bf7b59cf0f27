"""DQN: it learns, its replay memory tells the truth, its screens are the emulator's, errors say what to do."""

import dataclasses
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from kerasmodels import export
from kerasmodels.data import environments
from kerasmodels.data.environments import Catch, make_environment, pushed
from kerasmodels.data.replay import ReplayMemory, ReplaySampler
from kerasmodels.errors import DataError, UsageError, WeightsError
from kerasmodels.models import dqn
from kerasmodels.ports.dqn import from_torch
from kerasmodels.tasks.play import PlayOptions, play, play_files
from kerasmodels.training import checkpoint, train
from tests.backbones.test_sources import torch_file
from tests.cases import case_of

TINY = dqn.Config(batch=8, replay=200, learning_starts=40, steps=4)

NO_EMULATOR = "the `rl` extra is not installed"


@pytest.mark.parametrize(
    ("network", "game", "count"),
    [
        ("2013", "breakout", 677_172), ("2013", "pong", 677_686), ("2013", "beam_rider", 678_457),
        ("nature", "breakout", 1_686_180), ("nature", "pong", 1_687_206), ("nature", "seaquest", 1_693_362),
    ],
)  # fmt: skip
def test_numbers_of_parameters(network, game, count):
    model = dqn.DQN(dqn.Config(game=game, network=network, stack=4, target_every=0))
    assert model.count_params() == count


def test_the_variants_of_the_papers():
    of_2013, nature = (dqn.DQN(dqn.VARIANTS[name]) for name in ("2013", "nature"))
    assert of_2013.target is None
    assert of_2013.count_params() == 677_172
    assert nature.count_params() == 2 * nature.network.count_params() == 2 * 1_686_180
    assert (of_2013.config.loss, nature.config.loss) == ("squared", "huber")


def test_dueling_values_are_the_level_and_centered_advantages():
    model = dqn.DQN(dataclasses.replace(TINY, dueling=True))
    frames = np.random.default_rng(0).integers(0, 256, (3, 10, 10, 1)).astype("uint8")
    parts = keras.Model(model.network.input, [model.network.get_layer(n).output for n in ("values", "level")])
    advantages, level = (np.asarray(part) for part in parts(frames))
    expected = level + advantages - advantages.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(model.values(frames), expected, atol=1e-6)


# --- learning ---------------------------------------------------------------------------------------------------------


def _one_step(config, next_best):
    """The loss of the first step, beside what it must be by the formula, from the transitions that are drawn."""
    keras.utils.set_random_seed(0)
    model = dqn.FAMILY.build(config)
    source = dqn.Playing(config)
    rows, told = next(iter(source.batches(model, 0)))
    count = int(told["count"][0])
    seed = model.seed_generator.state.numpy()
    drawn = {k: np.asarray(v) for k, v in model.sampler(rows, count, config.batch, model.seed_generator).items()}
    before, after = model.values(drawn["states"]), model.values(drawn["next_states"])
    model.seed_generator.state.assign(seed)
    logs = model.train_step((rows, told))
    target = drawn["rewards"] + drawn["discounts"] * next_best(after)
    return float(logs["loss"]), target - before[np.arange(config.batch), drawn["actions"]]


def test_the_loss_is_that_of_the_paper():
    config = dataclasses.replace(TINY, target_every=0, loss="squared")
    loss, errors = _one_step(config, lambda values: values.max(axis=1))
    assert loss == pytest.approx(np.mean(errors**2), rel=1e-5)


def test_huber_is_the_clipped_error():
    config = dataclasses.replace(TINY, discount=1.0)
    loss, errors = _one_step(config, lambda values: values.max(axis=1))
    small = np.minimum(np.abs(errors), 1)
    assert loss == pytest.approx(np.mean(small * (np.abs(errors) - 0.5 * small)), rel=1e-5)


def test_the_target_network_is_a_copy_of_earlier_weights():
    config = dataclasses.replace(TINY, target_every=3)
    model = dqn.FAMILY.build(config)
    weights = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            weights.append([[np.array(v) for v in n.variables] for n in (model.network, model.target)])

    first = [np.array(v) for v in model.network.variables]
    model.fit(dqn.FAMILY.batches(config, model), steps_per_epoch=5, verbose=0, callbacks=[Watch()])
    for step, source in enumerate([first] * 3 + [weights[2][0]] * 2):
        for mine, theirs in zip(weights[step][1], source, strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_double_takes_the_network_s_choice_and_the_target_s_value():
    model = dqn.DQN(dataclasses.replace(TINY, double=True))
    states = np.random.default_rng(0).integers(0, 256, (64, 10, 10, 1)).astype("uint8")
    chosen = np.asarray(model.network(states)).argmax(axis=1)
    expected = np.asarray(model.target(states))[np.arange(64), chosen]
    assert np.any(chosen != np.asarray(model.target(states)).argmax(axis=1))
    np.testing.assert_allclose(model._next_values(states), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param(
            {"prioritized": True, "return_steps": 3, "double": True, "dueling": True},
            marks=pytest.mark.slow,
            id="options",
        ),
    ],
)
def test_it_learns_catch(changes):
    """Balls that are caught, of a hundred: from one of four to nearly all."""
    config = dataclasses.replace(
        dqn.VARIANTS["quick"], learning_rate=2e-3, epsilon_steps=1200, target_every=100, **changes
    )
    keras.utils.set_random_seed(0)
    model = dqn.FAMILY.build(config)
    model.fit(dqn.FAMILY.batches(config, model), steps_per_epoch=2000, verbose=0)
    caught = np.mean(np.array(play(model.values, Catch(7), 1, episodes=100, epsilon=0.0)) > 0)
    assert caught >= 0.9


def test_epsilon_falls_after_learning_begins():
    config = dqn.Config(learning_starts=100, epsilon_first=1.0, epsilon_last=0.1, epsilon_steps=900)
    assert [round(config.epsilon(played), 3) for played in (0, 100, 550, 1000, 9999)] == [1.0, 1.0, 0.55, 0.1, 0.1]


# --- replay memory ----------------------------------------------------------------------------------------------------


class Told:
    """Episodes whose observations are their numbers, so that stacks can be read; every third is cut off."""

    def __init__(self, capacity, **sampler):
        self.memory = ReplayMemory(capacity, (2, 2))
        self.sampler = ReplaySampler(capacity, (2, 2), **sampler)
        self.seed = keras.random.SeedGenerator(0)
        self.transitions = {}
        self.random = np.random.default_rng(0)

    def play(self, episodes, stack):
        number = self.memory.count
        for episode in range(episodes):
            length = int(self.random.integers(1, 9))
            seen = [number + i for i in range(length + 1)]
            cut = episode % 3 == 2
            for i in range(length):
                end = i == length - 1 and not cut
                self.memory.append(np.full((2, 2), seen[i] % 256, "uint8"), i, seen[i] % 7, float(seen[i]), end)
                before = [seen[max(i - k, 0)] for k in range(stack)[::-1]]
                after = [seen[max(i + 1 - k, 0)] for k in range(stack)[::-1]]
                self.transitions[seen[i]] = (before, after, end)
            number += length
            if cut:
                self.memory.append(np.full((2, 2), seen[length] % 256, "uint8"), length, 0, 0.0, False, weight=0)
                number += 1

    def draw(self, batch):
        drawn = self.sampler(self.memory.rows, self.memory.count, batch, self.seed)
        return {name: np.asarray(value) for name, value in drawn.items()}


@pytest.mark.parametrize("episodes", [6, 60], ids=["not full", "overwritten"])
@pytest.mark.parametrize("prioritized", [False, True])
def test_stacks_never_cross_episodes(episodes, prioritized):
    told = Told(50, stack=3, prioritized=prioritized)
    told.play(episodes, 3)
    drawn = told.draw(500)
    kept = drawn["weights"] > 0
    assert kept.mean() > 0.8
    assert kept.all() or not prioritized
    for i in np.flatnonzero(kept):
        number = int(drawn["rewards"][i])
        before, after, end = told.transitions[number]
        assert number >= told.memory.count - 50
        assert drawn["states"][i, 0, 0].tolist() == [n % 256 for n in before]
        assert drawn["actions"][i] == number % 7
        assert drawn["discounts"][i] == pytest.approx(0.0 if end else 0.99)
        if not end:
            assert drawn["next_states"][i, 1, 1].tolist() == [n % 256 for n in after]


def test_all_that_is_kept_is_drawn_alike():
    told = Told(40, stack=2)
    told.play(40, 2)
    drawn = told.draw(20000)
    rewards = drawn["rewards"][drawn["weights"] > 0].astype(int)
    usable = [n for n in told.transitions if told.memory.count - 40 + 1 <= n <= told.memory.count - 2]
    numbers, counts = np.unique(rewards, return_counts=True)
    assert numbers.tolist() == usable
    assert counts.min() > 0.8 * counts.mean()


def test_returns_of_several_steps():
    """Rewards 1, 2, 4 and so on, an episode of five steps that ends, and one that is cut off after two."""
    memory, sampler = ReplayMemory(20, (1,), np.float32), ReplaySampler(20, (1,), stack=1, steps=3, discount=0.5)
    for i in range(5):
        memory.append(np.array([i]), i, 0, 2.0**i, i == 4)
    for i in range(2):
        memory.append(np.array([10 + i]), i, 1, 1.0, False)
    memory.append(np.array([12]), 2, 0, 0.0, False, weight=0)
    for i in range(3):
        memory.append(np.array([20 + i]), i, 2, 0.0, False)
    drawn = sampler(memory.rows, memory.count, 400, keras.random.SeedGenerator(0))
    states, after = (np.asarray(drawn[name])[:, 0, 0].astype(int) for name in ("states", "next_states"))
    rewards, discounts, weights = (np.asarray(drawn[name]) for name in ("rewards", "discounts", "weights"))
    found = {}
    for i, state in enumerate(states):
        found[int(state)] = (rewards[i], discounts[i], int(after[i]) if discounts[i] else None, weights[i])
    assert found[0] == (1 + 0.5 * 2 + 0.25 * 4, 0.125, 3, 1)
    assert found[3] == (8 + 0.5 * 16, 0, None, 1)
    assert found[4] == (16, 0, None, 1)
    assert found[10] == (1.5, 0.25, 12, 1)
    assert found[11] == (1, 0.5, 12, 1)
    assert found[12][3] == 0


def test_what_was_predicted_badly_is_drawn_more_often():
    memory = ReplayMemory(10, (1,), np.float32)
    sampler = ReplaySampler(10, (1,), stack=1, prioritized=True)
    for i in range(9):
        memory.append(np.array([i]), i, 0, float(i), False)
    seed = keras.random.SeedGenerator(0)
    sampler(memory.rows, memory.count, 4, seed)
    sampler.prioritize(np.arange(8), np.array([1.0] * 7 + [4.0], "float32"))  # of the ninth, no next state is known
    drawn = sampler(memory.rows, memory.count, 4000, seed)
    rewards, weights = np.asarray(drawn["rewards"]), np.asarray(drawn["weights"])
    assert set(rewards.tolist()) == set(range(8))
    assert np.mean(rewards == 7) / np.mean(rewards < 7) == pytest.approx(4**0.6 / 7, rel=0.15)
    np.testing.assert_allclose(weights, np.where(rewards == 7, 4**-0.3, 1), rtol=1e-4)


def test_a_frame_is_kept_once_and_adding_costs_the_same(tmp_path):
    memory = ReplayMemory(1000, (84, 84), path=tmp_path / "replay")
    assert 7056 <= memory.bytes_per_transition <= 7056 + 16
    assert (tmp_path / "replay").stat().st_size == 7056 * 1000
    frame = np.full((84, 84), 9, "uint8")
    for age in range(1500):
        memory.append(frame, age, 1, 0.5, False)
    assert memory.rows["observations"].numpy().min() == 9
    assert (tmp_path / "replay").read_bytes()[:5] == bytes([9] * 5)
    other = ReplayMemory(1000, (84, 84))
    other.set_state(memory.state())
    assert other.count == 1500
    for name, array in memory.rows.items():
        np.testing.assert_array_equal(other.rows[name].numpy(), array.numpy())


def test_more_than_fits_is_refused_with_what_is_needed():
    with pytest.raises(UsageError, match=r"need 7,?\d*\.\d\d GB, and .* GB are free.*replay=1000000000.*--replay-file"):
        ReplayMemory(1_000_000_000, (84, 84))
    with pytest.raises(UsageError, match="a disk with more room"):
        ReplayMemory(10**12, (84, 84), path=Path("/tmp/never"))


# --- games ------------------------------------------------------------------------------------------------------------


def test_catch():
    game = Catch(3)
    frame = game.reset()
    assert frame.sum() == 2 * 255
    column = int(frame[0].argmax())
    total = 0.0
    for _ in range(9):
        step = game.step(1 + int(np.sign(column - int(np.flatnonzero(frame[9])[-1]))) if column != 5 else 1)
        frame = step.observation
        total += step.reward
    assert step.terminated
    assert total == 1.0


@pytest.mark.parametrize("game", ["catch", "CartPole-v1", "breakout"])
def test_a_game_goes_on_where_it_was_saved(game):
    atari = {"sticky": 0.25, "noops": 5} if game == "breakout" else {}
    first, second = make_environment(game, 1, **atari), make_environment(game, 1, **atari)
    random = np.random.default_rng(0)
    actions = random.integers(len(first.actions), size=400)
    first.reset()
    for action in actions[:150]:
        step = first.step(int(action))
        if step.terminated or step.truncated:
            first.reset()
    second.set_state({name: value.copy() for name, value in first.state().items()})
    for action in actions[150:]:
        steps = [each.step(int(action)) for each in (first, second)]
        np.testing.assert_array_equal(steps[0].observation, steps[1].observation)
        assert [steps[0].reward, steps[0].terminated] == [steps[1].reward, steps[1].terminated]
        if steps[0].terminated or steps[0].truncated:
            np.testing.assert_array_equal(first.reset(), second.reset())


def test_the_emulator_s_games_are_those_of_the_table():
    ale_py = pytest.importorskip("ale_py", reason=NO_EMULATOR)
    emulator = ale_py.ALEInterface()
    supported = {g for g in ale_py.roms.get_all_rom_ids() if emulator.isSupportedROM(ale_py.roms.get_rom_path(g))}
    assert supported == set(environments.ATARI)
    for game in ("pong", "breakout", "seaquest", "freeway", "klax"):
        made = make_environment(game)
        assert len(made.actions) == environments.ATARI[game]
        assert made.screens.shape[1:] == environments.SCREENS.get(game, (210, 160))
    assert len(make_environment("pong", all_actions=True).actions) == 18


@pytest.mark.parametrize(("game", "count"), [("pong", 400), ("breakout", 400), ("seaquest", 400)])
def test_frames_are_the_vector_environment_s(game, count):
    """Byte for byte, rewards and ends too, but for the last frame of an episode, of which nothing is learned."""
    vector = pytest.importorskip("ale_py.vector_env", reason=NO_EMULATOR)
    theirs = vector.AtariVectorEnv(
        game, 1, noop_max=0, use_fire_reset=False, reward_clipping=False, repeat_action_probability=0.0
    )
    ours = make_environment(game, 0, noops=0)
    frames, _ = theirs.reset(seed=0)
    state = pushed(None, ours.reset(), 4)
    np.testing.assert_array_equal(frames[0, 3], state[..., 3])
    random, over, since = np.random.default_rng(0), False, 0
    for _ in range(count):
        action = int(random.integers(len(ours.actions)))
        frames, rewards, terminated, truncated, _ = theirs.step(np.array([action]))
        if over:  # theirs begins the next episode with this call
            state, over, since = pushed(None, ours.reset(), 4), False, 0
        else:
            step = ours.step(action)
            state, over, since = pushed(state, step.observation, 4), step.terminated, since + 1
            assert (rewards[0], bool(terminated[0]), bool(truncated[0])) == (step.reward, over, False)
        if not over:
            seen = min(since + 1, 4)  # theirs has zeros before the first frame
            np.testing.assert_array_equal(frames[0, 4 - seen :], np.moveaxis(state, 2, 0)[4 - seen :])


def test_preprocessing_is_what_the_options_say():
    pytest.importorskip("ale_py", reason=NO_EMULATOR)
    held = make_environment("pong", 0, noops=0, frame_skip=4, time_limit=40)
    single = make_environment("pong", 0, noops=0, frame_skip=1, pooled=1)
    np.testing.assert_array_equal(held.reset(), single.reset())
    for number in range(1, 11):
        screens = [(single.step(2), single.screens[0])[1] for _ in range(4)][2:]
        step = held.step(2)
        np.testing.assert_array_equal(held.screens, np.stack(screens))
        np.testing.assert_array_equal(step.observation, environments.observed(np.maximum(*screens)))
        assert step.truncated == (number == 10)
    cropped = make_environment("pong", 0, noops=0, resize="crop")
    frame = cropped.reset()
    np.testing.assert_array_equal(frame, environments.area_resized(cropped.screens[0], 110, 84)[18:102])
    later = [make_environment("seaquest", seed, noops=30) for seed in range(5)]
    assert len({game.reset().tobytes() + game.step(0).observation.tobytes() for game in later}) > 1


def test_a_lost_life_ends_what_is_learned_and_not_the_game(tmp_path):
    pytest.importorskip("ale_py", reason=NO_EMULATOR)
    config = dqn.Config(game="breakout", stack=4, replay=600, learning_starts=500, life_loss=True, clip_rewards=True)
    source = dqn.Playing(config)
    model = dqn.DQN(config)
    next(iter(source.batches(model, 0)))
    state = source.state()
    ends, ages = state["replay/ends"], state["replay/ages"]
    lost = np.flatnonzero(ends)
    goes_on = [i for i in lost if i + 1 < len(ages) and ages[i + 1] > 0]
    over = [i for i in lost if i + 1 < len(ages) and ages[i + 1] == 0]
    assert len(goes_on) >= 4
    assert over
    assert set(state["replay/rewards"]) <= {-1.0, 0.0, 1.0}


def test_a_training_on_the_emulator_goes_on_with_equal_bits(tmp_path):
    """Four steps are two, SIGTERM's way out, and two more: weights, emulator, replay memory, scores."""
    pytest.importorskip("ale_py", reason=NO_EMULATOR)
    config = case_of("dqn:atari").config

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 1:
                raise KeyboardInterrupt

    options = {"save_every": 2, "preview_every": 0, "progress": False}
    train(dqn.FAMILY, config, tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        train(dqn.FAMILY, config, tmp_path / "resumed", callbacks=[Stop()], **{**options, "save_every": 1})
    keras.utils.set_random_seed(99)
    train(dqn.FAMILY, None, tmp_path / "resumed", resume=True, progress=False)
    ours, theirs = (checkpoint.read(tmp_path / f / "checkpoints/step-000004.npz") for f in ("resumed", "whole"))
    assert {"source/game/emulator", "source/replay/observations", "source/state"} <= theirs.arrays.keys()
    for key, value in theirs.arrays.items():
        np.testing.assert_array_equal(ours.arrays[key], value, err_msg=key)


# --- used -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dqn") / "run"
    train(dqn.FAMILY, TINY, folder, preview_every=0, progress=False)
    return folder


@pytest.mark.parametrize("form", ["litert", "onnx", "saved_model"])
def test_an_exported_file_plays_alone(run, tmp_path, form):
    report = export.export(run, tmp_path, formats=[form])
    path = tmp_path / report.artifacts[0].path
    asked = {"episodes": 3, "epsilon": 0.0}
    alone = play_files(PlayOptions(artifact=path, game="catch", **asked))
    assert alone.facts == play_files(PlayOptions(run=run, **asked)).facts
    with pytest.raises(UsageError, match=r"a policy for observations \(84, 84\) and 6 actions.*another game"):
        play_files(PlayOptions(artifact=path, game="pong", **asked))


def test_a_file_with_the_preprocessing_inside_plays_the_same(tmp_path):
    pytest.importorskip("ale_py", reason=NO_EMULATOR)
    config = dqn.Config(game="pong", stack=4)
    keras.utils.set_random_seed(0)
    model = dqn.DQN(config)
    servable = dqn.FAMILY.servables(model)["act_on_screens"]
    report = export.export_servable(servable, "act_on_screens", tmp_path, formats=["litert"])
    game = make_environment("pong", 0)
    state = pushed(None, game.reset(), 4)
    screens = [game.screens] * 4
    for number in range(60):
        both = np.concatenate(screens)[..., None].repeat(3, 3)
        np.testing.assert_allclose(servable.call(screens=both)["values"], model.values(state[None]), atol=1e-3)
        step = game.step(number % 6)
        state, screens = pushed(state, step.observation, 4), [*screens[1:], game.screens]
    alone = PlayOptions(artifact=tmp_path / report.artifacts[0].path, game="pong", episodes=1, epsilon=0.9)
    assert -21 <= play_files(alone).facts["mean score"] <= 21


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"game": "pongg"}, "unknown game 'pongg'. Did you mean 'pong'"),
        ({"game": "combat"}, "unknown game 'combat'"),
        ({"game": "Pendulum-v1"}, r"expected discrete actions.*Received: Pendulum-v1 with Box"),
        ({"game": "Nothing-v9"}, "expected an environment of Gymnasium. Received: 'Nothing-v9'"),
        ({"network": "nature"}, r"frames of 84 x 84 for network=nature. Received: \(10, 10\)"),
        ({"game": "CartPole-v1", "network": "2013"}, r"network=dense for observations \(4,\)"),
        ({"double": True, "target_every": 0}, "a target network"),
        ({"batch": 64, "learning_starts": 63}, "learning_starts >= the batch of 64"),
        ({"replay": 2}, "replay and learning_starts > 3"),
        ({"epsilon_last": 1.5}, "epsilon_last"),
    ],
)
def test_what_cannot_be_learned(config, message):
    with pytest.raises(UsageError, match=message):
        dqn.DQN(dqn.Config(**config))


def test_a_network_plays_its_own_game_only(run):
    with pytest.raises(UsageError, match=r"the game that the network has learned, catch.*Received: game='pong'"):
        play_files(PlayOptions(run=run, game="pong"))
    with pytest.raises(UsageError, match="--game with --artifact"):
        PlayOptions(artifact=Path("a.tflite"))
    with pytest.raises(UsageError, match="a video's name"):
        PlayOptions(run=run, video=Path("a.txt"))


def test_without_the_extra_the_command_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)
    with pytest.raises(DataError, match=r"pip install 'kerasmodels\[rl\]'.*ale_py"):
        make_environment("pong")


# --- networks that PyTorch has trained --------------------------------------------------------------------------------

SB3 = {
    "conv1": "q_net.features_extractor.cnn.0", "conv2": "q_net.features_extractor.cnn.2",
    "conv3": "q_net.features_extractor.cnn.4", "hidden": "q_net.features_extractor.linear.0", "values": "q_net.q_net.0",
}  # fmt: skip
CLEANRL = dict(zip(SB3, ("network.0", "network.2", "network.4", "network.7", "network.9"), strict=True))
SHAPES = {"conv1": (32, 4, 8, 8), "conv2": (64, 32, 4, 4), "conv3": (64, 64, 3, 3), "hidden": (512, 3136)}


def _as_torch(frames, weights):
    """Values of frames (N, 4, 84, 84), as PyTorch computes them: channels first, flattened as they are."""
    x = frames / 255.0
    for name, stride in (("conv1", 4), ("conv2", 2), ("conv3", 1)):
        kernel, bias = weights[name]
        size = kernel.shape[-1]
        windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(2, 3))[:, :, ::stride, ::stride]
        x = np.maximum(np.einsum("ncyxhw,ochw->noyx", windows, kernel, optimize=True) + bias[:, None, None], 0)
    for name in ("hidden", "values"):
        kernel, bias = weights[name]
        x = x.reshape(len(x), -1) @ kernel.T + bias
        x = np.maximum(x, 0) if name == "hidden" else x
    return x


@pytest.mark.parametrize(
    ("names", "zipped"), [(SB3, True), (SB3, False), (CLEANRL, False)], ids=["zip", "pth", "cleanrl"]
)
def test_networks_of_sb3_and_cleanrl(names, zipped, tmp_path):
    random = np.random.default_rng(0)
    shapes = {**SHAPES, "values": (6, 512)}
    weights = {
        layer: (random.normal(0, 1.5 / np.sqrt(np.prod(shape[1:])), shape), random.normal(0, 0.1, shape[0]))
        for layer, shape in shapes.items()
    }
    state = {
        f"{names[n]}.{part}": a for n, pair in weights.items() for part, a in zip(("weight", "bias"), pair, strict=True)
    }
    content = torch_file({**state, **({"q_net_target.x": np.zeros(1)} if names is SB3 else {})})
    path = tmp_path / ("model.zip" if zipped else "policy.pth")
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("policy.pth", content)
            archive.writestr("data", "{}")
    else:
        path.write_bytes(content)
    model = from_torch(path, "pong")
    frames = random.integers(0, 256, (20, 84, 84, 4)).astype("uint8")
    expected = _as_torch(frames.transpose(0, 3, 1, 2).astype("float64"), weights)
    np.testing.assert_allclose(model.values(frames), expected, atol=1e-4)
    assert (model.values(frames).argmax(axis=1) == expected.argmax(axis=1)).all()
    with pytest.raises(WeightsError, match="expected the 4 actions of breakout"):
        from_torch(path, "breakout")


def test_other_files_of_pytorch_are_refused(tmp_path):
    (tmp_path / "other.pth").write_bytes(torch_file({"linear.weight": np.zeros((2, 2))}))
    with pytest.raises(WeightsError, match="Nature's network of Stable-Baselines3 or CleanRL"):
        from_torch(tmp_path / "other.pth", "pong")
    with zipfile.ZipFile(tmp_path / "torn.zip", "w") as archive:
        archive.writestr("policy.pth", b"nothing")
    with pytest.raises(WeightsError):
        from_torch(tmp_path / "torn.zip", "pong")


def test_several_devices_are_refused():
    assert "one game" in dqn.DQN.one_device
