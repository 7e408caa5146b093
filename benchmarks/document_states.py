"""Which teachers have document states worth distilling: the same distillation after each way of training the teacher.

Usage:
    python -m benchmarks.document_states household=runs/household/data/household      # an hour on two cores
    python -m benchmarks.document_states household=... esconv=ESCONV --backbone esconv=runs/esconv/backbone/model

Every task is trained with its recipe, at the seeds given; a row changes what its name says. Tasks and seeds can be
measured one after another: finished runs under --runs and rows in the result file are kept, among them those with a
joint student, of an earlier release. Dev decides what a recipe uses; test is reported.
"""

from pathlib import Path
from typing import Any

from benchmarks.results import bar, grouped, mean_kept, with_earlier, write_result
from benchmarks.tasks import TaskRun, as_flags, distil_and_evaluate, task_parser, task_runs
from modeling_rabtriever.stages import train_reranker

# A token of its own that closes the document; in tokenizers made from scratch it is in the vocabulary anyway.
SUMMARY = {"document_template": "Document: {document}\n<|endoftext|>"}
ORDINARY = {"document_lm_weight": "0"}  # whatever the recipe has
TEACHERS: dict[str, dict[str, str]] = {
    "ordinary": {},
    "document language modelling": {"document_lm_weight": "0.1"},
    "summary token": SUMMARY,
}
# The student alone changes: it reads the ordinary teacher's inner layers too.
LAYERS_ROW = "several layers"
LAYERS = {"household": ["0", "1", "2", "-1"], "esconv": ["1", "2", "-1"], "saycan": ["10", "20", "-1"]}


def measure(run: TaskRun, names: list[str], runs: Path) -> list[dict[str, Any]]:
    """The rows named, for one task and seed: R@1 of teacher and student on both splits."""
    rows = []
    for name in names:
        teacher_row = "ordinary" if name == LAYERS_ROW else name
        output = str(_folder(runs, run, teacher_row))
        teacher = train_reranker.main(
            [*run.shared, "--output_dir", output, *as_flags(ORDINARY | TEACHERS[teacher_row]), *run.teacher]
        )
        layers = as_flags({"feature_layers": LAYERS[run.task]}) if name == LAYERS_ROW else []
        found = distil_and_evaluate(run.shared, _folder(runs, run, name), teacher, layers)
        rows.append({"task": run.task, "seed": run.seed, "steps": run.steps, "row": name, **found})
    return rows


def _folder(runs: Path, run: TaskRun, name: str) -> Path:
    return runs / f"{run.task}-{name.replace(' ', '-')}-seed{run.seed}"


def main() -> None:
    """Measures all tasks and seeds, and puts them into the result file."""
    parser = task_parser(__doc__, "runs/benchmark/document-states")
    every = [*TEACHERS, LAYERS_ROW]
    parser.add_argument("--rows", nargs="+", default=every, choices=every, help="which rows to measure")
    arguments = parser.parse_args()
    new = [row for run in task_runs(arguments) for row in measure(run, arguments.rows, arguments.runs)]
    rows = with_earlier("benchmarks.document_states", new, ("task", "seed", "row"))
    bars = []
    for (task, name), seeds in grouped(rows, "task", "row"):
        label = f"student R@1 / teacher R@1, {task} test, {name}, mean of {len(seeds)} seeds"
        bars.append(bar(label, mean_kept(seeds), ">=", 0.95, seeds[0]["test"]["n"]))
    print(write_result("benchmarks.document_states", {"teachers": TEACHERS, "layers": LAYERS}, rows, bars))


if __name__ == "__main__":
    main()
