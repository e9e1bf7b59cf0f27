"""What is written is what is read: configs as values, JSON, TOML and flags; arrays as weight files and checkpoints."""

import dataclasses
import json
import random
import shlex
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from kerasmodels import registry, storage
from kerasmodels.apps import train
from kerasmodels.apps.command import parse
from kerasmodels.config import Config
from kerasmodels.export import order
from kerasmodels.family import Servable, TensorSpec
from kerasmodels.training import checkpoint
from tests.strategies import configs, named_arrays

# In the suite the same examples every time, and few.
modest = settings(max_examples=25, deadline=None, derandomize=True)


def same(one: Config, other: Config) -> bool:
    """Equal, also in the types of all values: 1, 1.0 and true are not the same in a file."""
    return one == other and repr(one) == repr(other)


@pytest.mark.parametrize("name", registry.names())
def test_configs_as_values_json_and_toml(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    family = registry.family(name)
    file = tmp_path_factory.mktemp(name) / "config.toml"

    @modest
    @given(configs(list(family.variants.values())))
    def check(config: Any) -> None:
        assert same(family.config.from_dict(config.to_dict()), config)
        assert same(family.config.from_dict(json.loads(json.dumps(config.to_dict(), allow_nan=False))), config)
        assert same(family.config.from_dict(tomllib.loads(config.to_toml())), config)
        file.write_text(config.to_toml(), encoding="utf-8", newline="")
        # Files of trainings come on top of a variant: nothing of that may show through.
        for start in (None, config):
            assert same(family.config.from_toml(file, start), config)

    check()


def flags(config: Config, start: Config) -> list[str]:
    """The flags that make of `start` the config."""
    words = []
    for field in dataclasses.fields(config):  # type: ignore[arg-type]
        value, flag = getattr(config, field.name), field.name.replace("_", "-")
        if repr(value) == repr(getattr(start, field.name)):
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, tuple):
            words += [f"--{flag}", *map(str, value)]
        else:
            # Texts may begin with a dash.
            words += [f"--{flag}={value}"] if isinstance(value, str | Path) else [f"--{flag}", str(value)]
    return words


def speakable(value: Any) -> bool:
    """Whether a shell and the parser can tell a word of a list from a flag, and a text from no text."""
    if isinstance(value, tuple):
        return all(speakable(each) and not (isinstance(each, str | Path) and str(each)[:1] == "-") for each in value)
    return not isinstance(value, str | Path) or ("\0" not in str(value) and str(value) != "None")


@pytest.mark.parametrize("name", registry.names())
def test_configs_as_flags(name: str) -> None:
    family = registry.family(name)
    start = family.config()
    options = train.options_of(family) if family.source else family.config
    default: Any = options(**{family.name: start}) if family.source else start

    @settings(modest, max_examples=8)
    @given(configs([start]))
    def check(config: Any) -> None:
        assume(all(speakable(getattr(config, field.name)) for field in dataclasses.fields(config)))
        words = shlex.split(shlex.join(flags(config, start)))
        parsed: Any = parse(options, words, "kerasmodels", "", default=default)
        assert same(getattr(parsed, family.name) if family.source else parsed, config)

    check()


def equal(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    """To the last bit, types and shapes included; a NaN is a NaN."""
    return one.keys() == other.keys() and all(
        a.dtype == other[key].dtype and a.shape == other[key].shape and a.tobytes() == other[key].tobytes()
        for key, a in one.items()
    )


KEYS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8)


@settings(modest, max_examples=60)
@given(named_arrays(KEYS))
def test_weight_files(arrays: Mapping[str, np.ndarray]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        first = storage.save_npz(Path(folder, "first.npz"), arrays)
        assert equal(storage.load_npz(first), arrays)
        # As NumPy reads them, too.
        with np.load(first, allow_pickle=False) as archive:
            assert equal({key: archive[key] for key in archive.files}, arrays)
        columns = {key: np.asfortranarray(value) if value.ndim else value for key, value in arrays.items()}
        assert equal(storage.load_npz(storage.save_npz(Path(folder, "second.npz"), columns)), arrays)
        again = storage.save_npz(Path(folder, "third.npz"), arrays)
        assert storage.sha256(again) == storage.sha256(first)


def test_keys_that_would_be_cut_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"without NUL characters. Received: 'a\\x00b'"):
        storage.save_npz(tmp_path / "w.npz", {"a\0b": np.zeros(2)})
    assert not list(tmp_path.iterdir())


