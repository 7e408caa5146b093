"""Stage 3: evaluates models and trivial baselines on the whole corpus.

Usage:
    python -m training.evaluate --config household
    python -m training.evaluate --model path/or/hub-id --task esconv
    python -m training.evaluate --model path/or/hub-id mine=another/bi-encoder --task path/to/beir --splits dev test
    python -m training.evaluate --config my.yaml --teacher http://localhost:8000/v1 --candidates 100 \\
        --model_name_or_path Qwen/Qwen3-32B --true_answer yes --false_answer no
    python -m training.evaluate --run_files other-system.trec --task path/to/beir --output_dir runs/evaluation/other

A model is a reranker, a Rabtriever, or a bi-encoder of sentence-transformers; without --model, the teacher and the
student of <output_dir>. A task is a folder in BEIR layout, hub:<data set>, or the name of a task, such as esconv.
With --teacher, a teacher behind a server is ranked beside the student; each of its pairs is asked once and kept in
<output_dir>/states, and --candidates and --max_queries bound their number, which is printed first.
All models are loaded at once, on the GPU if there is one; CUDA_VISIBLE_DEVICES= keeps them on the CPU.

For each split, writes a report (<split>.json), query-level metrics, a run file in TREC format per system, and plots
into <output_dir>/evaluation, with report.md over all splits. Writes a model card into the folders of the run's own
models, if stages trained both.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..cards.generate import write_cards
from ..cards.layout import CARDS
from ..distillation.bill import teacher_bill
from ..distillation.cache_fingerprints import states_folder, texts_fingerprint
from ..distillation.student_arguments import ServedTeacherArguments
from ..evaluation.labels import NOTE
from ..evaluation.runs import check_ids, read_run, run_names
from ..evaluation.samples import fixed_sample
from ..evaluation.splits import rank_split
from ..evaluation.systems import System, baselines, is_sentence_transformer, load_system, name_and_path, public_encoder
from ..files import write_text
from ..loading import DTYPES
from ..reranking.prompts import PromptArguments, SourceArguments
from ..served.address import is_address
from ..served.teacher import ServedTeacher
from ..tasks.beir import RetrievalTask, Split
from ..tasks.named import load_task
from ..trainers.processes import on_main
from ..trainers.stage_folder import StageFolder, earlier_model, file_digest, finished, model_digest
from .checks import NOTHING, Earlier, check_file, check_folder, check_model, check_splits
from .kept_scores import kept_system
from .recipe import parse_stage
from .run import RunArguments
from .served import SERVED, check_unserved, identity, open_teacher


@dataclass
class EvaluationArguments:
    """What to evaluate."""

    output_dir: str = field(default="runs/evaluation", metadata={"help": "Folder of the run."})
    model: list[str] | None = field(
        default=None,
        metadata={
            "help": "Folders or Hub ids of rerankers, Rabtrievers or sentence-transformers bi-encoders; NAME= before "
            "one sets its name in tables. Default: the student of output_dir, and its teacher if that is there, or "
            "none with run_files."
        },
    )
    run_files: list[str] = field(
        default_factory=list,
        metadata={"help": "Run files of other systems in TREC format, one file per system, of one split."},
    )
    sentence_encoder: str | None = field(
        default="sentence-transformers/all-MiniLM-L6-v2",
        metadata={"help": "Public bi-encoder as a baseline, if its weights are on this machine; null for none."},
    )
    splits: list[str] = field(default_factory=lambda: ["test"], metadata={"help": "Splits to evaluate."})
    candidates: int | None = field(
        default=None,
        metadata={
            "help": "Let every system rank only the first documents of BM25, this many, if the corpus is too large for "
            "a reranker. Documents that BM25 misses count as missed. The report adds metrics on the whole corpus, and "
            "on a sample of it for rerankers. Default: rank the whole corpus."
        },
    )
    max_queries: int | None = field(
        default=None, metadata={"help": "Evaluate this many queries of each split, sampled with a fixed seed."}
    )
    seed: int = field(
        default=0, metadata={"help": "Seed of the bootstrap intervals; it does not change the sample of queries."}
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
            raise ValueError(f"splits are {self.splits} with run_files; accepted: one split, the one of the files")
        if self.candidates is not None and self.candidates < 1:
            raise ValueError(f"candidates is {self.candidates}; accepted: 1 or more, or null for the whole corpus")


ARGUMENTS = (RunArguments, EvaluationArguments, ServedTeacherArguments, SourceArguments, PromptArguments)


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the stage on the main process and returns the folder with the reports."""
    given = parse_stage("evaluate", ARGUMENTS, argv)
    return on_main(lambda: evaluate_and_report(given))


