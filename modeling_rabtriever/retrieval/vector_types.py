"""How a vector is stored: as fp32, fp16, or int8 with one factor per vector."""

import numpy as np
from numpy.typing import NDArray

VECTOR_TYPES = ("float32", "float16", "int8")
Vectors = NDArray[np.float32] | NDArray[np.float16] | NDArray[np.int8]


def narrow(vectors: NDArray[np.float32], vector_type: str) -> tuple[Vectors, NDArray[np.float32]]:
    """Vectors in a narrower type, and the factors that restore them.

    int8 is symmetric per vector: the largest absolute number becomes 127. The error is at most half a step, that is
    1/254 of that number.

    Args:
        vectors: `(m, k)` fp32.
        vector_type: one of `VECTOR_TYPES`.

    Returns:
        `(m, k)` of that type, and `(m,)` fp32 factors: vector = factor * narrow vector.

    Raises:
        ValueError: the type is unknown, or a number is not finite or too large for the type.
    """
    if vector_type not in VECTOR_TYPES:
        raise ValueError(f"vector_type is {vector_type!r}; accepted: {', '.join(VECTOR_TYPES)}")
    if not np.isfinite(vectors).all():
        raise ValueError("a vector holds NaN or infinity, so the model's weights are broken; accepted: finite numbers")
    factors = np.ones(len(vectors), dtype=np.float32)
    if vector_type == "float32":
        return vectors, factors
    if vector_type == "float16":
        largest = float(np.abs(vectors).max(initial=0.0))
        if largest > float(np.finfo(np.float16).max):
            raise ValueError(f"a vector holds {largest:g}, beyond float16 (65504); accepted: float32 or int8")
        return vectors.astype(np.float16), factors
    peaks = np.abs(vectors).max(axis=1, initial=0.0)
    factors = np.where(peaks > 0, peaks / 127, 1).astype(np.float32)
    return np.rint(vectors / factors[:, None]).astype(np.int8), factors


def widen(vectors: Vectors, factors: NDArray[np.float32]) -> NDArray[np.float32]:
    """The output of `narrow` as fp32 `(m, k)`."""
    return vectors.astype(np.float32) * factors[:, None]
