"""Stage 3: evaluates models beside trivial baselines, over the whole corpus.

Usage:
    python -m training.evaluate --config training/recipes/household.yaml
    python -m training.evaluate --model path/or/hub-id --task esconv
    python -m training.evaluate --model path/or/hub-id mine=another/bi-encoder --task path/to/beir --splits dev test
    python -m training.evaluate --run_files other-system.trec --task path/to/beir --output_dir runs/evaluation/other

A model is a reranker, a Rabtriever, or a bi-encoder of sentence-transformers; without --model, the teacher and the
student of <output_dir>. A task is a folder in BEIR layout, hub:<data set>, or a name of training/tasks/named.yaml.
Models run on the GPU where there is one, all at once; CUDA_VISIBLE_DEVICES= leaves them on the CPU.

Writes into <output_dir>/evaluation for each split the report (<split>.json), query-level metrics, a run file in TREC's
form per system, plots, and report.md over all splits; and a model card into the folders of this run's own models.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evaluation.baselines import BM25
from evaluation.calibration import expected_calibration_error, reliability
from evaluation.faithfulness import score_faithfulness, state_faithfulness
from evaluation.metrics import Run, rank_documents
from evaluation.plots import recall_curves, reliability_diagram, score_histograms
from evaluation.report import DEPTH, NOTE, STUDENT, TEACHER, query_values, report_text, summary
from evaluation.runs import read_run, run_names, write_query_values, write_run
from evaluation.systems import System, baselines, load_system, name_and_path, public_encoder
from model_cards.generate import write_cards
from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.files import write_json, write_tensors, write_text
from modeling_rabtriever.loading import DTYPES
from training.processes import on_main
from training.recipe import parse_stage
from training.stages import StageFolder, earlier_model, file_digest, model_digest
from training.tasks.beir import RetrievalTask, Split
from training.tasks.named import check_leakage, load_task
from training.train_reranker import RunArguments

STATE_QUERIES = 100  # of a split, whose predicted states are held against the teacher's


@dataclass
class EvaluationArguments:
    """What is evaluated."""

    output_dir: str = field(default="runs/evaluation", metadata={"help": "Folder of the run."})
    model: list[str] | None = field(
        default=None,
        metadata={
            "help": "Folders or Hub ids of rerankers, Rabtrievers, sentence-transformers bi-encoders, each with NAME= "
            "before it where tables should call it so; default: the teacher and the student of output_dir, or none "
            "where run_files are given."
        },
    )
    run_files: list[str] = field(
        default_factory=list,
        metadata={"help": "Rankings of other systems in TREC's form, one file per system, of one split."},
    )
    sentence_encoder: str | None = field(
        default="sentence-transformers/all-MiniLM-L6-v2",
        metadata={"help": "Public bi-encoder as a baseline, if its weights are on this machine; null for none."},
    )
    splits: list[str] = field(default_factory=lambda: ["test"], metadata={"help": "Splits to evaluate."})
    candidates: int | None = field(
        default=None,
        metadata={
            "help": "Let every system rank BM25's first so many documents alone, where the corpus is too large for a "
            "reranker to judge it all; what BM25 misses counts as missed. Default: the whole corpus."
        },
    )
    max_queries: int | None = field(
        default=None, metadata={"help": "Evaluate this many queries of each split, drawn with a fixed seed."}
    )
    seed: int = field(
        default=0, metadata={"help": "Of the bootstrap intervals. The draw of queries is the same for all seeds."}
    )
    dtype: str = field(
        default="auto",
        metadata={
            "help": "Type of the models' weights; auto: as saved.",
            "choices": list(DTYPES),
        },
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Whether code from the models' repositories may run."}
    )

    def __post_init__(self) -> None:
        if not self.splits:
            raise ValueError("splits is []; accepted: at least one")
        if self.max_queries is not None and self.max_queries < 1:
            raise ValueError(f"max_queries is {self.max_queries}; accepted: 1 or more, or null for all")
        if self.run_files and len(self.splits) > 1:
            raise ValueError(f"run_files given and splits are {self.splits}; accepted: one split, the files' own")
        if self.candidates is not None and self.candidates < 1:
            raise ValueError(f"candidates is {self.candidates}; accepted: 1 or more, or null for the whole corpus")


ARGUMENTS = (RunArguments, EvaluationArguments)


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the stage and returns the folder with the reports; of several processes the main one works."""
    run, arguments = parse_stage("evaluate", ARGUMENTS, argv)
    return on_main(lambda: evaluate(run, arguments))


