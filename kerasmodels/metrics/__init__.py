"""Measures that Keras lacks."""

from kerasmodels.metrics.wasserstein import covered_modes, wasserstein

__all__ = ["covered_modes", "wasserstein"]
