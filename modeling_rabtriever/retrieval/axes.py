"""Shorter vectors without training: coordinates along the documents' principal axes, the first of which are kept.

The score is an inner product, so a rotation of both sides leaves it as it is: with all coordinates, scores are equal
to fp32 rounding. The axes are the eigenvectors of the documents' second moment, not centred. Of all rotations, this one
keeps the most of the documents' squared length in every number of first coordinates, and so the most of the score for
queries of no preferred direction. Centred axes, and axes that also balance the queries' second moment, were no better
(benchmarks/LOG.md, 2026-11-28).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import fault
from ..files import read_tensors, write_tensors

FILE = "axes.safetensors"


def principal_axes(blocks: Iterable[NDArray[np.float32]], dim: int) -> Tensor:
    """The first `dim` principal axes of vectors, as columns; `x @ axes` has the coordinates along them.

    Args:
        blocks: the vectors, `(m, k)` each; one block is in memory at a time.
        dim: how many axes, 1 to `k`.

    Returns:
        `(k, dim)` fp32 with orthonormal columns, the axis with the largest second moment first.

    Raises:
        ValueError: `dim` is out of range, or there are no vectors.

    Examples:
        >>> import numpy as np
        >>> from modeling_rabtriever.retrieval import principal_axes
        >>> principal_axes([np.array([[0.0, 2.0], [1.0, 0.0]], dtype=np.float32)], 1).abs()
        tensor([[0.],
                [1.]])
    """
    moment: NDArray[np.float64] | None = None
    for block in blocks:
        k = block.shape[1]
        check_dim(dim, k)
        own = (block.T @ block).astype(np.float64)
        moment = own if moment is None else moment + own
    if moment is None:
        raise ValueError("there are no vectors to find axes of; accepted: at least one")
    axes = np.linalg.eigh(moment)[1][:, ::-1][:, :dim]  # eigenvalues rise
    return torch.from_numpy(np.ascontiguousarray(axes, dtype=np.float32))


def check_dim(dim: int, embedding_dim: int) -> None:
    """Raises a ValueError if vectors of `embedding_dim` numbers cannot be cut to `dim`."""
    if isinstance(dim, bool) or not isinstance(dim, int) or not 1 <= dim <= embedding_dim:
        raise ValueError(f"dim is {dim!r}; accepted: a whole number from 1 to {embedding_dim}, the vectors' width")


def write_axes(folder: Path, axes: Tensor) -> None:
    """Writes a store's axes, with a checksum.

    Raises:
        OSError: they cannot be written.
    """
    write_tensors(folder / FILE, {"axes": axes})


def read_axes(folder: Path, embedding_dim: int, dim: int) -> Tensor:
    """The axes of a store, `(embedding_dim, dim)` fp32.

    Raises:
        ValueError: they are missing or broken, or have another shape.
    """
    path = folder / FILE
    try:
        found: dict[str, Any] = read_tensors(path)[0]
        shape = tuple(found["axes"].shape) if "axes" in found else None
        if shape != (embedding_dim, dim):
            raise ValueError(f"{path} is broken (its axes have shape {shape}, the store's are {(embedding_dim, dim)})")
    except ValueError as error:
        raise ValueError(f"{fault(error)}; accepted: a whole store. Index the corpus again") from error
    return found["axes"].float()
