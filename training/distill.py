"""Stage 2: distils the teacher into Rabtriever.

Usage:
    python -m training.distill --config training/recipes/household.yaml
    python -m training.distill --config training/recipes/household.yaml --teacher path/or/hub-id --embedding_dim 256
    python -m training.distill --data path/to/beir --output_dir runs/mine --cross_encoder path/or/hub-id \\
        --model_name_or_path Qwen/Qwen3-0.6B --true_answer " yes" --false_answer " no" --mse_weight 0 --kl_weight 0

Reads <output_dir>/teacher/model unless --teacher says otherwise; writes <output_dir>/student/model, a folder AutoModel
loads. Teacher states are kept in <output_dir>/states, one cache per teacher and task, for later runs on the same two.

--cross_encoder or --scores put another teacher in the reranker's place; the student then stands on the backbone of
--teacher, or on any language model (--model_name_or_path).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import set_seed

from modeling_rabtriever import GenerativeRerankerModel, RabtrieverModel
from modeling_rabtriever.files import write_json, writing
from modeling_rabtriever.loading import DTYPES, load_model
from training.anchors import check_count, drawn_anchors
from training.backbone import BackboneArguments, PromptArguments, SourceArguments, build_reranker
from training.command import run_command
from training.distillation_config import RabtrieverDistillationConfig
from training.distillation_trainer import RabtrieverDistillationTrainer
from training.encoders import finish_encoder, other_encoder, start_alike, student_of, teachers_encoder, train_encoder
from training.other_teachers import cross_encoder, scores_from_jsonl
from training.processes import on_main, say
from training.recipe import parse_stage
from training.stages import StageFolder, earlier_model, file_digest, model_digest
from training.student_checks import check, check_sources
from training.tasks.beir import RetrievalTask, Split, with_unjudged
from training.tasks.named import check_leakage, load_task
from training.teacher_states import TeacherScores, TeacherStates
from training.train_reranker import RunArguments, watch_nothing


@dataclass
class StudentArguments:
    """The student's teacher and the shape of its predictor (`RabtrieverConfig`)."""

    teacher: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of the teacher; default: <output_dir>/teacher/model."}
    )
    cross_encoder: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of a sentence-transformers CrossEncoder to distil instead."}
    )
    scores: str | None = field(
        default=None,
        metadata={"help": 'File of scores to distil instead: lines {"query-id": ..., "corpus-id": ..., "score": ...}.'},
    )
    unjudged_queries: str | None = field(
        default=None,
        metadata={
            "help": 'File of queries without labels to distil beside the training split, lines {"_id": ..., "text": '
            "...}: a log, or what training.generate_queries wrote. {output_dir} in the name stands for this run's."
        },
    )
    states: str | None = field(
        default=None, metadata={"help": "Folder of the caches of teacher states; default: <output_dir>/states."}
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Whether code from the teacher's repository may run."}
    )
    dtype: str = field(
        default="auto",
        metadata={
            "help": "Type of the teacher's weights while it is asked, and of the student's backbone; auto: as saved. "
            "bfloat16 asks several times faster where the machine computes in it.",
            "choices": list(DTYPES),
        },
    )
    encoder: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of a text model or sentence-transformers model: the student's encoder, with its "
            "own tokenizer, prompts and pooling. Default: the teacher's backbone."
        },
    )
    encoder_layers: int | None = field(
        default=None, metadata={"help": "How many of the first layers of the teacher's backbone the student keeps."}
    )
    predictor_type: str = field(
        default="hadamard", metadata={"help": "Form of the predictor.", "choices": ["hadamard", "paper"]}
    )
    embedding_dim: int | None = field(
        default=None, metadata={"help": "Index width k; default: the hidden size. 'paper' has no choice."}
    )
    num_heads: int = field(default=1, metadata={"help": "Separate query MLPs; divides k."})
    predictor_hidden_size: int | None = field(
        default=None, metadata={"help": "Hidden units of each query MLP; default: the hidden size."}
    )
    shared_dim: int = field(
        default=0,
        metadata={
            "help": "How many of the k numbers compare the words of both sides by one shared linear map, for tasks "
            "whose queries name things that documents name too; heads divide the others. No export has them."
        },
    )
    document_prior: bool = field(
        default=False,
        metadata={
            "help": "Whether one of the k numbers is a document's own score, whatever the query; heads divide k - 1."
        },
    )
    feature_layers: list[int] = field(
        default_factory=lambda: [-1], metadata={"help": "Layers the features are read from; -1 is the last."}
    )
    feature_poolings: list[str] = field(
        default_factory=lambda: ["last", "mean"],
        metadata={"help": "How a layer becomes a vector.", "choices": ["last", "mean"]},
    )
    query_anchors: int = field(
        default=0,
        metadata={
            "help": "Every query is read behind this many documents of the corpus, one pass each, instead of once "
            "alone, and takes at least that many times as long; documents are encoded and stored as ever. The texts "
            "travel with the model. No export has them."
        },
    )
    document_anchors: int = field(
        default=0,
        metadata={
            "help": "Every document is also read before this many of the judged training queries, one more pass each, "
            "when it is encoded, and the teacher's log-odds join its features: for corpora that get documents "
            "distillation never saw. Queries take as long as ever. The texts travel with the model. No export has them."
        },
    )

    def __post_init__(self) -> None:
        for name, count in self.anchors().items():
            check_count(name, count)

    def predictor(self) -> dict[str, object]:
        """The settings of `RabtrieverConfig` but for the anchors themselves."""
        others = (
            "teacher", "cross_encoder", "scores", "unjudged_queries", "states", "trust_remote_code", "dtype",
            "encoder", "encoder_layers",
        )  # fmt: skip
        return {name: value for name, value in vars(self).items() if name not in (*others, *self.anchors())}

    def anchors(self) -> dict[str, int]:
        """How many anchors of each side `drawn_anchors` draws."""
        return {"query_anchors": self.query_anchors, "document_anchors": self.document_anchors}


