"""Hypothesis strategies: configs of every kind from their annotations, arrays, and names of files."""

import dataclasses
import math
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np
from annotated_types import BaseMetadata, GroupedMetadata, MultipleOf
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from kerasmodels.config import Config
from kerasmodels.errors import UsageError

TEXTS = st.text(max_size=12)
PATHS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12).map(Path)


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Values that an annotation of a config's field allows."""
    kind, args = get_origin(hint), get_args(hint)
    if kind is Annotated:
        base, bounds = args[0], [bound for bound in args[1:] if isinstance(bound, BaseMetadata | GroupedMetadata)]
        steps = [bound for bound in bounds if isinstance(bound, MultipleOf)]
        plain = [bound for bound in bounds if bound not in steps]
        drawn = st.from_type(Annotated[(base, *plain)]) if plain else values(base)  # type: ignore[valid-type]
        for step in steps:
            drawn = drawn.map(lambda number, step=step: number * step.multiple_of)
        return drawn.filter(math.isfinite) if base is float else drawn
    if kind is Literal:
        return st.sampled_from(args)
    if kind in (Union, types.UnionType):
        return st.one_of(*map(values, args))
    if kind is tuple:
        if args[-1] is ...:
            return st.lists(values(args[0]), max_size=4).map(tuple)
        return st.tuples(*map(values, args))
    simple = {
        bool: st.booleans(),
        int: st.integers(),
        float: st.floats(allow_nan=False, allow_infinity=False),
        str: TEXTS,
        Path: PATHS,
        type(None): st.none(),
    }
    if hint not in simple:
        raise NotImplementedError(f"no strategy for {hint}: add it here")
    return simple[hint]


def configs(starts: Sequence[Config]) -> st.SearchStrategy[Config]:
    """Configs that differ from one of `starts` in some fields, as far as the fields may be combined."""
    hints = get_type_hints(type(starts[0]), include_extras=True)
    fields = [field.name for field in dataclasses.fields(starts[0])]

    @st.composite
    def drawn(draw: st.DrawFn) -> Config:
        config = draw(st.sampled_from(starts))
        changes = {name: draw(values(hints[name])) for name in draw(st.lists(st.sampled_from(fields), unique=True))}
        for some in (changes, *({name: value} for name, value in changes.items())):
            try:
                config = dataclasses.replace(config, **some)
            except UsageError:
                continue  # They contradict the others.
        return config

    return drawn()


ARRAYS = arrays_of.arrays(
    st.one_of(
        arrays_of.boolean_dtypes(),
        arrays_of.integer_dtypes(),
        arrays_of.unsigned_integer_dtypes(),
        arrays_of.floating_dtypes(sizes=(16, 32, 64)),
        arrays_of.complex_number_dtypes(sizes=(64, 128)),
    ),
    arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)
"""Of numbers, in either byte order, some without dimensions and some without values."""


def named_arrays(names: st.SearchStrategy[str], max_size: int = 4) -> st.SearchStrategy[Mapping[str, np.ndarray]]:
    """Some arrays by name."""
    return st.dictionaries(names, ARRAYS, max_size=max_size)
