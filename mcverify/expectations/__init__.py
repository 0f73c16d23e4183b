"""Expectations of activations: over Gaussian pre-activations (`gaussian`), and of normalised ones (`sphere`,
`batch_gaussian`, `layer_norm`)."""
