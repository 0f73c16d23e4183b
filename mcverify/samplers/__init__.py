"""A user's own sampler of weights against its documented law: draws, statements on them, and a sentence."""
