"""Documents the student never saw in distillation: a fifth of the objects, skills or strategies is held out.

Usage:
    python -m benchmarks.student_transfer household=runs/data/household
    python -m benchmarks.student_transfer saycan=SAYCAN --teacher saycan=runs/saycan-seed{seed}/teacher/model

The teacher has seen all documents. The student is distilled on a corpus without the held-out ones and without the
queries that only they answer, and evaluated on the test queries that a held-out document answers: among the held-out
documents alone, and in the full corpus, where other answers that were not held out are taken away. Beside it students
with a stronger weight decay that read several layers, or every document before some training queries too (anchors);
both of these also with the queries kept, which then nobody judged (documents come later, a log of queries is there).
And the student that saw everything. --joint trains teachers that had a student beside them.
"""

import json
import random
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.document_states import JOINT, LAYERS
from benchmarks.results import bar, grouped, with_earlier, write_result
from benchmarks.students import TeacherBench, bench_parser, benches, recipe_bill, recipe_flags, writes_queries
from benchmarks.tasks import SYSTEM, as_flags, figures
from modeling_rabtriever.evaluation.comparison import evaluate_systems
from modeling_rabtriever.evaluation.labels import TEACHER
from modeling_rabtriever.files import write_text
from modeling_rabtriever.tasks.beir import RetrievalTask

SHARE = 0.2
HELD_OUT, SEEN = "held out", "seen"
HELD_OUT_LAYERS, HELD_OUT_ANCHORS = "held out, several layers", "held out, anchors"
QUERIES_KEPT = ", queries kept"
GOAL = 0.97
CAREFUL = {"weight_decay": "3.0"}  # keeps the document map from memorising
ANCHORS = {"document_anchors": "64", "whitening_damping": "0.3"}


def held_out(task: RetrievalTask, seed: int, by_object: bool) -> list[int]:
    """Corpus rows of a fifth of the documents, or of the objects, each with all its places."""
    things = [corpus_id.partition("-")[0] if by_object else corpus_id for corpus_id in task.corpus_ids]
    names = sorted(set(things))
    chosen = set(random.Random(seed).sample(names, round(SHARE * len(names))))
    return [row for row, thing in enumerate(things) if thing in chosen]


def write_without(task: RetrievalTask, rows: list[int], folder: Path) -> Path:
    """The task in BEIR layout without these documents and the queries that only they answer.

    Those of the training split are in `unjudged.jsonl`.
    """
    gone = set(rows)
    documents = [(task.corpus_ids[row], text) for row, text in enumerate(task.corpus) if row not in gone]
    queries, unjudged = {}, {}
    for name in ("train", "dev"):
        split, lines = task.split(name), ["query-id\tcorpus-id\tscore\n"]
        for query_id, text, relevant in zip(split.query_ids, split.queries, split.relevant, strict=True):
            left = {row: grade for row, grade in relevant.items() if row not in gone}
            if left:
                queries[query_id] = text
                lines += [f"{query_id}\t{task.corpus_ids[row]}\t{grade}\n" for row, grade in left.items()]
            elif name == "train":
                unjudged[query_id] = text
        write_text(folder / "qrels" / f"{name}.tsv", "".join(lines))
    for name, texts in (("corpus", documents), ("queries", queries.items()), ("unjudged", unjudged.items())):
        write_text(folder / f"{name}.jsonl", "".join(json.dumps({"_id": id_, "text": t}) + "\n" for id_, t in texts))
    return folder


def views(scores: Tensor, relevant: list[dict[int, int]], rows: list[int]) -> dict[str, tuple[Tensor, Any]]:
    """Scores and judgements of the queries a held-out document answers: `unseen` columns alone, and `full`."""
    gone = torch.tensor(rows)
    asked = [query for query, judged in enumerate(relevant) if judged.keys() & set(rows)]
    place = {row: column for column, row in enumerate(rows)}
    full = scores[asked].clone()
    for line, query in enumerate(asked):
        others = [row for row in relevant[query] if row not in place]
        full[line, others] = torch.finfo(full.dtype).min
    among = [{place[row]: grade for row, grade in relevant[query].items() if row in place} for query in asked]
    answers = [{row: grade for row, grade in relevant[query].items() if row in place} for query in asked]
    return {"unseen": (scores[asked][:, gone], among), "full": (full, answers)}


