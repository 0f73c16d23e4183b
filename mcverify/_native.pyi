from numpy import float32, float64, int32
from numpy.typing import NDArray

def paths() -> tuple[str, ...]: ...
def path() -> str: ...
def set_path(name: str) -> None: ...
def draw(
    key: int,
    layer: int,
    role: int,
    start: int,
    what: int,
    first_tile: int,
    out: NDArray[float32] | NDArray[float64],
) -> None: ...
def random_matmul(
    key: int,
    layer: int,
    role: int,
    start: int,
    law: int,
    x: NDArray[float32] | NDArray[float64],
    y: NDArray[float32] | NDArray[float64],
    transposed: bool,
    seen: NDArray[int32] | None = None,
) -> None: ...
