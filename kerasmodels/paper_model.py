"""`PaperModel`: what every model here is besides its algorithm."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import keras
import numpy as np
import tensorflow as tf

from kerasmodels import presets, runs
from kerasmodels.config import Config, TrainingConfig
from kerasmodels.errors import UsageError, unknown_name
from kerasmodels.family import nothing_to_train
from kerasmodels.layers.formats import channels_last
from kerasmodels.metrics import TermMean
from kerasmodels.training import devices


class PaperModel(keras.Model):
    """The networks of a paper, the config they were made with, and what their training needs besides the algorithm.

    A subclass names its `Config`, its `family_name` and its `networks`, and has a `train_step`; where several networks
    learn by optimizers of their own, also `trained_by`, and the paper's optimizers as `default_optimizer`. A step calls
    `minimize` with the loss of each optimizer, `report` with what `fit` is to show, and returns `reported()`. One
    that Keras' own `train_step` trains has a `default_loss` or `compute_loss` instead, and `loss_terms` without "loss".
    Where there is nothing to train (its `Config` is no `TrainingConfig`), `call` is all it has, and `networks` may be
    empty.

    Args:
        config: the class's `Config`, its values as a dict, or None for the paper's.
        dtype: Keras' dtype policy of the networks, e.g. "mixed_bfloat16"; their weights are float32 all the same.
        name: Keras' name of the model.
        **networks: a network of one's own instead of the one that `config` describes, by its name in `networks`. It
            keeps its dtype policy.

    Attributes:
        optimizers: the optimizers by the name of their group, once compiled. `optimizer` is the first of them.

    Raises:
        UsageError: a value out of range, or a network of an unknown name.
    """

    Config: ClassVar[type[Config]]
    config: Any
    family_name: ClassVar[str]
    one_device: ClassVar[str] = ""
    """Why several devices cannot share a batch of the training; empty if they can."""
    networks: ClassVar[Mapping[str, Callable[[Any], keras.Layer | None]]] = {}
    """Attribute's name -> (config) -> network, or a layer; None where the config has no such network."""
    trained_by: ClassVar[Mapping[str, Sequence[str]]] = {}
    """Optimizer group -> names of the networks that it trains; left out, one group "all" trains all of them."""

    def __init__(
        self, config: Any = None, *, dtype: Any = None, name: str | None = None, **networks: keras.Layer
    ) -> None:
        super().__init__(name=name or self.family_name, dtype=dtype)
        self.config = config if isinstance(config, self.Config) else self.Config.from_dict(config or {})
        for given in networks:
            if given not in self.networks:
                raise unknown_name(f"network of {type(self).__name__}", given, self.networks)
        self._given = tuple(networks)
        with dtype_policy(self.dtype_policy), channels_last():
            for label, build in self.networks.items():
                setattr(self, label, networks[label] if label in networks else build(self.config))
        self._terms: dict[str, TermMean] = {}
        if isinstance(self.config, TrainingConfig):
            self.seed_generator = keras.random.SeedGenerator(self.config.seed, name="seed_generator")
            self._terms = {term: TermMean(name=term) for term in self.loss_terms()}
        self.optimizers: dict[str, keras.optimizers.Optimizer] = {}
        self.built = True

    # --- what a subclass says ---

    def loss_terms(self) -> Sequence[str]:
        """Names of what `fit` reports, "loss" first. Keras' own `train_step` reports the loss by itself."""
        return ("loss",)

    def optimizer_groups(self) -> dict[str, list[keras.Variable]]:
        """The variables that each optimizer trains, by the group's name: those of the networks in `trained_by`."""
        if not self.trained_by:
            return {"all": self.trainable_variables}
        networks = {group: [getattr(self, name) for name in names] for group, names in self.trained_by.items()}
        return {
            group: [variable for network in several if network is not None for variable in network.trainable_variables]
            for group, several in networks.items()
        }

    def default_optimizer(self, group: str) -> keras.optimizers.Optimizer:
        """The paper's optimizer of a group."""
        return keras.optimizers.Adam(self.config.learning_rate)

    def default_loss(self) -> Any:
        """The paper's loss of (truth, prediction), for Keras' own `train_step`; None where the step computes it."""
        return None

    # --- training ---

    def compile(self, optimizer: Any = None, loss: Any = None, **kwargs: Any) -> None:
        """Compile with the paper's optimizers and loss, or others.

        Args:
            optimizer: None for the paper's; one of Keras' names or a config of one, made anew for each group; or a dict
                with an optimizer for each group of `optimizer_groups()`.
            loss: None for the paper's; else as Keras takes it, for models that Keras' own `train_step` trains.
            **kwargs: see `keras.Model.compile`. XLA makes convolutions slower on CPUs, so `jit_compile` is False.

        Raises:
            UsageError: one optimizer object for several groups, other groups than the model's, or nothing to train.
        """
        if not isinstance(self.config, TrainingConfig):
            raise nothing_to_train(self.family_name)
        devices.check_model(self)
        groups = self.optimizer_groups()
        if isinstance(optimizer, Mapping) and not {"class_name", "config"} <= optimizer.keys():
            made = {group: keras.optimizers.get(entry) for group, entry in optimizer.items()}
        elif isinstance(optimizer, keras.optimizers.Optimizer) and len(groups) == 1:
            made = dict.fromkeys(groups, optimizer)
        else:
            made = {
                g: self.default_optimizer(g) if optimizer is None else keras.optimizers.get(optimizer) for g in groups
            }
        if made.keys() != groups.keys() or len({id(each) for each in made.values()}) < len(made):
            raise UsageError(
                f"expected an optimizer for each of {', '.join(groups)}, in a dict, or the name of one. "
                f"Received: {optimizer!r}."
            )
        loss = self.default_loss() if loss is None else loss
        super().compile(optimizer=next(iter(made.values())), loss=loss, **{"jit_compile": False, **kwargs})
        self.optimizers = {group: made[group] for group in groups}
        for group, variables in groups.items():
            self.optimizers[group].build(variables)

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As `keras.Model.fit`. A `tf.data.Dataset` is taken in its own order, of which Keras would warn."""
        if isinstance(x, tf.data.Dataset) and len(args) < 8:
            kwargs.setdefault("shuffle", False)
        return super().fit(x, *args, **kwargs)

    def train_step(self, data: Any) -> dict[str, Any]:
        """Keras' own step; that of a paper with a step of its own takes its place."""
        return super().train_step(devices.not_empty(data))

    def unpacked(self, data: Any) -> tuple[Any, Any, Any]:
        """What `fit` hands to `train_step`, as inputs, targets and weights; the last two are None if there are none."""
        return keras.utils.unpack_x_y_sample_weight(devices.not_empty(data))

    def minimize(self, group: str, loss: Any, tape: tf.GradientTape) -> None:
        """One update of a group's variables, down the gradient of a loss that `tape` has seen."""
        variables = self.optimizer_groups()[group]
        if variables:
            gradients = [devices.scaled(gradient) for gradient in tape.gradient(loss, variables)]
            self.optimizers[group].apply(gradients, variables)

    def report(self, **terms: Any) -> None:
        """Add values of this step to the means that `fit` shows."""
        for name, value in terms.items():
            self._terms[name].update_state(value)

    def reported(self) -> dict[str, Any]:
        """The means so far, for `train_step` to return."""
        return {name: mean.result() for name, mean in self._terms.items()}

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self._terms.values()) if "loss" in self._terms else super().metrics

    def training_state(self) -> dict[str, np.ndarray]:
        """What decides the next step besides variables, optimizers and random states, such as a pool of pictures."""
        return {}

    def set_training_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Put `training_state()` back."""

    # --- weights ---

    def initialize(self) -> None:
        """Take over the weights that the config names for a training to begin with; without any, keep the random ones.

        Raises:
            UsageError: no such thing.
            WeightsError: they are of another network, or cannot be had.
        """
        if self.config.start_from is not None:
            self.start_from(self.config.start_from)

    def start_from(self, source: str) -> None:
        """Take over the weights of a run folder or a preset, given as in `Config.start_from`.

        Raises:
            UsageError: no such thing.
            WeightsError: they are of another network.
        """
        presets.find(source).assign_to(self)

    @classmethod
    def from_preset(cls, source: str | Path) -> Self:
        """A trained model: a shipped preset by its name, or a run folder of `kerasmodels train`.

        Raises:
            UsageError: neither.
            WeightsError: the weights are missing or damaged.
        """
        name = str(source)
        if name not in presets.presets(cls.family_name) and Path(source).is_dir():
            trained = runs.RunFolder(Path(source)).trained()
        else:
            trained = presets.preset(cls.family_name, name)
        model = trained.load()
        if not isinstance(model, cls):
            raise UsageError(f"expected weights of {cls.__name__}. Received: {name!r}, of {type(model).__name__}.")
        return model

    def in_float32(self) -> Self:
        """A model with the same weights that computes in float32; the model itself if it does so already.

        Export serves it: what a training computed in is nothing that leaves the building.
        """
        if {layer.compute_dtype for layer in self._flatten_layers()} == {"float32"}:
            return self
        model = type(self).from_config(_in_float32({**self.get_config(), "dtype": "float32"}))
        for mine, theirs in zip(model.weights, self.weights, strict=True):
            mine.assign(theirs)
        return model

    def get_compile_config(self) -> dict[str, Any] | None:
        # Several optimizers are more than Keras restores: what is loaded can be used, or compiled anew.
        return None

    def get_config(self) -> dict[str, Any]:
        given = {label: keras.saving.serialize_keras_object(getattr(self, label)) for label in self._given}
        return {"name": self.name, "dtype": self.dtype_policy.name, "config": self.config.to_dict(), **given}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> Self:
        networks = {
            label: keras.saving.deserialize_keras_object(config[label]) for label in cls.networks if label in config
        }
        return cls(**{**config, **networks})


def _in_float32(config: Any) -> Any:
    """A Keras config, of whatever depth, whose dtype policies are float32."""
    if isinstance(config, Mapping):
        if config.get("class_name") == "DTypePolicy":
            return {**config, "config": {"name": "float32"}}
        return {key: _in_float32(value) for key, value in config.items()}
    return [_in_float32(each) for each in config] if isinstance(config, list | tuple) else config


@contextmanager
def dtype_policy(policy: Any) -> Iterator[None]:
    """Layers made in the block have this dtype policy, unless they are given one."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
