"""The page as a folder for a Space of the Hugging Face Hub."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import gradio

from .. import __version__
from ..files import write_folder
from ..modeling_generative_reranker import GenerativeRerankerModel
from ..modeling_rabtriever import RabtrieverModel
from ..retrieval.documents import Document
from .page import checked_examples
from .ranking import Ranker

README = """\
---
title: Rabtriever
emoji: 🔎
colorFrom: green
colorTo: blue
sdk: gradio
sdk_version: {gradio}
python_version: "{python}"
app_file: app.py
{models}short_description: Retrieval by reasoning, scored by an inner product
---

# Rabtriever

Ranks documents for a query with BM25, Rabtriever{and_teacher} side by side, on `corpus.jsonl` or on a visitor's own
documents, and shows the terms of each score. On your machine: `pip install -r requirements.txt`, then `python app.py`.
"""
APP = '''\
"""The page: `python app.py`, or a Space of the Hugging Face Hub."""

from pathlib import Path

from transformers import AutoModel

from modeling_rabtriever.demo import read_corpus, serve

HERE = Path(__file__).parent
EXAMPLES = {examples}

if __name__ == "__main__":
    serve(
        {student},
        read_corpus(HERE / "corpus.jsonl"),
        teacher={teacher},
        examples=EXAMPLES,
    )
'''


def write_space(
    folder: str | Path,
    student: RabtrieverModel,
    documents: Sequence[Document],
    teacher: GenerativeRerankerModel | None = None,
    examples: Sequence[str] = (),
    student_id: str | None = None,
    teacher_id: str | None = None,
    revision: str = "main",
) -> Path:
    """Writes `app.py`, `requirements.txt`, `README.md`, `corpus.jsonl` and the models that are not on the Hub.

    Args:
        folder: a new folder.
        student: as in `serve`.
        documents: as in `serve`.
        teacher: as in `serve`.
        examples: as in `serve`.
        student_id: the student's Hub id, from which the Space loads it; `None` saves the student into the folder.
        teacher_id: the same for the teacher.
        revision: of both ids.

    Returns:
        The folder.

    Raises:
        ValueError: the folder is not empty or cannot be written, or `serve` would refuse the arguments.
    """
    Ranker(student, teacher)  # checks the models before anything is written
    examples = checked_examples(examples)

    def write(place: Path) -> None:
        loads = []
        for name, model, hub_id in (("student", student, student_id), ("teacher", teacher, teacher_id)):
            if model is not None and hub_id is None:
                model.save_pretrained(place / name)
            local = f'HERE / "{name}"'
            source = local if hub_id is None else f"{json.dumps(hub_id)}, revision={json.dumps(revision)}"
            loads.append(f"AutoModel.from_pretrained({source}, trust_remote_code=False).eval()")
        listed = "".join(f"  - {hub_id}\n" for hub_id in (student_id, teacher_id) if hub_id is not None)
        texts = {
            "app.py": APP.format(
                examples=json.dumps(examples, ensure_ascii=False, indent=4),
                student=loads[0],
                teacher=None if teacher is None else loads[1],
            ),
            "requirements.txt": f"modeling-rabtriever[demo]=={__version__}\n",
            "README.md": README.format(
                gradio=gradio.__version__,
                python=f"{sys.version_info.major}.{sys.version_info.minor}",
                models=f"models:\n{listed}" if listed else "",
                and_teacher="" if teacher is None else " and its teacher",
            ),
            "corpus.jsonl": "".join(
                json.dumps({"id": document.id, "text": document.text}, ensure_ascii=False) + "\n"
                for document in documents
            ),
        }
        for name, text in texts.items():
            (place / name).write_text(text, encoding="utf-8")

    try:
        return write_folder(Path(folder), write)
    except OSError as error:
        raise ValueError(f"{folder} cannot be written ({error.strerror or error}); accepted: a new folder") from error
