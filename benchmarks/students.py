"""Students of one trained teacher: distilled one after another, each held against the same scores of that teacher."""

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel

from benchmarks.tasks import RECIPES, SYSTEM, TaskRun, evaluation_dtype, figures, name_values, task_parser, task_runs
from modeling_rabtriever import RabtrieverModel
from modeling_rabtriever.distillation.teacher_states import cached_features
from modeling_rabtriever.evaluation.comparison import evaluate_systems
from modeling_rabtriever.evaluation.labels import TEACHER
from modeling_rabtriever.evaluation.samples import fixed_sample
from modeling_rabtriever.evaluation.systems import reranker_system
from modeling_rabtriever.files import write_tensors, write_text
from modeling_rabtriever.stages import distill, train_reranker
from modeling_rabtriever.stages.recipe import read_recipe
from modeling_rabtriever.tasks.beir import Split, load_beir
from modeling_rabtriever.trainers.stage_folder import model_digest

EVALUATED = ("dev", "test", "test_phrasing")  # those of them that a task has


class TeacherBench:
    """A task at a seed with its trained teacher.

    The teacher scores every split once: its scores and the features of all texts are kept under `runs`, so that a
    student costs its training and one matrix product.

    Args:
        run: task, data and seed.
        teacher: folder of the teacher.
        runs: where students, states and scores go.
        splits: those to evaluate; the ones the task lacks are left out.
        queries: how many of each split are evaluated, drawn with a fixed seed; `None` means all.
        unjudged: how many of the queries written beside the teacher students are given; `None` means all.
    """

    def __init__(
        self,
        run: TaskRun,
        teacher: Path,
        runs: Path,
        splits: Sequence[str] = EVALUATED,
        queries: int | None = None,
        unjudged: int | None = None,
    ) -> None:
        self.run, self.teacher, self.runs, self.unjudged = run, teacher, runs, unjudged
        self.task = load_beir(run.data)
        self.reranker = AutoModel.from_pretrained(teacher, dtype=evaluation_dtype(run.shared)).eval()
        self._kept = runs / "scores" / f"{model_digest(str(teacher))}-{self.task.fingerprint()}"
        named = [self.task.split(name) for name in splits if name in self.task.splits]
        self.splits = [fixed_sample(split, queries) for split in named]
        self.teacher_scores = {split.name: self._teacher_scores(split) for split in self.splits}

    def folder(self, name: str) -> Path:
        """Where the run of a student goes."""
        return self.runs / f"{self.run.task}-{name}-seed{self.run.seed}"

    def flags(self, name: str, *more: str) -> list[str]:
        """The command line of `training.distill` for a student; `more` are its recipe and settings."""
        places = {"teacher": self.teacher, "output_dir": self.folder(name), "states": self.runs / "states"}
        if writes_queries(self.run.task):
            places["unjudged_queries"] = self._unjudged_queries()
        return [*self.run.shared, *(item for key, path in places.items() for item in (f"--{key}", str(path))), *more]

    def distil(self, name: str, *more: str) -> RabtrieverModel:
        """A student trained with these flags; a finished one is read."""
        return AutoModel.from_pretrained(distill.main(self.flags(name, *more))).eval()

    def measure(self, student: RabtrieverModel) -> dict[str, Any]:
        """`figures` of each split."""
        return self.compare(lambda split: self.student_scores(student, split))

    def compare(self, score: Callable[[Split], Tensor]) -> dict[str, Any]:
        """`figures` of each split for any scorer in the student's place; `score` gives `(n, m)`."""
        found = {}
        for split in self.splits:
            scores = {TEACHER: self.teacher_scores[split.name], SYSTEM: score(split)}
            found[split.name] = figures(evaluate_systems(scores, split.relevant), SYSTEM)
        return found

    @torch.no_grad()
    def student_scores(self, student: RabtrieverModel, split: Split) -> Tensor:
        """The student's scores of the whole corpus, `(n, m)`."""
        documents, queries = (
            cached_features(self._kept, name, student, compute, texts)
            for name, compute, texts in (
                ("documents", student.document_features, self.task.corpus),
                (split.name, student.query_features, split.queries),
            )
        )
        predictor = student.predictor
        vectors = predictor.encode_query(queries, student.answer_direction)
        return student.similarity(vectors, predictor.encode_document(documents)).cpu()

    def _unjudged_queries(self) -> Path:
        written = self.teacher.parents[1] / "queries" / "queries.jsonl"
        if self.unjudged is None:
            return written
        lines = written.read_text().splitlines(keepends=True)
        if not 0 < self.unjudged <= len(lines):
            raise ValueError(f"unjudged is {self.unjudged}; accepted: 1 to {len(lines)}, what {written} holds")
        kept = self.runs / f"queries-{self.run.task}-{self.run.seed}.jsonl"
        write_text(kept, "".join(lines[: self.unjudged]))
        return kept

    def _teacher_scores(self, split: Split) -> Tensor:
        path = self._kept / f"{split.name}-{len(split)}.safetensors"
        if not path.exists():
            system = reranker_system(self.reranker, self.task.corpus)
            write_tensors(path, {"scores": system.score(split.queries)})
        return load_file(path)["scores"]


def bench_parser(description: str | None, runs: str, splits: Sequence[str] = EVALUATED) -> argparse.ArgumentParser:
    """A command line that also names the teachers of each task; `splits` are those the teacher ranks by default."""
    parser = task_parser(description, runs)
    parser.add_argument("--splits", nargs="*", default=list(splits), help="evaluate these, where a task has them")
    parser.add_argument("--queries", type=int, help="evaluate this many of each split, drawn with a fixed seed")
    parser.add_argument("--unjudged", type=int, help="this many of the generated queries, where a recipe has them")
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
            output = str(arguments.runs / f"{run.task}-seed{run.seed}")
            teacher = train_reranker.main([*run.shared, "--output_dir", output, *run.teacher])
        yield TeacherBench(run, teacher, arguments.runs, arguments.splits, arguments.queries, arguments.unjudged)


def recipe_flags(task: str, name: str) -> list[str]:
    """Flags of a student recipe behind the one it changes; without rounds it gets all candidates at the start.

    That is as many as the task's recipe ends with. `paper-without-kl` changes `paper`, `rabtriever-uniform` changes
    `rabtriever`.
    """
    recipes = [f"students/{one}" for one in dict.fromkeys((name.partition("-")[0], name))]
    flags = [item for recipe in recipes for item in ("--config", recipe)]
    if "refresh_rounds" not in read_recipe(*recipes)[1]["distill"]:
        return flags
    return [*flags, "--initial_candidates", str(recipe_bill(task))]


def recipe_bill(task: str) -> int:
    """Pairs per query that a task's recipe asks the teacher about."""
    settings = distill_settings(task)
    return settings["initial_candidates"] + settings["refresh_rounds"] * settings.get("refresh_candidates", 0)


def writes_queries(task: str) -> bool:
    """Whether a task's recipe gives the student generated queries, which have no labels."""
    return "unjudged_queries" in distill_settings(task)


def distill_settings(task: str) -> dict[str, Any]:
    """What a task's recipe says of the student."""
    settings: dict[str, Any] = read_recipe(RECIPES[task])[1]["distill"]
    return settings
