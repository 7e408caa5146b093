"""Teachers that only score pairs: a cross-encoder of sentence-transformers.

They have no hidden states to distil, so the listwise loss is the only one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..trainers.stage_folder import model_digest


@dataclass(frozen=True)
class PairScorer:
    """A scorer of (query, document) pairs.

    Args:
        score: rows of queries and of documents, `(p,)` int64 each -> `(p,)` scores; higher means more relevant.
        identity: a fingerprint of the scorer.
    """

    score: Callable[[Tensor, Tensor], Tensor]
    identity: str

    def score_pairs(self, queries: Tensor, documents: Tensor) -> dict[str, Tensor]:
        """The scores of these pairs as `TeacherScores` stores them."""
        return {"logits": self.score(queries, documents).float().cpu()}


def cross_encoder(
    name_or_path: str, queries: Sequence[str], documents: Sequence[str], device: str, trust_remote_code: bool = False
) -> PairScorer:
    """A scorer by the raw logits of a `sentence_transformers.CrossEncoder` that gives one number per pair.

    Args:
        name_or_path: Hub id or folder.
        queries: texts of the query rows.
        documents: texts of the corpus rows.
        device: that it runs on.
        trust_remote_code: whether code from the model's repository may run.

    Raises:
        ValueError: the model gives several numbers per pair.
    """
    from sentence_transformers import CrossEncoder  # of the extra "export"

    no_pickle = {"use_safetensors": True}
    model = CrossEncoder(name_or_path, device=device, trust_remote_code=trust_remote_code, model_kwargs=no_pickle)
    if model.num_labels != 1:
        raise ValueError(
            f"{name_or_path} gives {model.num_labels} numbers per pair; accepted: a cross-encoder with one"
        )

    def score(query_rows: Tensor, document_rows: Tensor) -> Tensor:
        rows = zip(query_rows.tolist(), document_rows.tolist(), strict=True)
        pairs = [(queries[query], documents[document]) for query, document in rows]
        return model.predict(
            pairs, activation_fn=torch.nn.Identity(), convert_to_tensor=True, show_progress_bar=False
        ).reshape(-1)

    return PairScorer(score, f"cross-encoder {model_digest(name_or_path)}")
