"""The same work in other people's tools. Each module imports its tool at the top; `find` says which are here."""

from __future__ import annotations

import importlib
from types import ModuleType

# Module of this package, and what it measures.
PEERS = {
    "numpy_peer": "NumPy",
    "torch_peer": "PyTorch",
    "jax_peer": "JAX",
    "mkl_peer": "MKL (mkl_random)",
}


def find(name: str) -> tuple[ModuleType | None, str]:
    """(module, version) of a peer, or (None, why it is absent)."""
    try:
        module = importlib.import_module(f"bench.peers.{name}")
    except Exception as error:  # a broken install is as absent as a missing one
        return None, f"{type(error).__name__}: {error}"
    return module, module.VERSION
