"""A Rabtriever in MTEB, with its own index and score, by MTEB's SearchProtocol.

Usage:
    import mteb
    from transformers import AutoModel
    from modeling_rabtriever.evaluation.mteb_search import RabtrieverSearch

    model = RabtrieverSearch(AutoModel.from_pretrained("org/name", trust_remote_code=True), "org/name")
    mteb.evaluate(model, mteb.get_tasks(["SciFact", "BrightRetrieval", "ARCChallenge"]))     # BEIR, BRIGHT, RAR-b

Needs MTEB 2.26 or later (extra "mteb"). A model without a Hub id can have any name, such as "local/mine".
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from mteb.models.model_meta import ModelMeta

from .. import RabtrieverModel
from ..retrieval import ExactIndex
from ..retrieval.documents import document_text


class RabtrieverSearch:
    """Exact search by a Rabtriever, for retrieval and reranking tasks of MTEB.

    Args:
        model: the student, with its processor. It reads every text with its own prompt and ignores instructions of the
            task.
        name: of the model in MTEB's results, `org/name`.
        revision: of the model.
        token_budget: padded tokens per forward pass; `None` fits the device.
    """

    def __init__(
        self, model: RabtrieverModel, name: str, revision: str = "local", token_budget: int | None = None
    ) -> None:
        self.model, self._token_budget = model.eval(), token_budget
        self.mteb_model_meta = ModelMeta.create_empty(
            {
                "name": name,
                "revision": revision,
                "n_parameters": model.num_parameters(),
                "embed_dim": model.config.embedding_dim,
                "max_tokens": max(model.processor.max_document_length, model.processor.max_query_length),
                "similarity_fn_name": "dot",
                "use_instructions": False,
            }
        )

    def index(self, corpus: Iterable[Mapping[str, Any]], **_: Any) -> None:
        """Encodes the documents, title before text."""
        rows = {str(row["id"]): document_text(row.get("title"), row["text"]) for row in corpus}
        # Some benchmarks have empty documents, which the model cannot read; they are never found.
        self._texts = {id_: text for id_, text in rows.items() if text}
        self._ids = list(self._texts)
        self._places = {id_: place for place, id_ in enumerate(self._ids)}
        vectors = self.model.encode_document(list(self._texts.values()), self._token_budget)
        self._index = ExactIndex(vectors, device=self.model.device)

    def search(
        self,
        queries: Iterable[Mapping[str, Any]],
        *,
        top_k: int,
        top_ranked: Mapping[str, list[str]] | None = None,
        **_: Any,
    ) -> dict[str, dict[str, float]]:
        """Query id -> document id -> inner product, of the best `top_k` of all, or of the candidates."""
        rows = {str(row["id"]): str(row["text"]) for row in queries}
        vectors = self.model.encode_query(list(rows.values()), self._token_budget)
        if top_ranked is None:
            scores, places = self._index.search(vectors, top_k)
            return {
                id_: {self._ids[place]: score for place, score in zip(found, own, strict=True)}
                for id_, found, own in zip(rows, places.tolist(), scores.tolist(), strict=True)
            }
        return {id_: self._ranked(vector, top_ranked[id_], top_k) for id_, vector in zip(rows, vectors, strict=True)}

    def _ranked(self, query: torch.Tensor, candidates: list[str], top_k: int) -> dict[str, float]:
        allowed = torch.zeros(len(self._ids), dtype=torch.bool)
        allowed[[self._places[id_] for id_ in candidates if id_ in self._places]] = True
        scores, places = self._index.search(query[None], top_k, allowed)
        return {self._ids[place]: score for place, score in zip(places[0].tolist(), scores[0].tolist(), strict=True)}
