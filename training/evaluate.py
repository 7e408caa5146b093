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

from transformers import AutoModel

from evaluation.calibration import expected_calibration_error, reliability
from evaluation.plots import reliability_diagram
from evaluation.report import NOTE, evaluate_systems, markdown_table, retention_line
from evaluation.systems import System, baselines, rabtriever_system, reranker_system
from model_cards.generate import write_cards
from modeling_rabtriever.files import write_json, write_tensors, write_text
from training.backbone import SAVED_DTYPES
from training.recipe import parse_stage
from training.stages import StageFolder, earlier_model, model_digest
from training.tasks.beir import RetrievalTask, Split, load_beir
from training.train_reranker import RunArguments


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
        evaluate_split(task, name, systems, arguments.max_queries, arguments.seed, stage.folder)
        for name in arguments.splits
    ]
    text = "\n\n".join(f"{markdown_table(report, len(task.corpus))}\n\n{retention_line(report)}" for report in reports)
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
    task: RetrievalTask, name: str, systems: list[System], max_queries: int | None, seed: int, folder: Path
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
    write_json(folder / f"{name}.json", report)
    reliability_diagram(groups, report["calibration"]["ece"], folder / f"{name}-reliability.png")
    write_tensors(folder / f"{name}-scores.safetensors", {s: scores[s] for s in ("teacher", "Rabtriever")})
    return report


if __name__ == "__main__":
    main()
