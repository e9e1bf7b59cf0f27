"""What is written is what is read: configs as values, JSON, TOML and flags; arrays as weight files and checkpoints."""

import dataclasses
import json
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings

from kerasmodels import registry
from kerasmodels.apps import train
from kerasmodels.apps.command import parse
from kerasmodels.config import Config
from tests.strategies import configs

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
