"""Answers queries with saved models in a separate process, as a user does who has only the model folders.

The stage quickstart runs this script without the package: `python answer.py TEACHER STUDENT < request.json`. The code
of the models comes from their folders (trust_remote_code).
"""

import json
import sys
from typing import Any

sys.modules["modeling_rabtriever"] = None  # type: ignore[assignment]  # importing the package here is an error

from transformers import AutoModel  # noqa: E402
from transformers.utils import logging  # noqa: E402


def answer(teacher_folder: str, student_folder: str, queries: list[str], documents: list[str]) -> list[dict[str, Any]]:
    """Ranks all documents for each query, with the student's index and with a teacher that scores every pair."""
    student = AutoModel.from_pretrained(student_folder, trust_remote_code=True)
    teacher = AutoModel.from_pretrained(teacher_folder, trust_remote_code=True)
    index = student.encode_document(documents)  # one vector per document, computed once
    scores = student.similarity(student.encode_query(queries), index)
    return [
        {
            "query": query,
            "student": _best(scores[row].tolist(), documents),
            "teacher": [
                {"document": hit["text"], "score": hit["score"], "row": hit["corpus_id"]}
                for hit in teacher.rank(query, documents)
            ],
            "code": type(student).__module__,
        }
        for row, query in enumerate(queries)
    ]


def _best(scores: list[float], documents: list[str]) -> list[dict[str, Any]]:
    order = sorted(range(len(documents)), key=lambda row: -scores[row])
    return [{"document": documents[row], "score": scores[row], "row": row} for row in order]


if __name__ == "__main__":
    logging.disable_progress_bar()
    request = json.load(sys.stdin)
    json.dump(answer(sys.argv[1], sys.argv[2], request["queries"], request["documents"]), sys.stdout)
