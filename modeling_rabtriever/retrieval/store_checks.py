"""What a store refuses: queries of another model, vectors of another shape, documents and ids that cannot be stored."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from torch import Tensor

from ..identity import same_encoder, shown
from .documents import Document
from .lance_table import StoreTable
from .metadata_columns import cleaned


def check_same_model(table: StoreTable, model: str) -> None:
    """Raises a ValueError if the fingerprint `model` is not that of the student that made the vectors."""
    if not same_encoder(model, table.model):
        raise ValueError(
            f"{table.folder} holds vectors of the model {shown(table.model)}, this model is {shown(model)}: scores "
            "would mean nothing; accepted: the model that encoded the corpus"
        )


def check_kept(folder: Path, kept: int, dim: int | None) -> None:
    """Raises a ValueError if the store keeps another number than `dim` of each vector; `None` is accepted."""
    if dim not in (None, kept):
        raise ValueError(
            f"dim is {dim}, but {folder} keeps {kept} numbers of each vector; accepted: {kept}, or another store"
        )


def checked_queries(queries: Tensor, embedding_dim: int) -> Tensor:
    """The queries, if they are `(n, embedding_dim)`.

    Raises:
        ValueError: they have another shape.
    """
    if queries.dim() != 2 or queries.shape[1] != embedding_dim:
        raise ValueError(f"queries have shape {tuple(queries.shape)}; accepted: (queries, {embedding_dim})")
    return queries


def checked_vectors(vectors: Tensor | NDArray[np.float32], count: int, embedding_dim: int) -> NDArray[np.float32]:
    """Vectors of `count` documents as fp32 on the CPU.

    Raises:
        ValueError: they have another shape than `(count, embedding_dim)`, or a number is not finite.
    """
    held = np.asarray(vectors.detach().float().cpu() if isinstance(vectors, Tensor) else vectors, dtype=np.float32)
    if held.shape != (count, embedding_dim):
        raise ValueError(
            f"vectors have shape {held.shape}; accepted: ({count}, {embedding_dim}), the number of documents and the "
            "width of this store's vectors"
        )
    if not np.isfinite(held).all():
        raise ValueError("vectors hold NaN or infinity; accepted: finite numbers")
    return held


def distinct_documents(documents: Sequence[Document]) -> list[Document]:
    """Documents as they are stored.

    Raises:
        ValueError: an id is given twice, or a document cannot be stored (`cleaned`).
    """
    held = list(cleaned(documents))
    seen: set[str] = set()
    for document in held:
        if document.id in seen:
            raise ValueError(f"the id {document.id!r} is given twice; accepted: distinct ids")
        seen.add(document.id)
    return held


def id_column(ids: Iterable[str]) -> tuple[list[str], pa.Array]:
    """Distinct ids in the given order, as a list and as a column.

    Raises:
        ValueError: `ids` is a string, or holds something other than strings.
    """
    if isinstance(ids, str):
        raise ValueError(f"ids is the string {ids!r}; accepted: a list of ids")
    asked = list(dict.fromkeys(ids))
    try:
        return asked, pa.array(asked, pa.string())
    except (pa.ArrowException, UnicodeError) as error:
        raise ValueError(f"ids cannot be read ({error}); accepted: strings of valid Unicode") from error
