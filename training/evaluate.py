"""Stage 3: evaluates teacher and student beside trivial baselines, over the whole corpus.

Usage:
    python -m training.evaluate --config training/recipes/household.yaml
    python -m training.evaluate --data path/to/beir --output_dir runs/mine --student path/or/hub-id --splits test

Writes <output_dir>/evaluation/<split>.json, report.md and a reliability diagram of the teacher's probabilities, and a
model card into the folders of this run's own models.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModel

from evaluation.calibration import expected_calibration_error, reliability
from evaluation.faithfulness import faithfulness_line, score_faithfulness, state_faithfulness
from evaluation.plots import reliability_diagram
from evaluation.report import NOTE, evaluate_systems, markdown_table, retention_line
from evaluation.systems import System, baselines, rabtriever_system, reranker_system
from model_cards.generate import write_cards
from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.files import write_json, write_tensors, write_text
from training.backbone import SAVED_DTYPES
from training.recipe import parse_stage
from training.stages import StageFolder, earlier_model, model_digest
from training.tasks.beir import RetrievalTask, Split, load_beir
from training.train_reranker import RunArguments

STATE_QUERIES = 100  # of a split, whose predicted states are held against the teacher's


@dataclass
class EvaluationArguments:
    """What is evaluated."""

    output_dir: str = field(metadata={"help": "Folder of the run."})
    teacher: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of a reranker; default: <output_dir>/teacher/model."}
    )
    student: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of a Rabtriever; default: <output_dir>/student/model."}
    )
    splits: list[str] = field(default_factory=lambda: ["test"], metadata={"help": "Splits to evaluate."})
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
            "choices": SAVED_DTYPES,
        },
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Whether code from the models' repositories may run."}
    )


ARGUMENTS = (RunArguments, EvaluationArguments)


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the stage and returns the folder with the reports."""
    run, arguments = parse_stage("evaluate", ARGUMENTS, argv)
    output = Path(arguments.output_dir)
    task = load_beir(run.data)
    paths = {
        name: earlier_model(getattr(arguments, name), arguments.output_dir, name, f"train it first, or pass --{name}")
        for name in ("teacher", "student")
    }
    digests = {name: model_digest(path) for name, path in paths.items()}
    stage = StageFolder(output / "evaluation", (run, arguments), {"task": task.fingerprint(), **digests}, run.overwrite)
    if stage.done:
        print(f"evaluation: done before, in {stage.folder}")
        return stage.folder
    models = {
        name: AutoModel.from_pretrained(
            path, trust_remote_code=arguments.trust_remote_code, dtype=arguments.dtype
        ).eval()
        for name, path in paths.items()
    }
    systems = [
        *baselines(task, run.train_split),
        reranker_system(models["teacher"], task.corpus),
        rabtriever_system(models["student"], task.corpus),
    ]
    reports = [
        evaluate_split(task, name, systems, arguments.max_queries, arguments.seed, stage.folder, models)
        for name in arguments.splits
    ]
    text = "\n\n".join(
        f"{markdown_table(report, len(task.corpus))}\n\n{retention_line(report)} "
        f"{faithfulness_line(report['faithfulness'])}"
        for report in reports
    )
    text = f"# Evaluation on {task.name}\n\n{text}\n\n{NOTE}\n"
    write_text(stage.folder / "report.md", text)
    print(text)
    if arguments.teacher is None and arguments.student is None:
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
    name: str,
    systems: list[System],
    max_queries: int | None,
    seed: int,
    folder: Path,
    models: dict[str, Any],
) -> dict[str, Any]:
    """Scores a split with every system and writes report, calibration and scores of teacher and student to `folder`."""
    split = fixed_sample(task.split(name), max_queries)
    scores = {system.name: system.score(split.queries) for system in systems}
    report = {"task": task.name, "split": name, "documents": len(task.corpus)}
    report |= evaluate_systems(scores, split.relevant, seed)
    for system in systems:
        report["systems"][system.name]["milliseconds"] = system.milliseconds_per_query(split.queries)
    groups = reliability(scores["teacher"], split.relevant)
    report["calibration"] = {"ece": expected_calibration_error(groups), "groups": groups}
    teacher, student = models["teacher"], models["student"]
    report["faithfulness"] = {
        "scores": score_faithfulness(scores["teacher"], scores["Rabtriever"], student.config.embedding_dim),
        "states": state_faithfulness(*paired_states(teacher, student, split.queries, task.corpus, scores["teacher"])),
    }
    write_json(folder / f"{name}.json", report)
    reliability_diagram(groups, report["calibration"]["ece"], folder / f"{name}-reliability.png")
    write_tensors(folder / f"{name}-scores.safetensors", {s: scores[s] for s in ("teacher", "Rabtriever")})
    return report


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
    predicted, true = [], []
    for start in range(0, len(pairs), 64):
        block = pairs[start : start + 64]
        texts = {"query": [queries[row] for row, _ in block], "document": [corpus[document] for _, document in block]}
        inputs = teacher.processor(**texts).to(teacher.device)
        true.append(teacher(**inputs).hidden_state.float().cpu())
        output = student(
            query_features=student.query_features(texts["query"]),
            document_features=student.document_features(texts["document"]),
        )
        predicted.append(output.hidden_state.cpu())
    return torch.cat(predicted), torch.cat(true)


if __name__ == "__main__":
    main()