ARGUMENTS = (RunArguments, StudentArguments, SourceArguments, PromptArguments, RabtrieverDistillationConfig)


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the stage and returns the folder of the trained student."""
    arguments = parse_stage("distill", ARGUMENTS, argv)
    run, student, source, prompt, config = arguments
    check_sources(student, source, prompt)
    output = Path(config.output_dir)
    task = load_task(run.data, run.skip_bad)
    judged, dev = run.splits(task)
    train, inputs = training_queries(task, run.train_split, student.unjudged_queries, config.output_dir, run.skip_bad)
    if source.model_name_or_path is None:
        remedy = "run training.train_reranker first, or pass --teacher"
        reranker_path = earlier_model(student.teacher, config.output_dir, "teacher", remedy)
        inputs["teacher"] = model_digest(reranker_path)
    if student.cross_encoder is not None:
        inputs["cross_encoder"] = model_digest(student.cross_encoder)
    if student.scores is not None:
        inputs["scores"] = scores_from_jsonl(student.scores, task, train).identity
    stage = StageFolder(output / "student", (run, student, source, prompt, config), inputs, run.overwrite)
    if stage.done:
        say(f"student: done before, in {stage.model}")
        return stage.model
    check(arguments, task)
    if source.model_name_or_path is None:
        reranker = load_model(reranker_path, student.dtype, trust_remote_code=student.trust_remote_code)
    else:
        backbone = BackboneArguments(**vars(source), dtype="float32" if student.dtype == "auto" else student.dtype)
        texts = [*task.corpus, *train.queries]
        prompt = prompt.for_task(run.data)
        reranker = build_reranker(backbone, prompt, texts, config.seed, student.trust_remote_code)
    set_seed(config.seed)
    anchors = drawn_anchors(reranker.processor, task.corpus, judged.queries, config.seed, **student.anchors())
    reranker = reranker.to(config.device).eval()
    model = fresh_student(reranker, student, config, **anchors)
    config.output_dir = str(stage.checkpoints)
    folder = states_folder(student.states or output / "states", inputs)
    teacher, pools = _teacher(student, reranker, task, train, folder, config)
    if dev is None:
        watch_nothing(task, config)
    trainer = RabtrieverDistillationTrainer(
        model=model,
        teacher=teacher,
        documents=task.corpus,
        train_dataset=judged_queries(train),
        eval_dataset=None if dev is None else judged_queries(dev),
        args=config,
        pools=pools,
    )
    stage.start()
    trainer.train(resume_from_checkpoint=stage.last_checkpoint(config.resume_from_checkpoint))
    finish_encoder(model, config.train_encoder)
    model.predictor.fold_whitening()

    def save() -> None:
        with writing(stage.model):
            model.save_pretrained(stage.model)
        write_json(stage.log, trainer.state.log_history)

    on_main(save)
    stage.finish(teacher_pairs=trainer.teacher_pairs, embedding_dim=model.config.embedding_dim)
    return stage.model


def fresh_student(
    reranker: GenerativeRerankerModel, student: StudentArguments, config: RabtrieverDistillationConfig, **anchors: Any
) -> RabtrieverModel:
    """The student before its first step, on the reranker's device, its encoder ready to train if it is to."""
    if student.encoder is None:
        encoder = teachers_encoder(reranker, student.encoder_layers)
    else:
        encoder = other_encoder(student.encoder, reranker.processor, trust_remote_code=student.trust_remote_code)
    settings = {**student.predictor(), **anchors}
    if encoder.alike:
        size = encoder.config.hidden_size
        config.whitening_damping = None
        settings |= {
            "feature_poolings": encoder.poolings,
            "embedding_dim": size,
            "predictor_hidden_size": 2 * size,
            "num_heads": 1,
        }
    model = student_of(encoder, reranker, **settings)
    if encoder.alike:
        start_alike(model)
    train_encoder(model, config.train_encoder, config.encoder_lora_rank)
    return model.to(reranker.device)


