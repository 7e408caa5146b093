"""Stage 2: distils the teacher into Rabtriever.

Usage:
    python -m training.distill --config training/recipes/household.yaml
    python -m training.distill --config training/recipes/household.yaml --teacher path/or/hub-id --embedding_dim 256

Reads <output_dir>/teacher/model unless --teacher says otherwise; writes <output_dir>/student/model, a folder AutoModel
loads. Teacher states are kept in <output_dir>/states, one cache per teacher and task, for later runs on the same two.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset
from transformers import AutoModel, set_seed

from modeling_rabtriever import RabtrieverModel
from modeling_rabtriever.files import write_json
from training.backbone import SAVED_DTYPES
from training.distillation_trainer import RabtrieverDistillationConfig, RabtrieverDistillationTrainer
from training.recipe import parse_stage
from training.stages import StageFolder, earlier_model, model_digest
from training.tasks.beir import Split, load_beir
from training.train_reranker import RunArguments


@dataclass
class StudentArguments:
    """The student's teacher and the shape of its predictor (`RabtrieverConfig`)."""

    teacher: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of the teacher; default: <output_dir>/teacher/model."}
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
            "choices": SAVED_DTYPES,
        },
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
    feature_layers: list[int] = field(
        default_factory=lambda: [-1], metadata={"help": "Layers the features are read from; -1 is the last."}
    )
    feature_poolings: list[str] = field(
        default_factory=lambda: ["last", "mean"],
        metadata={"help": "How a layer becomes a vector.", "choices": ["last", "mean"]},
    )

    def predictor(self) -> dict[str, object]:
        """The settings of `RabtrieverConfig`."""
        others = ("teacher", "states", "trust_remote_code", "dtype")
        return {name: value for name, value in vars(self).items() if name not in others}


ARGUMENTS = (RunArguments, StudentArguments, RabtrieverDistillationConfig)


def main(argv: Sequence[str] | None = None) -> Path:
    """Runs the stage and returns the folder of the trained student."""
    run, student, config = parse_stage("distill", ARGUMENTS, argv)
    output = Path(config.output_dir)
    task = load_beir(run.data)
    teacher_path = earlier_model(
        student.teacher, config.output_dir, "teacher", "run training.train_reranker first, or pass --teacher"
    )
    inputs = {"task": task.fingerprint(), "teacher": model_digest(teacher_path)}
    stage = StageFolder(output / "student", (run, student, config), inputs, run.overwrite)
    if stage.done:
        print(f"student: done before, in {stage.model}")
        return stage.model
    teacher = AutoModel.from_pretrained(
        teacher_path, trust_remote_code=student.trust_remote_code, dtype=student.dtype
    ).eval()
    set_seed(config.seed)
    model = RabtrieverModel.from_teacher(teacher, **student.predictor())
    config.output_dir = str(stage.checkpoints)
    trainer = RabtrieverDistillationTrainer(
        model=model,
        teacher=teacher.to(config.device),
        documents=task.corpus,
        train_dataset=judged_queries(task.split(run.train_split)),
        eval_dataset=judged_queries(task.split(run.dev_split)),
        states_folder=Path(student.states or output / "states")
        / hashlib.sha256("".join(inputs.values()).encode()).hexdigest()[:16],
        args=config,
    )
    trainer.train(resume_from_checkpoint=config.resume_from_checkpoint or stage.last_checkpoint())
    model.predictor.fold_whitening()
    model.save_pretrained(stage.model)
    write_json(stage.log, trainer.state.log_history)
    stage.finish(teacher_pairs=trainer.candidates.numel(), embedding_dim=model.config.embedding_dim)
    return stage.model


def judged_queries(split: Split) -> Dataset:
    """The columns the trainer reads: `query` and `relevant` (corpus rows)."""
    return Dataset.from_dict({"query": split.queries, "relevant": [list(rows) for rows in split.relevant]})


if __name__ == "__main__":
    main()
