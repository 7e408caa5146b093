"""Model cards of a run, generated from what its stages recorded: no number is typed by hand.

Usage: python -m model_cards.generate runs/mine
"""

import argparse
import json
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from evaluation.report import COLUMNS, NOTE, calibration_line, markdown_table, retention_line
from modeling_rabtriever.files import write_text
from training.tasks.named import load_task

TEMPLATES = Path(__file__).parent
# Stage folder -> template, name of the system in the reports, tags.
CARDS: dict[str, tuple[str, str, list[str]]] = {
    "teacher": ("generative_reranker.md", "teacher", ["reranker", "rationale-based-retrieval"]),
    "student": ("rabtriever.md", "Rabtriever", ["rabtriever", "retrieval", "rationale-based-retrieval"]),
}


def write_cards(run: Path) -> None:
    """Writes README.md into the teacher's and the student's model folder.

    Args:
        run: folder of a run whose stages are finished and evaluated.

    Raises:
        ValueError: a stage has not been run there.
    """
    reports = [json.loads(path.read_text()) for path in sorted((run / "evaluation").glob("*.json"))]
    reports = [report for report in reports if "systems" in report]
    if not reports:
        raise ValueError(f"{run / 'evaluation'} holds no report; accepted: a run that training.evaluate has finished")
    records = {stage: _record(run / stage) for stage in CARDS}
    task = load_task(records["teacher"]["data"])
    example = task.split(reports[0]["split"])
    for stage, (template, system, tags) in CARDS.items():
        name = f"{stage}-{task.name}"
        card = ModelCard.from_template(
            ModelCardData(
                license="apache-2.0",
                library_name="transformers",
                pipeline_tag="text-ranking",
                tags=tags,
                model_name=name,
                eval_results=[result for report in reports for result in _eval_results(report, system)],
            ),
            template_path=str(TEMPLATES / template),
            model_name=name,
            task=task.name,
            query=example.queries[0],
            documents=task.corpus[:2],
            prompt=json.loads((run / stage / "model" / "processor_config.json").read_text()),
            results=_results(reports),
            **records,
        )
        write_text(run / stage / "model" / "README.md", str(card))


def _record(folder: Path) -> dict[str, Any]:
    path = folder / "stage.json"
    if not path.exists():
        raise ValueError(f"{path} is missing; accepted: a run whose stages are finished")
    record: dict[str, Any] = json.loads(path.read_text())
    return {**record, "data": record["settings"]["data"]}


def _results(reports: list[dict[str, Any]]) -> str:
    tables = [
        f"{markdown_table(report, report['documents'])}\n\n{retention_line(report)} {calibration_line(report)}"
        for report in reports
    ]
    return "\n\n".join([*tables, NOTE])


def _eval_results(report: dict[str, Any], system: str) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="text-ranking",
            dataset_type=report["task"],
            dataset_name=report["task"],
            dataset_split=report["split"],
            metric_type=metric,
            metric_name=label,
            metric_value=round(report["systems"][system][metric]["mean"], 4),
        )
        for metric, label in COLUMNS.items()
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Writes the model cards of a run.")
    parser.add_argument("run", type=Path, help="folder of the run")
    write_cards(parser.parse_args().run)