def training_queries(
    task: RetrievalTask, split: str, unjudged: str | None, output_dir: str, skip_bad: bool = False
) -> tuple[Split, dict[str, str]]:
    """The queries a student is distilled on, and the digests of what they come from.

    Args:
        task: whose.
        split: the judged ones.
        unjudged: a file of more, or none; `{output_dir}` in its name stands for the run's.
        output_dir: of the run.
        skip_bad: whether bad lines of the file are left out.

    Raises:
        ValueError: the task has no such split, the file is malformed (`with_unjudged`), or it holds queries of another
            split (`check_leakage`).
    """
    train, inputs = task.split(split), {"task": task.fingerprint()}
    if unjudged is not None:
        path = unjudged.replace("{output_dir}", output_dir)
        train = with_unjudged(train, path, skip_bad)
        check_leakage(replace(task, splits={**task.splits, split: train}))
        inputs["unjudged_queries"] = file_digest(path)
    return train, inputs


def states_folder(root: str | Path, inputs: dict[str, str]) -> Path:
    """Where the cache of one teacher and one set of queries lies; `inputs` are their digests."""
    return Path(root) / hashlib.sha256("".join(inputs.values()).encode()).hexdigest()[:16]


def _teacher(
    student: StudentArguments,
    reranker: GenerativeRerankerModel,
    task: RetrievalTask,
    train: Split,
    folder: Path,
    config: RabtrieverDistillationConfig,
) -> tuple[TeacherScores, list[list[int]] | None]:
    """The cache of the teacher the arguments name, and per query what it can be asked about."""
    if student.cross_encoder is not None:
        scorer = cross_encoder(
            student.cross_encoder, train.queries, task.corpus, str(config.device), student.trust_remote_code
        )
    elif student.scores is not None:
        scorer = scores_from_jsonl(student.scores, task, train)
    else:
        states = getattr(torch, config.states_dtype) if config.needs_states else None
        return TeacherStates(folder, reranker, train.queries, task.corpus, states), None
    identity = {"scorer": scorer.identity, "task": task.fingerprint(), "split": train.name}
    return TeacherScores(folder, len(train), scorer.judge, identity), scorer.pools


def judged_queries(split: Split) -> Dataset:
    """The columns the trainer reads: `query` and `relevant` (corpus rows)."""
    return Dataset.from_dict({"query": split.queries, "relevant": [list(rows) for rows in split.relevant]})


if __name__ == "__main__":
    run_command(main)