class Kept:
    """A source that keeps arrays between batches."""

    def __init__(self, kept: Mapping[str, np.ndarray]) -> None:
        self.kept = kept

    def batches(self, model: keras.Model, start: int) -> Any:
        raise NotImplementedError("no batches are read here")

    def state(self) -> Mapping[str, np.ndarray]:
        return self.kept

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.kept = state


class Stateful(keras.Model):
    """Weights of given shapes, and a state beside them."""

    def __init__(self, shapes: list[tuple[int, ...]], kept: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self.kept = kept
        for shape in shapes:
            self.add_weight(shape=shape, initializer="random_normal")
        self.adam = keras.optimizers.Adam()
        self.adam.build(self.trainable_variables)

    def training_state(self) -> Mapping[str, np.ndarray]:
        return self.kept

    def set_training_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.kept = state


@settings(modest, max_examples=20)
@given(
    st.lists(array_shapes(min_dims=0, max_dims=4, min_side=1, max_side=3), min_size=1, max_size=3),
    named_arrays(KEYS),
    named_arrays(KEYS),
    st.integers(0, 2**31),
    st.integers(0, 10**7),
)
def test_checkpoints(
    shapes: list[tuple[int, ...]],
    state: Mapping[str, np.ndarray],
    of_source: Mapping[str, np.ndarray],
    seed: int,
    step: int,
) -> None:
    keras.utils.set_random_seed(seed)
    model, source = Stateful(shapes, state), Kept(of_source)
    other, empty = Stateful(shapes, {}), Kept({})
    with tempfile.TemporaryDirectory() as folder:
        saved = checkpoint.read(checkpoint.save(model, source, Path(folder), step, 1.5, {"steps": step}))
    drawn = random.random(), np.random.rand()
    checkpoint.restore(other, empty, saved)
    assert (random.random(), np.random.rand()) == drawn
    assert (saved.step, saved.seconds, saved.about["config"]) == (step, 1.5, {"steps": step})
    variables = [[v.numpy() for v in (*each.variables, *each.adam.variables)] for each in (model, other)]
    assert all(a.tobytes() == b.tobytes() for a, b in zip(*variables, strict=True))
    assert equal(other.kept, state)
    assert equal(empty.kept, of_source)


NAMES = st.sampled_from(["batch", "height", "width", "time"])


@modest
@given(
    st.lists(st.one_of(st.integers(1, 512), NAMES), max_size=4).map(tuple),
    st.fixed_dictionaries({name: st.one_of(st.none(), st.integers(1, 99)) for name in ("batch", "height", "width")}),
)
def test_dimensions_of_tensors(shape: tuple[int | str, ...], dims: dict[str, int | None]) -> None:
    spec = TensorSpec("x", shape, "float32", "any")
    if "time" in shape:
        with pytest.raises(KeyError, match="time"):
            spec.bind(dims)
        return
    bound = spec.bind(dims)
    assert len(bound) == len(shape)
    assert all(b == (d if isinstance(d, int) else dims[d]) for b, d in zip(bound, shape, strict=True))
    assert dataclasses.replace(spec, shape=tuple(b or 1 for b in bound)).bind({}) == tuple(b or 1 for b in bound)


@modest
@given(st.integers(1, 4096), st.integers(1, 4096), st.sampled_from(["{}x{}", "{}X{}"]))
def test_sizes_of_artifacts(height: int, width: int, form: str) -> None:
    """The same size as text, as numbers and by name binds the same dimensions."""
    spec = TensorSpec("image", ("batch", "height", "width", 3), "uint8", "RGB", kind="image")
    servable = Servable(
        call=lambda image: {"image": image},
        model=keras.Sequential(),
        inputs=(spec,),
        outputs=(spec,),
        example=lambda dims, seed: {"image": np.zeros(spec.bind(dims), "uint8")},
        dims={"height": 32, "width": 48},
    )
    sizes = [form.format(height, width), (height, width), {"height": height, "width": width}]
    wanted = {"batch": 1, "height": height, "width": width}
    assert [order.bind(servable, size) for size in sizes] == [(wanted, False)] * 3
    assert order.bind(servable, str(height)) == order.bind(servable, height) == order.bind(servable, (height, height))
    assert spec.bind(order.bind(servable, sizes[0])[0]) == (1, height, width, 3)
    assert order.bind(servable, "dynamic") == ({"batch": 1, **servable.dims}, True)
