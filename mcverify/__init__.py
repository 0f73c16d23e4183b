"""mcverify: does a wide random neural network behave as theory says, and how sure are we?

The names below are the public face; each is imported when it is first used, so that start-up stays light.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_WHERE = {
    "mlp": "mcverify.network",
    "cnn": "mcverify.network",
    "batchnorm_mlp": "mcverify.network",
    "resnet": "mcverify.network",
    "Convolution": "mcverify.layers.convolution",
    "Network": "mcverify.network",
    "Dense": "mcverify.layers.dense",
    "Activation": "mcverify.layers.activation",
    "Dropout": "mcverify.layers.dropout",
    "Flatten": "mcverify.layers.flatten",
    "GlobalAveragePool": "mcverify.layers.pooling",
    "Residual": "mcverify.layers.residual",
    "BatchNorm": "mcverify.layers.batchnorm",
    "LayerNorm": "mcverify.layers.layernorm",
    "activation": "mcverify.activations",
    "custom_activation": "mcverify.activations",
    "phase": "mcverify.theory.phase",
    "phase_diagram": "mcverify.theory.phase_diagram",
    "critical_sigma_w2": "mcverify.theory.phase",
    "spatial_modes": "mcverify.theory.spatial",
    "border_effect": "mcverify.theory.border",
    "border_critical_sigma_w2": "mcverify.theory.border",
    "resnet_trajectory": "mcverify.theory.residual",
    "tanh_resnet_growth": "mcverify.theory.residual",
    "taki_initialisation": "mcverify.theory.residual",
    "length_bounds": "mcverify.theory.residual_bounds",
    "PowerScales": "mcverify.theory.residual_bounds",
    "depth_limit": "mcverify.theory.number_format",
    "batchnorm_gradient_growth": "mcverify.theory.batchnorm",
    "batchnorm_residual_growth": "mcverify.theory.batchnorm",
    "length_law": "mcverify.theory.length_law",
    "tangent_law": "mcverify.theory.length_law",
    "gradient_law": "mcverify.theory.length_law",
    "entry_law": "mcverify.theory.length_law",
    "entry_moments": "mcverify.theory.length_moments",
    "ratio_moments": "mcverify.theory.length_moments",
    "variance_across_layers": "mcverify.theory.length_moments",
    "diagnose_initialisers": "mcverify.theory.initialiser_table",
    "load": "mcverify.network_file",
    "predict": "mcverify.theory.predict",
    "predict_stationary": "mcverify.theory.stationary",
    "jacobian_moments": "mcverify.theory.spectrum",
    "jacobian_density": "mcverify.theory.spectral_density",
    "simulate": "mcverify.simulation.simulate",
    "simulate_jacobian_moments": "mcverify.simulation.spectrum",
    "simulate_singular_values": "mcverify.simulation.spectrum",
    "verify": "mcverify.verification",
    "validity": "mcverify.sampled_validity",
    "check": "mcverify.checking",
    "check_sampler": "mcverify.samplers.check",
    "InputError": "mcverify.errors",
    "Unpredictable": "mcverify.errors",
}

__all__ = [
    "Activation",
    "BatchNorm",
    "Convolution",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAveragePool",
    "InputError",
    "LayerNorm",
    "Network",
    "PowerScales",
    "Residual",
    "Unpredictable",
    "__version__",
    "activation",
    "batchnorm_gradient_growth",
    "batchnorm_mlp",
    "batchnorm_residual_growth",
    "border_critical_sigma_w2",
    "border_effect",
    "check",
    "check_sampler",
    "cnn",
    "critical_sigma_w2",
    "custom_activation",
    "depth_limit",
    "diagnose_initialisers",
    "entry_law",
    "entry_moments",
    "gradient_law",
    "jacobian_density",
    "jacobian_moments",
    "length_bounds",
    "length_law",
    "load",
    "mlp",
    "phase",
    "phase_diagram",
    "predict",
    "predict_stationary",
    "ratio_moments",
    "resnet",
    "resnet_trajectory",
    "simulate",
    "simulate_jacobian_moments",
    "simulate_singular_values",
    "spatial_modes",
    "taki_initialisation",
    "tangent_law",
    "tanh_resnet_growth",
    "validity",
    "variance_across_layers",
    "verify",
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
    if name in ("baselines", "strategies"):  # modules; strategies needs hypothesis, so they stay out of __all__
        return import_module(f"mcverify.{name}")
    raise AttributeError(f"module 'mcverify' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