def measure(bench: TeacherBench, teacher_name: str) -> list[dict[str, Any]]:
    """The students of one teacher."""
    rows = held_out(bench.task, bench.run.seed, by_object=bench.run.task.startswith("household"))
    folder = write_without(bench.task, rows, bench.folder("transfer-data"))
    flags = recipe_flags(bench.run.task, "rabtriever")
    smaller = ["--data", str(folder)]
    left = len(bench.task.corpus) - len(rows)
    if recipe_bill(bench.run.task) > left:
        smaller += ["--initial_candidates", str(left)]
    layers = as_flags({"feature_layers": LAYERS[bench.run.task], **CAREFUL})
    anchors = as_flags(ANCHORS | CAREFUL)
    kept = [*smaller, "--unjudged_queries", str(folder / "unjudged.jsonl")]
    students = {
        HELD_OUT: bench.distil("transfer", *flags, *smaller),
        HELD_OUT_LAYERS: bench.distil("transfer-layers", *flags, *smaller, *layers),
        HELD_OUT_ANCHORS: bench.distil("transfer-anchors", *flags, *smaller, *anchors),
        SEEN: bench.distil("rabtriever", *flags),
    }
    # A student is given one file of queries without labels.
    if not writes_queries(bench.run.task) and (folder / "unjudged.jsonl").stat().st_size:
        for name, place, settings in ((HELD_OUT_LAYERS, "layers", layers), (HELD_OUT_ANCHORS, "anchors", anchors)):
            students[name + QUERIES_KEPT] = bench.distil(f"transfer-{place}-kept", *flags, *kept, *settings)
    split = bench.task.split("test")
    teacher = views(bench.teacher_scores["test"], split.relevant, rows)
    found = []
    for name, student in students.items():
        own = views(bench.student_scores(student, split), split.relevant, rows)
        view_figures = {
            view: figures(evaluate_systems({TEACHER: teacher[view][0], SYSTEM: scores}, judged), SYSTEM)
            for view, (scores, judged) in own.items()
        }
        row = {"task": bench.run.task, "seed": bench.run.seed, "teacher": teacher_name, "student": name}
        found.append({**row, "held_out": len(rows), "documents": len(bench.task.corpus), **view_figures})
    return found


def bars_of(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the student keeps of its teacher on documents it never saw."""
    bars = []
    for (task, teacher, name), seeds in grouped(rows, "task", "teacher", "student"):
        for view in () if name == SEEN else ("unseen", "full"):
            kept = [row[view][SYSTEM]["mean"] / row[view][TEACHER]["mean"] for row in seeds]
            label = f"student R@1 / teacher R@1, {task}, {name}, teacher {teacher}, ranked {view}, {len(seeds)} seeds"
            bars.append(bar(label, sum(kept) / len(kept), ">=", GOAL, seeds[0][view]["n"]))
    return bars


def main() -> None:
    """Measures all tasks and seeds, and puts them into the result file."""
    parser = bench_parser(__doc__, "runs/benchmark/transfer")
    parser.add_argument("--joint", action="store_true", help="train the teachers with a student beside them")
    arguments = parser.parse_args()
    if arguments.joint:
        arguments.flags += " " + " ".join(as_flags(JOINT))
        arguments.runs /= "joint"
    for bench in benches(arguments):
        new = measure(bench, "joint student" if arguments.joint else "recipe")
        rows = with_earlier("benchmarks.student_transfer", new, ("task", "seed", "teacher", "student"))
        settings = {"share": SHARE, "joint": JOINT, "layers": LAYERS, "anchors": ANCHORS, "careful": CAREFUL}
        print(write_result("benchmarks.student_transfer", settings, rows, bars_of(rows)))


if __name__ == "__main__":
    main()
