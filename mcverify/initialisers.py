"""The table of named initialisers: a weight law, the fan it is scaled by, and a gain.

A weight has variance sigma_w2 / fan, with fan one of

    fan_in                            inputs of a unit
    fan_out                           units fed
    fan_avg = (fan_in + fan_out) / 2
    fan_max = max(fan_in, fan_out)    what makes the rows or columns of an orthogonal matrix orthonormal

One name may mean different laws: He's own weights and PyTorch's are Gaussian, while Keras and JAX truncate them under
the same name. The plain name is the paper's; the libraries' variants carry the library's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mcverify.errors import InputError, nearest
from mcverify.weights import TRUNCATED_VARIANCE

FanMode = Literal["fan_in", "fan_out", "fan_avg", "fan_max"]
FAN_MODES: tuple[FanMode, ...] = ("fan_in", "fan_out", "fan_avg", "fan_max")


@dataclass(frozen=True)
class Initialiser:
    """One row: weights follow `law` (a name of weights.LAWS) with variance sigma_w2 / fan, biases `bias_law`
    ("zeros", or a name of weights.LAWS) with variance bias_variance / fan_in."""

    name: str
    law: str
    fan_mode: FanMode
    sigma_w2: float
    source: str
    bias_law: str = "zeros"
    bias_variance: float = 0.0


_HE = "He et al. (2015), Delving deep into rectifiers, eq. 10"
_GLOROT = "Glorot & Bengio (2010), Understanding the difficulty of training deep networks, eqs. 12, 16"
_LECUN = "LeCun, Bottou, Orr & Müller (1998), Efficient backprop, eq. 16"
_JAX = "jax.nn.initializers.{0}, which is variance_scaling({1}, '{2}', 'truncated_normal')"
_KERAS = "keras.initializers.{0}, which is VarianceScaling({1}, '{2}', 'truncated_normal')"
_PYTORCH = (
    "torch.nn.{0}.reset_parameters: kaiming_uniform_(weight, a=√5), so gain² = 2/(1 + 5); uniform bias ±1/√fan_in"
)
_KERAS_DEFAULT = "keras.initializers.GlorotUniform, the default of Dense and Conv layers, whose biases are zero"
_UNCORRECTED = (
    "a normal of variance 2/fan_in cut at two standard deviations and not rescaled (torch.nn.init.trunc_normal_ with "
    "a, b = ±2 std; TensorFlow 1's truncated_normal)"
)
_SAXE = "Saxe, McClelland & Ganguli (2014), Exact solutions to the nonlinear dynamics of learning, section 3"

INITIALISERS: dict[str, Initialiser] = {
    row.name: row
    for row in (
        Initialiser("he_normal", "gaussian", "fan_in", 2.0, _HE),
        Initialiser("he_uniform", "uniform", "fan_in", 2.0, _HE),
        Initialiser("kaiming_normal", "gaussian", "fan_in", 2.0, f"torch.nn.init.kaiming_normal_; {_HE}"),
        Initialiser("kaiming_uniform", "uniform", "fan_in", 2.0, f"torch.nn.init.kaiming_uniform_; {_HE}"),
        Initialiser("glorot_normal", "gaussian", "fan_avg", 1.0, _GLOROT),
        Initialiser("glorot_uniform", "uniform", "fan_avg", 1.0, _GLOROT),
        Initialiser("xavier_normal", "gaussian", "fan_avg", 1.0, f"torch.nn.init.xavier_normal_; {_GLOROT}"),
        Initialiser("xavier_uniform", "uniform", "fan_avg", 1.0, f"torch.nn.init.xavier_uniform_; {_GLOROT}"),
        Initialiser("lecun_normal", "gaussian", "fan_in", 1.0, _LECUN),
        Initialiser("lecun_uniform", "uniform", "fan_in", 1.0, _LECUN),
        Initialiser("pytorch_linear", "uniform", "fan_in", 1 / 3, _PYTORCH.format("Linear"), "uniform", 1 / 3),
        Initialiser("pytorch_conv", "uniform", "fan_in", 1 / 3, _PYTORCH.format("Conv2d"), "uniform", 1 / 3),
        Initialiser("keras_glorot_uniform", "uniform", "fan_avg", 1.0, _KERAS_DEFAULT),
        Initialiser("truncated_he_uncorrected", "truncated_normal", "fan_in", 2.0 * TRUNCATED_VARIANCE, _UNCORRECTED),
        Initialiser("jax_he_normal", "truncated_normal", "fan_in", 2.0, _JAX.format("he_normal", 2, "fan_in")),
        Initialiser(
            "jax_glorot_normal", "truncated_normal", "fan_avg", 1.0, _JAX.format("glorot_normal", 1, "fan_avg")
        ),
        Initialiser("jax_lecun_normal", "truncated_normal", "fan_in", 1.0, _JAX.format("lecun_normal", 1, "fan_in")),
        Initialiser("keras_he_normal", "truncated_normal", "fan_in", 2.0, _KERAS.format("HeNormal", 2, "fan_in")),
        Initialiser(
            "keras_glorot_normal", "truncated_normal", "fan_avg", 1.0, _KERAS.format("GlorotNormal", 1, "fan_avg")
        ),
        Initialiser("keras_lecun_normal", "truncated_normal", "fan_in", 1.0, _KERAS.format("LecunNormal", 1, "fan_in")),
        Initialiser("orthogonal", "orthogonal", "fan_max", 1.0, _SAXE),
        Initialiser("orthogonal_relu", "orthogonal", "fan_max", 2.0, f"torch.nn.init.orthogonal_, gain √2; {_SAXE}"),
    )
}


def initialiser(name: str) -> Initialiser:
    """The initialiser of that name.

    Raises InputError for an unknown name."""
    if not isinstance(name, str) or name not in INITIALISERS:
        known = list(INITIALISERS)
        raise InputError("initialiser", name, f"allowed: {', '.join(known)}{nearest(str(name), known)}")
    return INITIALISERS[name]


def map_parameters(name: str, fan_in: int, fan_out: int) -> tuple[float, float, str]:
    """(σ_w², σ_b², weights' law) of a dense map, or of a convolution whose fans count its taps, so initialised.

    Biases are sampled Gaussian of that variance, whatever the library's law of them. Raises InputError for an unknown
    name."""
    row = initialiser(name)
    return sigma_w2(row, fan_in, fan_out), sigma_b2(row, fan_in), row.law


def fan(mode: str, fan_in: int, fan_out: int) -> float:
    """What the variance is divided by.

    Raises InputError for an unknown mode."""
    fans = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2, "fan_max": max(fan_in, fan_out)}
    if mode not in fans:
        raise InputError("fan_mode", mode, f"allowed: {', '.join(fans)}{nearest(str(mode), list(fans))}")
    return float(fans[mode])


def sigma_w2(row: Initialiser, fan_in: int, fan_out: int) -> float:
    """The same weights in this package's terms, Var w = sigma_w2 / fan_in: what `Dense` and `mlp` take."""
    return row.sigma_w2 * fan_in / fan(row.fan_mode, fan_in, fan_out)


def sigma_b2(row: Initialiser, fan_in: int) -> float:
    """The variance of a bias."""
    return row.bias_variance / fan_in