def evaluate(run: RunArguments, arguments: EvaluationArguments) -> Path:
    """The stage with these settings."""
    output = Path(arguments.output_dir)
    task = load_task(run.data, run.skip_bad)
    chosen = [fixed_sample(task.split(name), arguments.max_queries) for name in arguments.splits]
    paths = arguments.model
    if paths is None:
        wanted = () if arguments.run_files else ("teacher", "student")
        paths = [earlier_model(None, arguments.output_dir, name, "train it first, or pass --model") for name in wanted]
    files = run_names(arguments.run_files)
    given = {system: read_run(path, chosen[0].query_ids, task.corpus_ids) for system, path in files.items()}
    inputs = {path: model_digest(name_and_path(path)[1]) for path in paths} | {
        name: file_digest(path) for name, path in files.items()
    }
    stage = StageFolder(output / "evaluation", (run, arguments), {"task": task.fingerprint(), **inputs}, run.overwrite)
    if stage.done:
        print(f"evaluation: done before, in {stage.folder}")
        return stage.folder
    systems = baselines(task, run.train_split)
    if arguments.sentence_encoder is not None:
        encoder = public_encoder(arguments.sentence_encoder, task.corpus)
        systems += [encoder] if encoder is not None else []
    systems += [load_system(path, task.corpus, arguments.dtype, arguments.trust_remote_code) for path in paths]
    reports = [
        evaluate_split(task, split, systems, arguments.seed, stage.folder, given, arguments.candidates)
        for split in chosen
    ]
    text = "\n\n".join(map(report_text, reports))
    text = f"# Evaluation on {task.name}\n\n{text}\n\n{NOTE}\n"
    write_text(stage.folder / "report.md", text)
    print(text)
    if arguments.model is None and not files:
        write_cards(output)
    stage.finish()
    return stage.folder


def fixed_sample(split: Split, count: int | None) -> Split:
    """The same `count` queries of a split every time, in their order; all of them without a count."""
    if count is None or count >= len(split):
        return split
    return split.take(sorted(random.Random(13).sample(range(len(split)), count)))


def evaluate_split(
    task: RetrievalTask,
    split: Split,
    systems: Sequence[System],
    seed: int,
    folder: Path,
    given: dict[str, Run] | None = None,
    candidates: int | None = None,
) -> dict[str, Any]:
    """Ranks documents for a split with every system and writes all that is known of it to `folder`.

    Calibration and faithfulness are of scores of the whole corpus, and left out where only candidates are ranked.

    Args:
        task: what the split belongs to.
        split: the queries.
        systems: what ranks.
        seed: of the intervals.
        folder: where to.
        given: rankings of other systems, per query the corpus rows.
        candidates: how many of BM25's first documents are ranked; `None` ranks the corpus.

    Raises:
        ValueError: two systems have one name, or a system's scores hold NaN or do not fit queries and corpus.
    """
    names = [system.name for system in systems] + list(given or {})
    if len(set(names)) < len(names):
        raise ValueError(
            f"systems are {', '.join(names)}; accepted: names that differ, as --model NAME=PATH gives them"
        )
    rows = None if candidates is None else first_stage(task, split, candidates)
    scores = {
        system.name: system.score(split.queries)
        if rows is None
        else system.candidate_scores(split.queries, rows, len(task.corpus))
        for system in systems
    }
    for name, matrix in scores.items():
        if matrix.shape != (len(split), len(task.corpus)):
            raise ValueError(f"{name} gave scores {tuple(matrix.shape)}; accepted: ({len(split)}, {len(task.corpus)})")
    pools = None if rows is None else rows.tolist()
    runs = {name: rank_documents(matrix, DEPTH) for name, matrix in scores.items()}
    runs |= {name: run if pools is None else only(run, pools) for name, run in (given or {}).items()}
    values = query_values(runs, split.relevant, len(task.corpus), pools)
    report = {"task": task.name, "split": split.name, "documents": len(task.corpus)}
    report["first_stage"] = None if rows is None else {"system": "BM25", "documents": rows.shape[1]}
    repeated = {pair: share for pair, share in check_leakage(task).items() if pair.startswith(f"{split.name} in ")}
    report |= {"repeated": repeated, **summary(values, seed)}
    for system in systems:
        found = report["systems"][system.name]
        found["milliseconds"] = system.milliseconds_per_query(split.queries, rows)
        found["vector_bytes"] = system.vector_bytes
        write_run(
            folder / f"{split.name}-{system.name.replace(' ', '-')}.trec",
            system.name, split.query_ids, task.corpus_ids, runs[system.name], scores[system.name],
        )  # fmt: skip
    write_query_values(folder / f"{split.name}-queries.jsonl", split.query_ids, values)
    recall_curves(runs, split.relevant, folder / f"{split.name}-recall.png")
    models = {system.name: system.model for system in systems if system.model is not None and rows is None}
    if models:
        shown = {name: scores[name] for name in models}
        score_histograms(shown, split.relevant, folder / f"{split.name}-scores.png")
    if TEACHER in models:
        groups = reliability(scores[TEACHER], split.relevant)
        report["calibration"] = {"ece": expected_calibration_error(groups), "groups": groups}
        reliability_diagram(groups, report["calibration"]["ece"], folder / f"{split.name}-reliability.png")
    if {TEACHER, STUDENT} <= models.keys():
        teacher, student = models[TEACHER], models[STUDENT]
        states = paired_states(teacher, student, split.queries, task.corpus, scores[TEACHER])
        report["faithfulness"] = {
            "scores": score_faithfulness(scores[TEACHER], scores[STUDENT], student.config.embedding_dim),
            "states": state_faithfulness(*states),
        }
        pair = {name: scores[name] for name in (TEACHER, STUDENT)}
        write_tensors(folder / f"{split.name}-scores.safetensors", pair)
    write_json(folder / f"{split.name}.json", report)
    return report


