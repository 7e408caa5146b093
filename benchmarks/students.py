"""Distils students of one trained teacher and compares each with the same scores of that teacher."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from benchmarks.bills import student_scores
from benchmarks.tasks import SYSTEM, TaskRun, figures, filled, name_values, task_parser, task_runs, trained_teacher
from modeling_rabtriever import RabtrieverModel
from modeling_rabtriever.distillation import RabtrieverDistillationConfig, StudentArguments, distill
from modeling_rabtriever.distillation.student_arguments import TeacherSourceArguments
from modeling_rabtriever.evaluation.comparison import evaluate_systems
from modeling_rabtriever.evaluation.labels import TEACHER
from modeling_rabtriever.evaluation.samples import fixed_sample
from modeling_rabtriever.evaluation.systems import reranker_system
from modeling_rabtriever.files import write_folder, write_tensors
from modeling_rabtriever.loading import load_model
from modeling_rabtriever.tasks.beir import Split, load_beir, with_unlabelled
from modeling_rabtriever.trainers.stage_folder import model_digest

EVALUATED = ("dev", "test", "test_phrasing")  # those of them that a task has


class TeacherBench:
    """A task at a seed with its trained teacher.

    The teacher scores every split once, and scores every training pair once; the scores are kept under `runs`.

    Args:
        run: task, data and seed.
        teacher: folder of the teacher.
        runs: folder for students and scores.
        splits: to evaluate, if the task has them.
        queries: number of evaluated queries per split, drawn with a fixed seed; `None` means all.
        unlabelled: number of generated queries to train students on; `None` means all.
    """

    def __init__(
        self,
        run: TaskRun,
        teacher: Path,
        runs: Path,
        splits: Sequence[str] = EVALUATED,
        queries: int | None = None,
        unlabelled: int | None = None,
    ) -> None:
        self.run, self.teacher, self.runs, self.unlabelled = run, teacher, runs, unlabelled
        self.task = load_beir(run.data)
        self.reranker = load_model(teacher, run.recipe("evaluate").get("dtype", "auto"))
        self._kept = runs / "scores" / f"{model_digest(str(teacher))}-{self.task.fingerprint()}"
        named = [self.task.split(name) for name in splits if name in self.task.splits]
        self.splits = [fixed_sample(split, queries) for split in named]
        self.teacher_scores = {split.name: self._teacher_scores(split) for split in self.splits}

    @cached_property
    def train(self) -> Split:
        """The queries of the recipe's students: the labelled ones, and those written beside the teacher.

        Raises:
            ValueError: there are no such queries, or fewer than wanted.
        """
        train = self.task.split("train")
        if "unlabelled_queries" not in self.run.recipe("distill"):
            return train
        written = self.teacher.parents[1] / "queries" / "queries.jsonl"
        every, labelled = with_unlabelled(train, written), len(train)
        if self.unlabelled is not None and not 0 < self.unlabelled <= len(every) - labelled:
            raise ValueError(
                f"unlabelled is {self.unlabelled}; accepted: 1 to {len(every) - labelled}, the queries in {written}"
            )
        return every.take(range(len(every) if self.unlabelled is None else labelled + self.unlabelled))

    def folder(self, name: str) -> Path:
        """Where the run of a student goes."""
        return self.runs / f"{self.run.task}-{name}-seed{self.run.seed}"

    def distil(self, name: str, recipe: str | None = None, **changes: Any) -> RabtrieverModel:
        """A student with the task's recipe; a finished one is reused.

        Args:
            name: of its folder.
            recipe: of `students/`, added to the one it changes: `paper-without-kl` to `paper`.
            changes: settings that override the recipes.
        """
        model = self.folder(name) / "model"
        if not model.exists():
            # All students of these queries share a folder with the teacher's scores.
            fixed = {"output_dir": str(self._kept / f"{len(self.train)}-queries"), "save_strategy": "no"}
            settings = self.run.recipe("distill", *student_recipes(recipe)) | changes | fixed | {"seed": self.run.seed}
            kinds = (TeacherSourceArguments, StudentArguments, RabtrieverDistillationConfig)
            _, shape, config = filled(kinds, settings)
            student = distill(self.reranker, self.task, config, shape, self.train)
            write_folder(model, student.save_pretrained)
        found: RabtrieverModel = load_model(model)
        return found

    def measure(self, student: RabtrieverModel) -> dict[str, Any]:
        """`figures` of each split."""
        return self.compare(lambda split: student_scores(student, split.queries, self.task.corpus))

    def compare(self, score: Callable[[Split], Tensor]) -> dict[str, Any]:
        """`figures` of each split for any system and the teacher; `score` returns `(n, m)`."""
        found = {}
        for split in self.splits:
            scores = {TEACHER: self.teacher_scores[split.name], SYSTEM: score(split)}
            found[split.name] = figures(evaluate_systems(scores, split.relevant), SYSTEM)
        return found

    def _teacher_scores(self, split: Split) -> Tensor:
        path = self._kept / f"{split.name}-{len(split)}.safetensors"
        if not path.exists():
            system = reranker_system(self.reranker, self.task.corpus)
            write_tensors(path, {"scores": system.score(split.queries)})
        return load_file(path)["scores"]


def student_recipes(name: str | None) -> list[str]:
    """The recipes of a student, after the one it changes: `paper-without-kl` changes `paper`."""
    return [] if name is None else [f"students/{one}" for one in dict.fromkeys((name.partition("-")[0], name))]


def bench_parser(description: str | None, runs: str, splits: Sequence[str] = EVALUATED) -> argparse.ArgumentParser:
    """A command line that also names the teachers of each task; `splits` are those the teacher ranks by default."""
    parser = task_parser(description, runs)
    parser.add_argument("--splits", nargs="*", default=list(splits), help="evaluate these splits, if a task has them")
    parser.add_argument("--queries", type=int, help="evaluate this many of each split, drawn with a fixed seed")
    parser.add_argument(
        "--unlabelled", type=int, help="train on this many of the generated queries, if a recipe has them"
    )
    parser.add_argument(
        "--teacher", nargs="+", default=[], help="name=folder of trained teachers, with {seed}; others are trained here"
    )
    return parser


def benches(arguments: argparse.Namespace) -> Iterator[TeacherBench]:
    """Every task at every seed, with the teacher named or one trained with the task's recipe."""
    folders = name_values(arguments.teacher)
    for run in task_runs(arguments):
        if run.task in folders:
            teacher = Path(folders[run.task].replace("{seed}", str(run.seed)))
        else:
            teacher = trained_teacher(run, load_beir(run.data), arguments.runs / f"{run.task}-seed{run.seed}")
        yield TeacherBench(run, teacher, arguments.runs, arguments.splits, arguments.queries, arguments.unlabelled)
