"""A query with students of several sizes against one teacher, and the cost model of docs/scale.md at these sizes.

Usage:
    python -m benchmarks.search_students              # a quarter of an hour on two cores

Random weights, so that nothing is downloaded: the teacher has the shape of SmolLM2-135M; the students have that of
all-MiniLM-L6-v2 (22M parameters), of the teacher's first layers, or of the whole teacher. A query of 32 tokens is
answered over 8 documents of 32 tokens. The teacher reads the 8 pairs, and every student is timed beside it in turn.

The cost model says that encoding takes 2 x tokens x parameters / F seconds. F is measured with the 10.6M backbone of
the other benchmarks, in the same rounds as the students whose time the model then predicts: of 22M parameters, and of
Qwen3-0.6B's shape.
"""

import argparse
import random
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import AutoConfig, AutoModel

from benchmarks.results import bar, write_result
from benchmarks.teacher_scoring import TextMaker, make_reranker, make_student
from benchmarks.timing import interleaved, median_ratio, milliseconds
from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.distillation.encoders import Encoder, student_of, teachers_encoder
from modeling_rabtriever.distillation.student_arguments import StudentArguments

SMOLLM2 = {
    "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49_152, "tie_word_embeddings": True,
}  # fmt: skip
MINILM = {
    "model_type": "bert", "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6,
    "num_attention_heads": 12, "vocab_size": 30_522,
}  # fmt: skip
QWEN3 = {
    "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "head_dim": 128,
    "num_attention_heads": 16, "num_key_value_heads": 8, "vocab_size": 151_936, "tie_word_embeddings": True,
}  # fmt: skip
PAIRS, TOKENS = 8, 32  # documents of a query; tokens of the query and of each document
LONGEST = 128  # tokens of a document, which BERT's window of 512 holds
LAYERS = (6, 12, 30)  # of the teacher's
SMALL, LARGE = "all-MiniLM-L6-v2's shape", "Qwen3-0.6B's shape"
FASTER = 10.0  # times, than the teacher: what the paper reports at eight pairs
ENCODED = {SMALL: (64, 64), LARGE: (4, 64)}  # documents and tokens of each, to encode per round
OFF = 1.5  # the factor by which the cost model may be wrong


def student_on(teacher: GenerativeRerankerModel, shape: dict[str, Any]) -> RabtrieverModel:
    """A student with random weights of another shape, which reads the teacher's prompt."""
    config = AutoConfig.for_model(**shape)
    model = AutoModel.from_config(config)
    weights = {name: weight for name, weight in model.state_dict().items() if not name.startswith("pooler.")}
    encoder = Encoder(config, weights, teacher.processor.replace(max_document_length=LONGEST), ["mean"])
    return student_of(encoder, teacher.answer_direction, StudentArguments(embedding_dim=config.hidden_size)).served()


def parameters(student: RabtrieverModel) -> int:
    """Of the encoder, outside its embeddings."""
    layers = (weight for name, weight in student.backbone.named_parameters() if "embed" not in name)
    return sum(weight.numel() for weight in layers)


def measured_queries(rounds: int) -> list[dict[str, Any]]:
    """One row per student: milliseconds of a query, and how many times faster than the teacher it is."""
    teacher = make_reranker(SMOLLM2)
    texts = TextMaker(teacher.processor, random.Random(0))
    documents = [texts.document(TOKENS) for _ in range(PAIRS)]
    queries = [texts.query(TOKENS) for _ in range(rounds + 1)]
    students = {SMALL: student_on(teacher, MINILM)}
    for layers in LAYERS:
        shape = StudentArguments(embedding_dim=SMOLLM2["hidden_size"])
        encoder = teachers_encoder(teacher, layers)
        students[f"the teacher's first {layers} layers"] = student_of(encoder, teacher.answer_direction, shape).served()
    vectors = {name: student.encode_document(documents) for name, student in students.items()}

    def answered(name: str, number: int) -> Any:
        student = students[name]
        return student.similarity(student.encode_query([queries[number]]), vectors[name]).argsort(descending=True)

    ways: dict[str, Callable[[int], Any]] = {name: partial(answered, name) for name in students}
    ways["teacher"] = lambda number: teacher.rank(queries[number], documents)
    seconds = interleaved(ways, rounds)
    rows = []
    for name, student in students.items():
        ratio, interval = median_ratio(seconds["teacher"], seconds[name])
        row = {"what": "query", "student": name, "parameters": parameters(student), "rounds": rounds}
        row |= {"milliseconds": milliseconds(seconds)[name], "teacher_milliseconds": milliseconds(seconds)["teacher"]}
        rows.append(row | {"times_faster": ratio, "interval": interval})
        print(rows[-1], flush=True)
    return rows


def measured_encoding(name: str, shape: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Seconds to encode documents with a student, and what the model predicts from another backbone's rate."""
    count, length = ENCODED[name]
    reranker = make_reranker()
    other = make_student(reranker, 384)
    student = student_on(reranker, shape)
    texts = TextMaker(reranker.processor, random.Random(0))
    corpora = [[texts.document(length) for _ in range(count)] for _ in range(rounds + 1)]
    ways: dict[str, Callable[[int], Any]] = {
        "student": lambda number: student.encode_document(corpora[number]),
        "other": lambda number: other.encode_document(corpora[number]),
    }
    seconds = interleaved(ways, rounds)
    factor = parameters(student) / parameters(other)
    ratio, interval = median_ratio([factor * taken for taken in seconds["other"]], seconds["student"])
    row = {"what": "encoding", "student": name, "parameters": parameters(student), "rounds": rounds}
    row |= {"documents": count, "tokens": length, "predicted": factor * statistics.median(seconds["other"])}
    row |= {"measured": statistics.median(seconds["student"]), "ratio": ratio, "interval": interval}
    print(row, flush=True)
    return row


def bars_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every student against the teacher, and the cost model against every measurement."""
    bars = []
    for row in rows:
        if row["what"] == "query":
            name = f"whole query, {PAIRS} documents of {TOKENS} tokens, {row['student']}: teacher / student"
            bars.append(bar(name, row["times_faster"], ">=", FASTER, row["rounds"], row["interval"]))
        else:
            name = f"encoding, {row['student']}: factor by which the cost model is wrong"
            bars.append(bar(name, max(row["ratio"], 1 / row["ratio"]), "<=", OFF, row["rounds"]))
    return bars


def main() -> None:
    """Measures and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="of the queries; a third of it for encoding")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    rows = measured_queries(arguments.rounds)
    rows += [measured_encoding(SMALL, MINILM, arguments.rounds), measured_encoding(LARGE, QWEN3, arguments.rounds // 3)]
    settings = {
        **vars(arguments),
        "pairs": PAIRS,
        "tokens": TOKENS,
        "teacher": SMOLLM2,
        "small": MINILM,
        "large": QWEN3,
    }
    settings |= {"dtype": "float32", "threads": torch.get_num_threads()}
    print(write_result("benchmarks.search_students", settings, rows, bars_of(rows)))


if __name__ == "__main__":
    main()
