"""The cost of encoding and searching 10^8 documents: a cost model, checked against measurements.

Usage:
    python -m benchmarks.search_cost     # after search_encoding, search_stores and search_memory; takes no time

The model, with N documents of L tokens, a backbone of P parameters outside its embeddings, k numbers of b bytes:

    encoding   N L (2 P / F + t)     F: FLOP/s the backbone reaches, t: seconds to tokenise a token
    vectors    N k b bytes
    one query  N k b / B             B: bytes/s a scan reads; q queries at once: at least 2 N k q / F

F and t come from search_encoding, and B from the smaller corpus of search_stores. The model then predicts time and
bytes of search_memory and of the larger corpus. The plan for 10^8 documents uses NVIDIA's figures for an H100; the
shares of them that are reached are assumptions until benchmarks.search_gpu has run on one.
"""

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.results import FOLDER, write_result

DOCUMENTS, TOKENS, GPUS = 100_000_000, 64, 64
# Dense bf16 FLOP/s, bytes/s and bytes of one H100 SXM (NVIDIA's data sheet), and the shares assumed to be reached.
H100 = {"flops": 989e12, "bytes_per_second": 3.35e12, "bytes": 80e9}
ENCODING_SHARE, READING_SHARE, MEMORY_SHARE = 0.4, 0.7, 0.85
TOKENISING_CORES = 16  # per GPU; tokenisers release the interpreter and use them all
# Parameters outside the embeddings, worked out from their configurations (benchmarks.search_students and
# modeling_rabtriever/recipes/backbones).
PLANS = (
    ("all-MiniLM-L6-v2", 10_646_784, 384),
    ("Qwen2.5-0.5B", 357_898_112, 256),
    ("Qwen3-0.6B", 440_467_456, 1024),
    ("Qwen2-7B", 6_525_621_760, 3584),
)
BYTES = {"float32": 4, "float16": 2, "int8": 1}


def encoding_seconds(tokens: float, parameters: float, flops: float, tokenising: float) -> float:
    """Seconds to encode this many tokens."""
    return tokens * (2 * parameters / flops + tokenising)


def plan(name: str, parameters: int, width: int, tokenising: float) -> dict[str, Any]:
    """One backbone and width at 10^8 documents."""
    flops = ENCODING_SHARE * H100["flops"]
    seconds = encoding_seconds(DOCUMENTS * TOKENS, parameters, flops, tokenising / TOKENISING_CORES)
    vectors = {kind: DOCUMENTS * width * size for kind, size in BYTES.items()}
    held = MEMORY_SHARE * H100["bytes"]
    machines = -(-vectors["float16"] // held)
    return {
        "what": "plan",
        "backbone": name,
        "k": width,
        "gpu_hours": seconds / 3600,
        "hours_on_all_gpus": seconds / 3600 / GPUS,
        "vector_gigabytes": {kind: size / 1e9 for kind, size in vectors.items()},
        "gpus_that_hold_float16": int(machines),
        "milliseconds_per_query": 1e3 * vectors["float16"] / (machines * READING_SHARE * H100["bytes_per_second"]),
    }


def check(what: str, unit: str, predicted: float, measured: float) -> dict[str, Any]:
    """A prediction and the measurement."""
    return {"what": what, "unit": unit, "predicted": predicted, "measured": measured, "ratio": predicted / measured}


def measured(name: str) -> dict[str, Any]:
    """A result file."""
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def checks(encoding: dict[str, Any], stores: dict[str, Any], memory: dict[str, Any]) -> list[dict[str, Any]]:
    """Predictions for the second halves of the measurements, from the first halves."""
    flops, tokenising = rates(encoding)
    row = memory["rows"][0]
    tokens = row["documents"] * row["tokens_per_document"]
    seconds = encoding_seconds(tokens, row["parameters"], flops, tokenising)
    exact = {r["documents"]: r for r in stores["rows"] if r["engine"] == "ours fp32"}
    small, large = exact[min(exact)], exact[max(exact)]
    reading = 1e9 * small["gb_per_second"]
    size = large["documents"] * large["k"] * 4
    return [
        check(f"encoding {row['documents']:,} short documents, another backbone", "s", seconds, row["seconds"]),
        check("their vectors on disk", "GB", row["documents"] * row["embedding_dim"] * 4e-9, row["vector_bytes"] / 1e9),
        check(
            f"one query over {large['documents']:,} x {large['k']}", "ms", 1e3 * size / reading, large["one_query_ms"]
        ),
    ]


def rates(encoding: dict[str, Any]) -> tuple[float, float]:
    """FLOP/s of the bare backbone, and seconds to tokenise a token; medians of `search_encoding`."""
    speeds = [row["tokens_per_second"] for row in encoding["rows"]]
    bare = statistics.median(speed["bare"] for speed in speeds)
    tokenising = statistics.median(speed["tokenising"] for speed in speeds)
    return 2 * encoding["settings"]["parameters"] * bare, 1 / tokenising


def main() -> Path:
    """Writes the result file."""
    encoding = measured("search_encoding")
    rows = checks(encoding, measured("search_stores"), measured("search_memory"))
    rows += [plan(*settings, rates(encoding)[1]) for settings in PLANS]
    settings = {"documents": DOCUMENTS, "tokens": TOKENS, "gpus": GPUS, "h100": H100, "encoding_share": ENCODING_SHARE}
    settings |= {"reading_share": READING_SHARE, "memory_share": MEMORY_SHARE, "tokenising_cores": TOKENISING_CORES}
    return write_result("benchmarks.search_cost", settings, rows, [])


if __name__ == "__main__":
    print(main())
