"""Expectations of activations: over Gaussian pre-activations (`gaussian`)."""