def first_stage(task: RetrievalTask, split: Split, count: int) -> Tensor:
    """BM25's first documents of each query, `(n, count)` corpus rows; equal scores in the order of the corpus."""
    ranked = rank_documents(BM25(task.corpus)(split.queries), min(count, len(task.corpus)))
    return torch.tensor(ranked)


def only(run: Run, pools: Run) -> Run:
    """A ranking without what is not among each query's candidates."""
    return [[row for row in ranked if row in pool] for ranked, pool in zip(run, map(set, pools), strict=True)]


@torch.no_grad()
def paired_states(
    teacher: GenerativeRerankerModel,
    student: RabtrieverModel,
    queries: Sequence[str],
    corpus: Sequence[str],
    scores: Tensor,
) -> tuple[Tensor, Tensor]:
    """Predicted and true states of some pairs: for up to `STATE_QUERIES` queries the teacher's best and others.

    Args:
        teacher: the reranker.
        student: distilled from it.
        queries: the split's texts.
        corpus: the documents' texts.
        scores: `(n, m)`, the teacher's.

    Returns:
        `h_hat` and `h_{Q|D}`, each `(pairs, d)` fp32.
    """
    rng = random.Random(13)
    rows = sorted(rng.sample(range(len(queries)), min(STATE_QUERIES, len(queries))))
    drawn = [(row, document) for row in rows for document in rng.sample(range(len(corpus)), min(3, len(corpus)))]
    pairs = sorted({*drawn, *((row, int(scores[row].argmax())) for row in rows)})
    documents = sorted({document for _, document in pairs})
    query_features = student.query_features([queries[row] for row in rows])  # a text stands in several pairs
    document_features = student.document_features([corpus[document] for document in documents])
    predicted, true = [], []
    for start in range(0, len(pairs), 64):
        block = pairs[start : start + 64]
        texts = {"query": [queries[row] for row, _ in block], "document": [corpus[document] for _, document in block]}
        inputs = teacher.processor(**texts).to(teacher.device)
        true.append(teacher(**inputs).hidden_state.float().cpu())
        output = student(
            query_features=query_features[[rows.index(row) for row, _ in block]],
            document_features=document_features[[documents.index(document) for _, document in block]],
        )
        predicted.append(output.hidden_state.cpu())
    return torch.cat(predicted), torch.cat(true)


if __name__ == "__main__":
    main()
