"""Scores of a saved model on fixed texts; as a program, in a process that has the folder but not the package.

Usage: python -I modeling_rabtriever/cards/release_scores.py FOLDER    # prints {"module": ..., "scores": [[...], ...]}
"""

import json
import sys
from typing import Any

from torch import Tensor, stack

QUERIES = ["I spilled my drink.", "Πού είναι η λάμπα;", "我够不到架子"]
DOCUMENTS = ["bring the sponge", "bring a lamp to the attic", "call a doctor", "the very long wooden ladder " * 40]


def fixed_scores(model: Any) -> Tensor:
    """Every query against every document: `(3, 4)` fp32, log-odds (teacher) or inner products (student)."""
    if hasattr(model, "encode_document"):
        scores: Tensor = model.similarity(model.encode_query(QUERIES), model.encode_document(DOCUMENTS))
        return scores.float().cpu()
    rows = [model.predict([(query, document) for document in DOCUMENTS]) for query in QUERIES]
    return stack(rows).float().cpu()


if __name__ == "__main__":
    sys.modules["modeling_rabtriever"] = None  # type: ignore[assignment]  # importing it raises an ImportError
    from transformers import AutoModel

    loaded = AutoModel.from_pretrained(sys.argv[1], trust_remote_code=True)
    print(json.dumps({"module": type(loaded).__module__, "scores": fixed_scores(loaded).tolist()}))
