"""The levels that verdicts keep where none is asked for. Imports nothing, so that the command line can show them."""

ALPHA = 1e-3  # the chance that a run on a correct program refutes anything, before confirmation
CONFIRMATION_ALPHA = 1e-3  # of a false refutation, the chance that fresh draws bear it out