def evaluate_and_report(given: tuple[Any, ...]) -> Path:
    """Runs the stage with these settings, instances of `ARGUMENTS`, and returns the folder with the reports."""
    run, arguments, server, source, prompt = given
    teacher = served_teacher(given)
    output = Path(arguments.output_dir)
    task = load_task(run.data, run.skip_bad)
    chosen = [fixed_sample(task.split(name), arguments.max_queries) for name in arguments.splits]
    paths = arguments.model
    if paths is None:
        paths = [] if arguments.run_files else own_models(arguments.output_dir, served=teacher is not None)
    files = run_names(arguments.run_files)
    runs = {system: read_run(path, chosen[0].query_ids, task.corpus_ids) for system, path in files.items()}
    inputs = {path: model_digest(name_and_path(path)[1]) for path in paths} | {
        name: file_digest(path) for name, path in files.items()
    }
    settings: tuple[Any, ...] = (run, arguments)
    if teacher is not None:
        inputs["teacher"] = identity(teacher, server)
        settings = (run, arguments, replace(server, teacher=SERVED), source, prompt)
    stage = StageFolder(output / "evaluation", settings, {"task": task.fingerprint(), **inputs}, run.overwrite)
    if stage.done:
        print(f"evaluation: already done, in {stage.folder}")
        return stage.folder
    check(given, task)
    stage.claim()
    systems = baselines(task, run.train_split)
    if arguments.sentence_encoder is not None:
        encoder = public_encoder(arguments.sentence_encoder, task.corpus)
        if encoder is not None:
            systems.append(encoder)
    if teacher is not None:
        systems.append(_served_system(teacher, inputs["teacher"], task, chosen, arguments))
    systems += [load_system(path, task.corpus, arguments.dtype, arguments.trust_remote_code) for path in paths]
    stage.start()
    parts = []
    for split in chosen:
        ranked = rank_split(task, split, systems, arguments.seed, runs, arguments.candidates)
        ranked.write(stage.folder)
        parts.append(ranked.report.markdown())
    text = "\n\n".join([f"# Evaluation on {task.name}", *parts, NOTE]) + "\n"
    write_text(stage.folder / "report.md", text)
    print(text)
    stage.finish()
    if arguments.model is None and not files:
        if len(paths) == 2 and all(finished(output / name) for name in CARDS):
            write_cards(output)
        else:
            print(f"no cards: {output} does not hold the finished stages of teacher and student, which they describe")
    return stage.folder


def served_teacher(given: tuple[Any, ...]) -> ServedTeacher | None:
    """The teacher behind a server that these settings name, if they name one.

    Raises:
        ValueError: `teacher` is no address, its prompt cannot be made, or settings of a server are given without one.
    """
    run, arguments, server, source, prompt = given
    if server.teacher is None:
        check_unserved(server, source, prompt, "teacher")
        return None
    if not is_address(server.teacher):
        raise ValueError(
            f"teacher is {server.teacher!r}; accepted: the address of a server, such as http://localhost:8000/v1; "
            "a folder or Hub id belongs to model"
        )
    return open_teacher(server, source, prompt, run.data, arguments.trust_remote_code)


def _served_system(
    teacher: ServedTeacher,
    name: str,
    task: RetrievalTask,
    splits: Sequence[Split],
    arguments: EvaluationArguments,
) -> System:
    asked = [query for split in splits for query in split.queries]
    depth = min(arguments.candidates or len(task.corpus), len(task.corpus))
    print(teacher_bill(depth, asked, task.corpus, teacher.processor), flush=True)
    queries = [query for split in splits for query in task.split(split.name).queries]  # one cache for all samples
    inputs = {"task": task.fingerprint(), "teacher": name, "queries": texts_fingerprint(queries)}
    return kept_system(teacher, queries, task.corpus, states_folder(Path(arguments.output_dir) / "states", inputs))


def own_models(output_dir: str, earlier: Earlier = NOTHING, served: bool = False) -> list[str]:
    """The teacher and the student of a run; the student alone if its teacher is elsewhere, such as behind a server.

    Raises:
        ValueError: there is no student, and no earlier stage of a pipeline will train it.
    """
    teacher, student = (str(Path(output_dir) / name / "model") for name in ("teacher", "student"))
    if "distill" not in earlier:
        earlier_model(None, output_dir, "student", "train it first, or pass --model")
    here = "train_reranker" in earlier or Path(teacher).is_dir()
    return [teacher, student] if here and not served else [student]


def check(arguments: tuple[Any, ...], task: RetrievalTask, earlier: Earlier = NOTHING) -> None:
    """Checks the settings, as `stages.train_reranker.check` does."""
    _, given, *_ = arguments
    served = served_teacher(arguments) is not None
    check_splits(task, splits=given.splits)
    check_ids(*(task.split(name).query_ids for name in given.splits), task.corpus_ids)
    if given.seed < 0:
        raise ValueError(f"seed is {given.seed}; accepted: 0 or more")
    check_folder("output_dir", given.output_dir)
    for path in given.run_files:
        check_file("run_files", path)
    for path in given.model or []:
        name_or_path = name_and_path(path)[1]
        if is_address(name_or_path):
            raise ValueError(f"model is {path!r}; accepted: a folder or Hub id; a server's address belongs to teacher")
        if not is_sentence_transformer(name_or_path):
            check_model("model", name_or_path, trust_remote_code=given.trust_remote_code)
    if given.model is None and not given.run_files:
        own_models(given.output_dir, earlier, served)
