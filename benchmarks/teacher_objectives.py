"""What the teacher's objectives are worth: SFT, DPO after SFT, listwise; same backbone, data, steps, batch; over seeds.

Usage:
    python -m benchmarks.teacher_objectives household=runs/household/data/household      # half an hour on two cores
    python -m benchmarks.teacher_objectives esconv=ESCONV --backbone esconv=runs/x/backbone/model --steps esconv=384

The task's recipe but for what a row changes. DPO starts from the SFT teacher of its seed. Tasks and seeds can be
measured one after another: finished runs under --runs and rows in the result file are kept. Dev decides which objective
a recipe uses; test is reported.
"""

from pathlib import Path
from typing import Any

from transformers import AutoModel

from benchmarks.results import bar, grouped, with_earlier, write_result
from benchmarks.tasks import SPLITS, TaskRun, as_flags, task_parser, task_runs
from modeling_rabtriever.evaluation.calibration import expected_calibration_error, reliability
from modeling_rabtriever.evaluation.comparison import evaluate_systems
from modeling_rabtriever.evaluation.labels import TEACHER
from modeling_rabtriever.evaluation.samples import fixed_sample
from modeling_rabtriever.evaluation.systems import reranker_system
from modeling_rabtriever.stages import train_reranker, train_reranker_dpo
from modeling_rabtriever.tasks.beir import RetrievalTask, load_beir

# DPO trains for half as many steps as SFT did.
_DPO = {"learning_rate": "2e-4", "beta": "0.1", "activation_checkpointing": "false", "adam_beta2": "0.98"}
_DPO |= {"warmup_steps": "30", "lr_scheduler_type": "cosine", "save_steps": "300", "disable_dropout": "true"}
_DPO |= {"per_device_train_batch_size": "64", "per_device_eval_batch_size": "64"}
DPO = {
    "household": {**_DPO, "max_steps": "300", "negatives_per_positive": "3"},
    "esconv": {**_DPO, "max_steps": "192", "negatives_per_positive": "7"},
}
# Household: what a working teacher reaches. ESConv: TF-IDF + logistic regression, as known before.
BARS = {"household": 0.95, "esconv": 0.289}
QUERIES = {"household": 300}  # of each split, drawn with a fixed seed; of the others all


def measure(run: TaskRun, runs: Path, task: RetrievalTask) -> list[dict[str, Any]]:
    """Trains and evaluates the three teachers of one task and seed."""
    folders = {}
    for objective in ("sft", "listwise"):
        output = str(runs / f"{run.task}-{objective}-seed{run.seed}")
        own = ["--output_dir", output, "--objective", objective]
        folders[objective] = train_reranker.main([*run.shared, *own, *run.teacher])
    output = str(runs / f"{run.task}-sft-seed{run.seed}")
    folders["sft, then DPO"] = train_reranker_dpo.main([*run.shared, "--output_dir", output, *as_flags(DPO[run.task])])
    shared = {"task": run.task, "seed": run.seed, "steps": run.steps}
    return [
        {**shared, "objective": name, **teacher_figures(folder, task, QUERIES.get(run.task))}
        for name, folder in folders.items()
    ]


def teacher_figures(folder: Path, task: RetrievalTask, queries: int | None) -> dict[str, Any]:
    """R@1 and MRR@10 with intervals, and calibration, on dev and test."""
    score = reranker_system(AutoModel.from_pretrained(folder).eval(), task.corpus).score
    found = {}
    for name in SPLITS:
        split = fixed_sample(task.split(name), queries)
        scores = score(split.queries)
        report = evaluate_systems({TEACHER: scores}, split.relevant)
        metrics = report.systems[TEACHER].metrics
        found[name] = {
            "n": report.n,
            **{metric: metrics[metric].to_json() for metric in ("success@1", "mrr@10")},
            "ece": expected_calibration_error(reliability(scores, split.relevant)),
        }
    return found


def main() -> None:
    """Measures all tasks and seeds, and puts them into the result file."""
    arguments = task_parser(__doc__, "runs/benchmark/objectives").parse_args()
    new = [row for run in task_runs(arguments) for row in measure(run, arguments.runs, load_beir(run.data))]
    rows = with_earlier("benchmarks.teacher_objectives", new, ("task", "seed", "objective"))
    bars = []
    for (task, objective), seeds in grouped(rows, "task", "objective"):
        found = [row["test"] for row in seeds]
        name = f"teacher R@1, {task} test, {objective}, mean of {len(found)} seeds"
        mean = sum(split["success@1"]["mean"] for split in found) / len(found)
        bars.append(bar(name, mean, ">=", BARS[task], found[0]["n"]))
    print(write_result("benchmarks.teacher_objectives", {"dpo": DPO, "queries": QUERIES}, rows, bars))


if __name__ == "__main__":
    main()
