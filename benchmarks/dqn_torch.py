"""The peers of the benchmark of DQN, workers of `interleaved`; jobs: sb3, and cleanrl, which is a loop as CleanRL's.

CleanRL is no package: its algorithm, network, replay buffer (Stable-Baselines3's) and settings are put together here.
"""

import time
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import stable_baselines3
import torch
from interleaved import Job, Prepared, serve
from stable_baselines3 import DQN
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.env_util import make_atari_env
from stable_baselines3.common.vec_env import VecFrameStack
from torch import nn

gym.register_envs(ale_py)
GAME, WITHOUT_SKIP = "ALE/Pong-v5", {"frameskip": 1, "repeat_action_probability": 0.0, "full_action_space": False}


def prepare(job: Job) -> Prepared:
    torch.set_num_threads(job["threads"])
    return (_sb3 if job["task"] == "sb3" else _cleanrl)(job)


def _sb3(job: Job) -> Prepared:
    game = VecFrameStack(make_atari_env(GAME, n_envs=1, seed=0, env_kwargs=WITHOUT_SKIP), 4)
    model = DQN(
        "CnnPolicy", game, buffer_size=job["replay"], batch_size=32, train_freq=4, gradient_steps=1,
        target_update_interval=1000, learning_starts=job["starts"], exploration_initial_eps=0.1,
        exploration_final_eps=0.1, device="cpu", seed=0,
    )  # fmt: skip
    model.learn(job["starts"] + job["steps"])

    def play() -> int:
        model.learn(job["steps"], reset_num_timesteps=False)
        return model.num_timesteps

    sample = _milliseconds(lambda: model.replay_buffer.sample(32))
    return play, _facts(model.replay_buffer, sample)


def _cleanrl(job: Job) -> Prepared:
    game = gym.make(GAME, **WITHOUT_SKIP)
    game = gym.wrappers.AtariPreprocessing(game, noop_max=30, frame_skip=4, terminal_on_life_loss=True)
    game = gym.wrappers.FrameStackObservation(gym.wrappers.TransformReward(game, np.sign), 4)
    actions = int(game.action_space.n)

    def network() -> Any:
        return nn.Sequential(
            nn.Conv2d(4, 32, 8, stride=4), nn.ReLU(), nn.Conv2d(32, 64, 4, stride=2), nn.ReLU(),
            nn.Conv2d(64, 64, 3, stride=1), nn.ReLU(), nn.Flatten(), nn.Linear(3136, 512), nn.ReLU(),
            nn.Linear(512, actions),
        )  # fmt: skip

    online, target = network(), network()
    target.load_state_dict(online.state_dict())
    optimizer = torch.optim.Adam(online.parameters(), lr=1e-4)
    kept = ReplayBuffer(
        job["replay"], game.observation_space, game.action_space, "cpu", optimize_memory_usage=True,
        handle_timeout_termination=False,
    )  # fmt: skip
    random, now = np.random.default_rng(0), {"state": game.reset(seed=0)[0], "step": 0}

    def learn() -> None:
        drawn = kept.sample(32)
        with torch.no_grad():
            best = target(drawn.next_observations / 255.0).max(dim=1).values
            wanted = drawn.rewards.flatten() + 0.99 * best * (1 - drawn.dones.flatten())
        values = online(drawn.observations / 255.0).gather(1, drawn.actions).squeeze()
        loss = nn.functional.mse_loss(wanted, values)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def play(steps: int = job["steps"]) -> int:
        for _ in range(steps):
            state = now["state"]
            if random.random() < 0.1:
                action = int(random.integers(actions))
            else:
                with torch.no_grad():
                    action = int(online(torch.as_tensor(state[None]) / 255.0).argmax())
            after, reward, ended, cut, _ = game.step(action)
            kept.add(state, after, np.array([action]), np.array([reward]), np.array([ended]), [{}])
            now["state"] = game.reset()[0] if ended or cut else after
            now["step"] += 1
            if now["step"] > job["starts"] and now["step"] % 4 == 0:
                learn()
                if now["step"] % 1000 == 0:
                    target.load_state_dict(online.state_dict())
        return now["step"]

    play(job["starts"])
    return play, _facts(kept, _milliseconds(lambda: kept.sample(32)))


def _facts(kept: Any, sample: float) -> dict[str, Any]:
    size = sum(part.nbytes for part in vars(kept).values() if isinstance(part, np.ndarray))
    versions = {"torch": torch.__version__, "stable-baselines3": stable_baselines3.__version__}
    return {
        "sample_ms": sample,
        "replay_bytes_per_transition": size / kept.buffer_size,
        "versions": {**versions, "gymnasium": gym.__version__, "ale-py": ale_py.__version__},
    }


def _milliseconds(part: Any, calls: int = 20) -> float:
    """CPU time of a call."""
    part()
    began = time.process_time()
    for _ in range(calls):
        part()
    return round(1000 * (time.process_time() - began) / calls, 3)


if __name__ == "__main__":
    serve(prepare)
