"""Encoding on many machines with a Ray Data pipeline: spans of the source -> actors that read and encode -> shards.

Ray only passes numbers: an actor reads its span of the source and writes one shard. If a worker is lost, Ray gives the
shards it was working on to another one. A second call writes what is missing.
"""

from pathlib import Path
from typing import Any

import torch

from ..loading import load_model
from .corpus_vectors import CorpusVectors, documents_digest, shard_path
from .documents import DocumentReader
from .encoding import EncodingFolder, checked, chunks, encode_shard
from .metadata_columns import cleaned


class _Encoder:
    """An actor: one copy of the model."""

    def __init__(
        self, model: str, options: dict[str, Any], folder: str, vector_type: str, token_budget: int | None
    ) -> None:
        self.model = load_model(model, device="cuda" if torch.cuda.is_available() else "cpu", **options)
        self.folder, self.vector_type, self.token_budget = Path(folder), vector_type, token_budget

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        reader = DocumentReader(row["source"], bool(row["skip_bad"]), (int(row["begin"]), int(row["end"])))
        documents = list(cleaned(reader))
        path = shard_path(self.folder, int(row["number"]))
        encode_shard(self.model, path, documents, self.vector_type, self.token_budget)
        return {"number": row["number"], "documents": len(documents)}


def encode_corpus_with_ray(
    model: str,
    documents: DocumentReader,
    folder: str | Path,
    workers: int,
    vector_type: str = "float32",
    documents_per_shard: int = 8192,
    token_budget: int | None = None,
    address: str | None = None,
    **options: Any,
) -> CorpusVectors:
    """Like `encode_corpus`, with the actors of a Ray cluster.

    This process reads the source twice, to cut it into spans and to check it. The actors read it once more.

    Args:
        model: folder or Hub id of the student, which every actor loads.
        documents: a `.jsonl` or `.parquet` file on a file system that all machines share.
        folder: output folder, on such a file system.
        workers: number of actors; each takes a GPU if the cluster has enough of them, and otherwise a CPU core.
        vector_type: as for `encode_corpus`.
        documents_per_shard: as for `encode_corpus`; an actor encodes one shard at a time.
        token_budget: as for `encode_corpus`.
        address: of a running cluster; `None` starts a local one.
        options: of `load_model` (`dtype`, `revision`, `trust_remote_code`).

    Raises:
        ValueError: as `encode_corpus`, before the workers start; or `workers` is below 1, or the source is not a file.
    """
    import ray

    if workers < 1:
        raise ValueError(f"workers is {workers}; accepted: 1 or more")
    student = load_model(model, **options)
    target = EncodingFolder(Path(folder).absolute(), student, vector_type, documents_per_shard)
    del student
    source = {"source": str(Path(documents.source).absolute()), "skip_bad": documents.skip_bad}
    rows = [
        {**source, "number": number, "begin": begin, "end": end}
        for number, (begin, end) in enumerate(documents.spans(documents_per_shard))
    ]
    digests, count = [], 0
    for number, chunk in enumerate(chunks(checked(documents), documents_per_shard)):
        digests.append(documents_digest(chunk))
        target.admit(number, len(chunk), digests[-1])
    if len(digests) != len(rows):
        raise ValueError(f"{documents.source} changed while it was read; accepted: a file that does not change")
    if rows:
        target.begin(digests)
        if not ray.is_initialized():
            local: dict[str, Any] = {} if address else {"num_cpus": workers + 1, "include_dashboard": False}
            ray.init(address=address, log_to_driver=False, **local)
        gpus = ray.cluster_resources().get("GPU", 0) >= workers
        pipeline = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Encoder,  # type: ignore[arg-type]  # Ray's annotation only allows functions
            fn_constructor_args=(model, options, str(target.path), vector_type, token_budget),
            compute=ray.data.ActorPoolStrategy(size=min(workers, len(rows))),
            num_gpus=1 if gpus else 0,
            num_cpus=0 if gpus else 1,
        )
        count = sum(row["documents"] for row in pipeline.take_all())
    return target.finish(count, digests)
