"""Pictures of 0-255 as networks take them, and back."""

from typing import Any

from keras import ops


def to_unit(pictures: Any) -> Any:
    """0-255 of any dtype -> -1 to 1, float32."""
    return ops.cast(pictures, "float32") / 127.5 - 1.0


def to_rgb(pictures: Any) -> Any:
    """-1 to 1 -> 0-255, clipped."""
    return ops.clip(127.5 + 127.5 * pictures, 0.0, 255.0)


def to_levels(pictures: Any) -> Any:
    """0-1 -> uint8, 0-255, rounded and clipped."""
    return ops.cast(ops.round(ops.clip(pictures * 255.0, 0.0, 255.0)), "uint8")
