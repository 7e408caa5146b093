"""Encoding a corpus: tokens per second against sentence-transformers and against a bare forward of the same tokens.

Usage:
    python -m benchmarks.search_encoding              # ten minutes on two cores

The random backbone of benchmarks.teacher_scoring. Documents of 16 to 256 tokens, most of them short. Rabtriever and
sentence-transformers (last token of the same backbone) go from text to vectors; "bare" runs the backbone over the same
number of tokens, cut into rows of equal length, without tokenising, padding or pooling, which is the upper limit.
"tokenising" is only Rabtriever's tokenisation of the texts.
"""

import argparse
import math
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.opponents import untrained
from benchmarks.results import bar, write_result
from benchmarks.teacher_scoring import BACKBONE, TextMaker, make_reranker, make_student
from benchmarks.timing import interleaved, median_ratio
from modeling_rabtriever.modeling_prompted import OTHER_TOKEN_BUDGET, TOKEN_BUDGETS

SHORTEST, LONGEST, MEDIAN, SPREAD = 16, 256, 48, 0.7  # tokens: a log-normal distribution, clipped
WIDTH = 256
SENTENCE_TRANSFORMERS_BATCH = 32  # its default


def lengths(count: int, rng: random.Random) -> list[int]:
    """Tokens of each document."""
    drawn = (round(rng.lognormvariate(math.log(MEDIAN), SPREAD)) for _ in range(count))
    return [min(max(length, SHORTEST), LONGEST) for length in drawn]


def ways(folder: str, count: int, rounds: int) -> tuple[dict[str, Callable[[int], Any]], list[int], int]:
    """All ways, the tokens of each round, and the number of backbone parameters that each token is multiplied with."""
    reranker = make_reranker()
    student = make_student(reranker, WIDTH)
    encoder = untrained(reranker, "InfoNCE", Path(folder)).eval()
    rng = random.Random(0)
    texts = TextMaker(reranker.processor, rng)
    corpora = [[texts.document(length) for length in lengths(count, rng)] for _ in range(rounds + 1)]
    head, tail = reranker.processor.document_template.split("{document}")
    prompted = [[head + text + tail for text in corpus] for corpus in corpora]
    ids = [[token for row in reranker.processor.document_ids(corpus) for token in row] for corpus in corpora]
    tokens = list(map(len, ids))
    mean = tokens[0] // count
    budget = TOKEN_BUDGETS.get(student.device.type, OTHER_TOKEN_BUDGET)
    rows = [torch.tensor(flat[: len(flat) // mean * mean]).view(-1, mean) for flat in ids]

    @torch.no_grad()
    def bare(number: int) -> None:
        for batch in rows[number].split(budget // mean):
            student.backbone(input_ids=batch, use_cache=False)

    def sentence_transformers(number: int) -> None:
        encoder.encode(prompted[number], batch_size=SENTENCE_TRANSFORMERS_BATCH, show_progress_bar=False)

    found: dict[str, Callable[[int], Any]] = {
        "Rabtriever": lambda number: student.encode_document(corpora[number], progress=False),
        "sentence-transformers": sentence_transformers,
        "bare": bare,
        "tokenising": lambda number: reranker.processor.document_ids(corpora[number]),
    }
    return found, tokens, student.backbone.num_parameters() - student.get_input_embeddings().weight.numel()


def main() -> None:
    """Measures and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=400, help="per round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        measured, tokens, parameters = ways(folder, arguments.documents, arguments.rounds)
        seconds = interleaved(measured, arguments.rounds)
    rows: list[dict[str, Any]] = [
        {
            "round": number,
            "tokens": tokens[number],
            "tokens_per_second": {name: tokens[number] / taken[number] for name, taken in seconds.items()},
        }
        for number in range(arguments.rounds)
    ]
    bars = []
    for other, limit in (("sentence-transformers", 1.0), ("bare", 0.85)):
        ratio, interval = median_ratio(seconds[other], seconds["Rabtriever"])
        name = f"encoding, tokens per second: Rabtriever / {other}"
        bars.append(bar(name, ratio, ">=", limit, arguments.rounds, interval))
    settings = {**vars(arguments), "tokens": {"from": SHORTEST, "to": LONGEST, "median": MEDIAN}, "width": WIDTH}
    settings |= {
        "parameters": parameters,
        "backbone": BACKBONE,
        "dtype": "float32",
        "interval": "smallest and largest round",
    }
    print(write_result("benchmarks.search_encoding", settings, rows, bars))


if __name__ == "__main__":
    main()
