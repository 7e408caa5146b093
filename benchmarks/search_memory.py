"""Memory for encoding a million short documents, beyond that of the loaded model, and time and bytes.

Usage:
    python -m benchmarks.search_memory --model runs/household/student/model       # ten minutes on two cores

Encodes documents of about ten words from a JSONL file, as `rabtriever encode` does, and measures resident memory
from the moment the model is loaded. Time and bytes are the measured points behind the cost model in docs/scale.md.
"""

import argparse
import itertools
import json
import tempfile
import time
from pathlib import Path

import torch
from transformers import AutoModel

from benchmarks.results import bar, write_result
from benchmarks.teacher_scoring import peak_memory_gb, reset_peak_memory
from modeling_rabtriever.retrieval import DocumentReader, encode_corpus
from modeling_rabtriever.tasks.household import corpus, read_world


def write_corpus(path: Path, count: int) -> None:
    """Errands of the household world, two a document, all different."""
    errands = list(corpus(read_world(large=True)).values())
    with path.open("w") as file:
        for number, (first, second) in enumerate(itertools.islice(itertools.product(errands, errands), count)):
            file.write(json.dumps({"_id": str(number), "title": "", "text": f"{first}, {second}"}) + "\n")


def main() -> None:
    """Measures and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a student")
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--vectors", default="float32", choices=["float32", "float16", "int8"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "corpus.jsonl", Path(folder) / "vectors"
        write_corpus(source, arguments.documents)
        model = AutoModel.from_pretrained(arguments.model).eval()
        sample = [json.loads(line)["text"] for line in itertools.islice(source.open(), 1000)]
        model.encode_document(sample)  # loads everything that is loaded on first use
        reset_peak_memory()
        before = peak_memory_gb()
        start = time.perf_counter()
        encode_corpus(model, DocumentReader(str(source)), output, arguments.vectors)
        seconds = time.perf_counter() - start
        row = {
            "documents": arguments.documents,
            "seconds": seconds,
            "documents_per_second": arguments.documents / seconds,
            "peak_gb_over_model": peak_memory_gb() - before,
            "source_bytes": source.stat().st_size,
            "vector_bytes": sum(path.stat().st_size for path in output.glob("*.parquet")),
            "embedding_dim": model.config.embedding_dim,
            "vectors": arguments.vectors,
            "tokens_per_document": sum(map(len, model.processor.document_ids(sample))) / len(sample),
            "parameters": model.backbone.num_parameters() - model.get_input_embeddings().weight.numel(),
        }
    print(row)
    name = f"peak memory over the model, {arguments.documents:,} documents, GB"
    bars = [bar(name, row["peak_gb_over_model"], "<=", 1.5, 1)]
    print(write_result("benchmarks.search_memory", vars(arguments), [row], bars))


if __name__ == "__main__":
    main()
