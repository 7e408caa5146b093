"""Exact search: the best inner products of all, by matrix products over blocks of documents."""

import torch
from torch import Tensor

from ..modeling_pooling import in_full_precision

# The scores of a block, 4 MB, stay in the cache between the product and the search for the best.
BLOCK_SCORES = 1 << 20
SMALLEST_BLOCK = 4096
CHUNK = 256  # consecutive scores, whose maximum is compared first
FEW_QUERIES = 3  # on a CPU, up to this many queries are multiplied in fp16
SPARE = 32  # extra candidates if scores are rounded
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class ExactIndex:
    """Exact search over all document vectors in memory.

    Half precision halves the bytes to read, and memory reads limit the speed of search. Products in half precision are
    rounded, so more candidates than asked for are kept and scored again in fp32. The result is the exact order of the
    rounded vectors, unless more than `SPARE` documents tie within rounding.

    Args:
        vectors: `(m, k)` document vectors, any float type; copied only if the type or device changes.
        precision: `float32`, `bfloat16` or `float16`.
        device: where they are held and searched.

    Raises:
        ValueError: the precision is unknown, or the vectors are not a matrix or hold NaN or infinity.

    Examples:
        >>> import torch
        >>> from modeling_rabtriever.retrieval import ExactIndex
        >>> index = ExactIndex(torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]))
        >>> scores, rows = index.search(torch.tensor([[0.5, 1.0]]), top_k=2)
        >>> scores, rows
        (tensor([[2.0000, 1.5000]]), tensor([[1, 2]]))
    """

    def __init__(self, vectors: Tensor, precision: str = "float32", device: str | torch.device = "cpu") -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}; accepted: {', '.join(PRECISIONS)}")
        if vectors.dim() != 2 or not vectors.shape[1]:
            raise ValueError(f"vectors have shape {tuple(vectors.shape)}; accepted: (documents, k)")
        self.vectors = vectors.detach().to(device, PRECISIONS[precision])
        if not all(bool(torch.isfinite(block).all()) for block in self.vectors.split(SMALLEST_BLOCK)):
            raise ValueError(f"vectors hold NaN or infinity (as {precision}); accepted: finite numbers")

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.vectors)

    @torch.no_grad()
    def search(self, queries: Tensor, top_k: int, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The best documents of each query.

        Args:
            queries: `(n, k)` query vectors.
            top_k: documents per query; fewer come back if there are fewer.
            allowed: `(m,)` bool, the documents that may come back; `None` means all.

        Returns:
            Scores `(n, top)` fp32, falling, and rows `(n, top)` int64; equal scores are in order of rising row.

        Raises:
            ValueError: `top_k` is below 1, or the shapes do not fit.
        """
        m, k = self.vectors.shape
        if isinstance(top_k, bool) or not isinstance(top_k, int) or top_k < 1:
            raise ValueError(f"top_k is {top_k!r}; accepted: a whole number of at least 1")
        if queries.dim() != 2 or queries.shape[1] != k:
            raise ValueError(f"queries have shape {tuple(queries.shape)}; accepted: (queries, {k})")
        if not torch.isfinite(queries).all():
            raise ValueError("a query vector holds NaN or infinity; accepted: finite numbers")
        rows = None
        if allowed is not None:
            if allowed.shape != (m,):
                raise ValueError(f"allowed has shape {tuple(allowed.shape)}; accepted: ({m},), one per document")
            rows = allowed.to(self.vectors.device).nonzero()[:, 0]
        queries = queries.to(self.vectors.device, torch.float32)
        rounded = self.vectors.dtype != torch.float32
        with in_full_precision(queries):
            scores, found = self._scan(queries, top_k + (SPARE if rounded else 0), rows)
            if rounded:
                candidates = self.vectors[found].float()  # (n, top, k)
                scores = torch.einsum("nk,nck->nc", queries, candidates)
        order = found.argsort(1)  # equal scores in order of rising row, across blocks
        scores, found = scores.gather(1, order), found.gather(1, order)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        return scores[:, :top_k], found.gather(1, order)[:, :top_k]

    def _scan(self, queries: Tensor, top: int, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """The best `top` by the rounded products, unordered: scores `(n, top)` fp32, rows `(n, top)`."""
        total, n = len(self.vectors) if rows is None else len(rows), len(queries)
        top = min(top, total)
        size = max(SMALLEST_BLOCK, BLOCK_SCORES // max(n, 1), top)
        held = queries.to(self.vectors.dtype)
        best = queries.new_full((n, top), -torch.inf)
        where = torch.zeros(n, top, dtype=torch.long, device=queries.device)
        for first in range(0, total, size):
            block_rows = None if rows is None else rows[first : first + size]
            block = self.vectors[first : first + size] if block_rows is None else self.vectors[block_rows]
            scores = _products(held, block)
            # After many blocks, a new block seldom improves a query's best.
            asked = (scores.amax(1) > best.amin(1)).nonzero()[:, 0] if first else torch.arange(n, device=scores.device)
            if not len(asked):
                continue
            new, place = _best(scores if len(asked) == n else scores[asked], min(top, scores.shape[1]))
            new_rows = place + first if block_rows is None else block_rows[place]
            joined, joined_rows = torch.cat([best[asked], new], 1), torch.cat([where[asked], new_rows], 1)
            kept, order = joined.topk(top, dim=1, sorted=False)
            best[asked], where[asked] = kept, joined_rows.gather(1, order)
        return best, where


def _best(scores: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """The `top` highest of each row, in any order: `(n, b)` -> fp32 values and places, `(n, top)` each.

    Each of them is in one of the `top` chunks with the highest maximum, so only these chunks are sorted.
    """
    n, b = scores.shape
    chunks = b // CHUNK
    if chunks <= 2 * top:
        return scores.float().topk(top, dim=1, sorted=False)
    body = scores[:, : chunks * CHUNK].reshape(n, chunks, CHUNK)
    first = body.amax(2).topk(top, dim=1, sorted=False).indices  # (n, top)
    inside = torch.arange(CHUNK, device=scores.device)
    places = (first[:, :, None] * CHUNK + inside).flatten(1)
    rest = torch.arange(chunks * CHUNK, b, device=scores.device)
    places = torch.cat([places, rest.expand(n, -1)], dim=1)
    best, order = scores.gather(1, places).float().topk(top, dim=1, sorted=False)
    return best, places.gather(1, order)


def _products(queries: Tensor, block: Tensor) -> Tensor:
    """Inner products at the block's precision or better: `(n, k)`, `(b, k)` -> `(n, b)`. Reasons: benchmarks/LOG.md."""
    if block.device.type == "cpu" and block.dtype == torch.float16 and len(queries) > FEW_QUERIES:
        queries, block = queries.float(), block.float()  # CPUs multiply few or no fp16 numbers at a time
    if block.device.type != "cpu" or block.dtype != torch.float32:
        return queries @ block.T
    # Documents first, and at least two queries: MKL then reads memory at full speed. For a few queries this was eight
    # times faster than the other order on the processor it was measured on.
    asked = queries if len(queries) > 1 else queries.repeat(2, 1)
    return (block @ asked.T).T[: len(queries)].contiguous()
