"""Exact search: the best inner products of all, by matrix products over blocks of documents."""

import torch
from torch import Tensor

from ..modeling_pooling import in_full_precision

# Scores of a block, 4 MB, stay in the cache between the product and the look for new best ones.
BLOCK_SCORES = 1 << 20
SMALLEST_BLOCK = 4096
CHUNK = 256  # scores in a row, of which the best is looked at first
FEW_QUERIES = 3  # up to which fp16 vectors are multiplied as they are, on a CPU
SPARE = 32  # candidates beyond the wanted ones when scores are rounded
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class ExactIndex:
    """All document vectors in memory, and the best of them for any query.

    Vectors held in half precision are half the bytes to read, and search is bound by reading. Their products are
    rounded, so the best are looked for among more candidates than asked for and their scores computed again in fp32:
    the result is the exact order of the rounded vectors, unless more than `SPARE` documents tie within rounding.

    Args:
        vectors: `(m, k)` document vectors, any float type; copied only if the type or device changes.
        precision: `float32`, `bfloat16` or `float16`.
        device: where they are held and searched.

    Raises:
        ValueError: the precision is unknown, or the vectors are no matrix or hold NaN or infinity.
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
            top_k: documents per query; fewer come back where there are fewer.
            allowed: `(m,)` bool, the documents that may come back; `None` means all.

        Returns:
            Scores `(n, top)` fp32, falling, and rows `(n, top)` int64; equal scores come by rising row.

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
        order = found.argsort(1)  # equal scores by rising row, whatever block they came from
        scores, found = scores.gather(1, order), found.gather(1, order)
        scores, order = scores.sort(dim=1, descending=True, stable=True)
        return scores[:, :top_k], found.gather(1, order)[:, :top_k]

    def _scan(self, queries: Tensor, top: int, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Unordered best `top` by the products as they are rounded: scores `(n, top)` fp32, rows `(n, top)`."""
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
            # A block seldom holds a new best one, once many blocks have been seen.
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

    A score among them lies in a chunk whose best score is among the `top` best of all chunks: only these are sorted.
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
        queries, block = queries.float(), block.float()  # processors multiply few or no fp16 numbers at a time
    if block.device.type != "cpu" or block.dtype != torch.float32:
        return queries @ block.T
    # Documents first, and never a single query: MKL then reads memory at full speed, eight times faster for a few
    # queries than the other way round on the processor this was measured on.
    asked = queries if len(queries) > 1 else queries.repeat(2, 1)
    return (block @ asked.T).T[: len(queries)].contiguous()
