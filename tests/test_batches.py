"""What is refused of batches too small, or too much alike, for a mean or a standard error of gradients to exist."""

from __future__ import annotations

import numpy as np
import pytest

import mcverify as mv
from mcverify import Activation, BatchNorm, Convolution, Dense, Dropout, Network, Residual
from mcverify.batches import check_batches, directions
from mcverify.errors import InputError
from mcverify.inputs import checked

RNG = np.random.default_rng(0)
X = RNG.standard_normal((9, 8))
RELU, LINEAR = Activation("relu"), Activation("linear")


def plain(phi=RELU, n: int = 8, eps: float = 0.0) -> Network:
    return Network([Dense(8, n), BatchNorm(eps), phi, Dense(n, n)])


@pytest.mark.parametrize(
    ("net", "x", "rank"),
    [
        (plain(), X[:6], 5),
        (plain(), X[[0, 1, 2, 0, 1]], 2),
        (plain(), np.ones((6, 8)), 0),
        (plain(n=2), X, 8),  # the law of one unit, given what the map meets
        (Network([Dense(8, 3), RELU, Dense(3, 8), BatchNorm()]), X, 3),
        (Network([Dense(8, 9), RELU, Dense(9, 8), BatchNorm()]), X[:, :2] @ RNG.standard_normal((2, 8)), 8),
        (Network([Dense(8, 9), LINEAR, Dense(9, 8), BatchNorm()]), X[:, :2] @ RNG.standard_normal((2, 8)), 2),
        (Network([Dense(8, 9), Dropout(0.5), Dense(9, 8), BatchNorm()]), np.ones((6, 8)), 5),
        (Network([Dense(8, 9), Dropout(1.0), Dense(9, 8), BatchNorm()]), np.ones((6, 8)), 0),
        (Network([Dense(8, 9), Dropout(0.5, shared=True), Dense(9, 8), BatchNorm()]), np.ones((6, 8)), 0),
        (Network([Dense(8, 9), RELU, Residual([Dense(9, 9), BatchNorm()])]), X, 8),
        (Network([Dense(8, 9), Residual([Dense(9, 9)]), BatchNorm()]), X[:2], 1),
        (Network([Convolution((4,), 2, 3, (1,)), BatchNorm(size=(4,))]), X.reshape(9, 2, 4), 2),
        (Network([Convolution((4,), 2, 3, (3,), padding="zeros"), BatchNorm(size=(4,))]), np.ones((1, 2, 4)), 3),
        (Network([Convolution((4,), 2, 3, (3,)), BatchNorm(size=(4,))]), np.ones((1, 2, 4)), 0),
    ],
)
def test_directions_that_differ(net: Network, x: np.ndarray, rank: int) -> None:
    points = checked(x, net.input_shape)
    assert directions(net, points)[0] == (rank, points[..., 0].size)
    assert not directions(plain(eps=0.1), X)


def test_moments_that_do_not_exist_are_named() -> None:
    def told(x: np.ndarray) -> str:
        with pytest.raises(InputError) as caught:
            mv.simulate(plain(), x, 20)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "2 columns" in told(X[:2])
    assert "more than 3: else gradients have no finite mean" in told(X[:3])
    assert "more than 5: else gradients have no finite variance" in told(X[:5])
    assert "7 columns that differ in 2 directions" in told(X[[0, 1, 2, 0, 1, 2, 0]])
    assert "6 equal columns" in told(np.ones((6, 8)))
    assert mv.simulate(plain(), X[:6], 20).attrs["nonfinite"] == 0
    assert mv.simulate(plain(eps=0.1), X[:2], 20).attrs["nonfinite"] == 0


def test_single_networks_need_no_moments() -> None:
    assert mv.simulate(plain(), X[:3], 20, replicates=True).sizes["replicate"] == 20
    with pytest.raises(InputError, match="divides 0 by 0"):
        mv.simulate(plain(), np.ones((3, 8)), 20, replicates=True)
    check_batches(plain(), X[:2], errors=False)


def test_what_reports_errors_of_gradients_refuses_before_it_starts() -> None:
    with pytest.raises(InputError, match="no finite variance"):
        mv.verify(plain(), X[:5])
    measured = mv.simulate(plain(), X[:5], 300, replicates=True)
    with pytest.raises(InputError, match="no finite variance"):
        mv.check(plain(), measured[["grad_norm2"]], X[:5])
    assert mv.check(plain(), measured[["q"]], X[:5]).results
    assert np.isfinite(mv.predict(plain(), X[:5]).grad_norm2).all()
