"""mcverify: does a wide random neural network behave as theory says, and how sure are we?

The public face by subject; docs/python.md has a line on each. A name is imported when it is first used, so that
start-up stays light.

Networks: constructors, and what they are made of
    mlp, cnn, resnet, batchnorm_mlp, load, Network, Dense, Convolution, Activation, Dropout, BatchNorm, LayerNorm,
    Residual, Flatten, GlobalAveragePool, activation, custom_activation
Predictions: what theory says of a network
    predict, predict_stationary, jacobian_moments, jacobian_density, diagnose_initialisers
Phases: of an activation at (σ_w², σ_b²), dense or with positions
    phase, phase_diagram, critical_sigma_w2, spatial_modes, border_effect, border_critical_sigma_w2
Residual networks and batch norm: growth over blocks, and bounds of it
    resnet_trajectory, tanh_resnet_growth, taki_initialisation, depth_limit, length_bounds, PowerScales,
    batchnorm_gradient_growth, batchnorm_residual_growth
Finite width: exact laws and moments
    length_law, tangent_law, gradient_law, entry_law, entry_moments, ratio_moments, variance_across_layers
Simulation: sampled networks
    simulate, simulate_jacobian_moments, simulate_singular_values
Verdicts: is it so, and how sure
    verify, validity, check, check_sampler
Errors: one line each
    InputError, Unpredictable

Beside these the modules `testing` (checks that assert), `strategies` (for Hypothesis) and `baselines` (what has moved).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_SUBJECTS = {
    "Networks": {
        "mlp": "mcverify.network",
        "cnn": "mcverify.network",
        "resnet": "mcverify.network",
        "batchnorm_mlp": "mcverify.network",
        "load": "mcverify.network_file",
        "Network": "mcverify.network",
        "Dense": "mcverify.layers.dense",
        "Convolution": "mcverify.layers.convolution",
        "Activation": "mcverify.layers.activation",
        "Dropout": "mcverify.layers.dropout",
        "BatchNorm": "mcverify.layers.batchnorm",
        "LayerNorm": "mcverify.layers.layernorm",
        "Residual": "mcverify.layers.residual",
        "Flatten": "mcverify.layers.flatten",
        "GlobalAveragePool": "mcverify.layers.pooling",
        "activation": "mcverify.activations",
        "custom_activation": "mcverify.activations",
    },
    "Predictions": {
        "predict": "mcverify.theory.predict",
        "predict_stationary": "mcverify.theory.stationary",
        "jacobian_moments": "mcverify.theory.spectrum",
        "jacobian_density": "mcverify.theory.spectral_density",
        "diagnose_initialisers": "mcverify.theory.initialiser_table",
    },
    "Phases": {
        "phase": "mcverify.theory.phase",
        "phase_diagram": "mcverify.theory.phase_diagram",
        "critical_sigma_w2": "mcverify.theory.phase",
        "spatial_modes": "mcverify.theory.spatial",
        "border_effect": "mcverify.theory.border",
        "border_critical_sigma_w2": "mcverify.theory.border",
    },
    "Residual networks and batch norm": {
        "resnet_trajectory": "mcverify.theory.residual",
        "tanh_resnet_growth": "mcverify.theory.residual",
        "taki_initialisation": "mcverify.theory.residual",
        "depth_limit": "mcverify.theory.number_format",
        "length_bounds": "mcverify.theory.residual_bounds",
        "PowerScales": "mcverify.theory.residual_bounds",
        "batchnorm_gradient_growth": "mcverify.theory.batchnorm",
        "batchnorm_residual_growth": "mcverify.theory.batchnorm",
    },
    "Finite width": {
        "length_law": "mcverify.theory.length_law",
        "tangent_law": "mcverify.theory.length_law",
        "gradient_law": "mcverify.theory.length_law",
        "entry_law": "mcverify.theory.length_law",
        "entry_moments": "mcverify.theory.length_moments",
        "ratio_moments": "mcverify.theory.length_moments",
        "variance_across_layers": "mcverify.theory.length_moments",
    },
    "Simulation": {
        "simulate": "mcverify.simulation.simulate",
        "simulate_jacobian_moments": "mcverify.simulation.spectrum",
        "simulate_singular_values": "mcverify.simulation.spectrum",
    },
    "Verdicts": {
        "verify": "mcverify.verification",
        "validity": "mcverify.sampled_validity",
        "check": "mcverify.checking",
        "check_sampler": "mcverify.samplers.check",
    },
    "Errors": {
        "InputError": "mcverify.errors",
        "Unpredictable": "mcverify.errors",
    },
}
_WHERE = {name: module for subject in _SUBJECTS.values() for name, module in subject.items()}
_MODULES = ("baselines", "strategies")  # strategies needs hypothesis, so that they stay out of __all__

__all__ = [  # noqa: RUF022
    "__version__",
    # Networks
    "mlp",
    "cnn",
    "resnet",
    "batchnorm_mlp",
    "load",
    "Network",
    "Dense",
    "Convolution",
    "Activation",
    "Dropout",
    "BatchNorm",
    "LayerNorm",
    "Residual",
    "Flatten",
    "GlobalAveragePool",
    "activation",
    "custom_activation",
    # Predictions
    "predict",
    "predict_stationary",
    "jacobian_moments",
    "jacobian_density",
    "diagnose_initialisers",
    # Phases
    "phase",
    "phase_diagram",
    "critical_sigma_w2",
    "spatial_modes",
    "border_effect",
    "border_critical_sigma_w2",
    # Residual networks and batch norm
    "resnet_trajectory",
    "tanh_resnet_growth",
    "taki_initialisation",
    "depth_limit",
    "length_bounds",
    "PowerScales",
    "batchnorm_gradient_growth",
    "batchnorm_residual_growth",
    # Finite width
    "length_law",
    "tangent_law",
    "gradient_law",
    "entry_law",
    "entry_moments",
    "ratio_moments",
    "variance_across_layers",
    # Simulation
    "simulate",
    "simulate_jacobian_moments",
    "simulate_singular_values",
    # Verdicts
    "verify",
    "validity",
    "check",
    "check_sampler",
    # Errors
    "InputError",
    "Unpredictable",
]

if TYPE_CHECKING:
    from mcverify.activations import activation, custom_activation
    from mcverify.checking import check
    from mcverify.errors import InputError, Unpredictable
    from mcverify.layers.activation import Activation
    from mcverify.layers.batchnorm import BatchNorm
    from mcverify.layers.convolution import Convolution
    from mcverify.layers.dense import Dense
    from mcverify.layers.dropout import Dropout
    from mcverify.layers.flatten import Flatten
    from mcverify.layers.layernorm import LayerNorm
    from mcverify.layers.pooling import GlobalAveragePool
    from mcverify.layers.residual import Residual
    from mcverify.network import Network, batchnorm_mlp, cnn, mlp, resnet
    from mcverify.network_file import load
    from mcverify.sampled_validity import validity
    from mcverify.samplers.check import check_sampler
    from mcverify.simulation.simulate import simulate
    from mcverify.simulation.spectrum import simulate_jacobian_moments, simulate_singular_values
    from mcverify.theory.batchnorm import batchnorm_gradient_growth, batchnorm_residual_growth
    from mcverify.theory.border import border_critical_sigma_w2, border_effect
    from mcverify.theory.initialiser_table import diagnose_initialisers
    from mcverify.theory.length_law import entry_law, gradient_law, length_law, tangent_law
    from mcverify.theory.length_moments import entry_moments, ratio_moments, variance_across_layers
    from mcverify.theory.number_format import depth_limit
    from mcverify.theory.phase import critical_sigma_w2, phase
    from mcverify.theory.phase_diagram import phase_diagram
    from mcverify.theory.predict import predict
    from mcverify.theory.residual import resnet_trajectory, taki_initialisation, tanh_resnet_growth
    from mcverify.theory.residual_bounds import PowerScales, length_bounds
    from mcverify.theory.spatial import spatial_modes
    from mcverify.theory.spectral_density import jacobian_density
    from mcverify.theory.spectrum import jacobian_moments
    from mcverify.theory.stationary import predict_stationary
    from mcverify.verification import verify


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    if name in _MODULES:
        return import_module(f"mcverify.{name}")
    raise AttributeError(f"module 'mcverify' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_MODULES])
