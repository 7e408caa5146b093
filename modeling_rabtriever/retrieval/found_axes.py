"""The principal axes that an export needs, of a store that has them or of encoded documents."""

from pathlib import Path

from torch import Tensor

from ..identity import same_encoder, shown
from .axes import check_dim, principal_axes
from .corpus_vectors import CorpusVectors
from .store import VectorStore


def found_axes(folder: str | Path, model: str, dim: int) -> Tensor:
    """The first `dim` principal axes of a student's documents, `(k, dim)` fp32.

    Args:
        folder: a store that `index --dim` made, whose axes these are, or encoded documents, whose axes are computed.
        model: fingerprint of the student (`encoder_fingerprint`).
        dim: how many axes: of a store, as many as it keeps of each vector for towers that fit it, or fewer.

    Raises:
        ValueError: the folder is neither, belongs to another student, or has fewer axes.
    """
    folder = Path(folder)
    if VectorStore.exists(folder):
        store = VectorStore(folder, model)
        if store.axes is None:
            raise ValueError(
                f"{folder} keeps whole vectors and has no axes; accepted: a store that index --dim made, or a folder "
                "of encoded documents"
            )
        if not 1 <= dim <= store.dim:
            raise ValueError(f"dim is {dim}, {folder} keeps {store.dim} numbers of each vector; accepted: {store.dim}")
        return store.axes[:, :dim]
    corpus = CorpusVectors(folder)
    if not same_encoder(corpus.model, model):
        raise ValueError(
            f"{folder} was encoded by the model {shown(corpus.model)}, this model is {shown(model)}; accepted: vectors "
            "of this model"
        )
    check_dim(dim, corpus.embedding_dim)
    return principal_axes((shard.vectors for shard in corpus), dim)
