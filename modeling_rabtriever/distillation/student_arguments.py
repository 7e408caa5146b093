"""Settings of a student: the teacher that is asked, what the student starts from, and its predictor's shape."""

from dataclasses import dataclass, field
from typing import Any

from ..loading import DTYPES

PREDICTOR_TYPES = ("hadamard", "paper")


@dataclass
class TeacherSourceArguments:
    """The teacher that is asked, and what it is asked about."""

    teacher: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of the teacher; default: <output_dir>/teacher/model."}
    )
    cross_encoder: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of a sentence-transformers CrossEncoder to distil instead."}
    )
    unlabelled_queries: str | None = field(
        default=None,
        metadata={
            "help": 'File of queries without labels to distil beside the training split, lines {"_id": ..., "text": '
            "...}: a log, or what the stage generate_queries wrote. {output_dir} in the name stands for this run's."
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
            "help": "Type of the teacher's weights while it is asked, and of a frozen student's backbone that is the "
            "teacher's; auto: as saved. bfloat16 asks several times faster where the machine computes in it.",
            "choices": list(DTYPES),
        },
    )


@dataclass
class StudentArguments:
    """What the student starts from, and the form and width of its predictor."""

    encoder: str | None = field(
        default=None,
        metadata={
            "help": "The student's encoder. Folder or Hub id of a text model or sentence-transformers model, with its "
            "own tokenizer, prompts and pooling; or a number, that many of the first layers of the teacher's backbone. "
            "Default: the whole backbone. A sentence-transformers model starts with its own ranking."
        },
    )
    predictor_type: str = field(
        default="hadamard",
        metadata={
            "help": "Form of the predictor: with a learned document map, or the paper's, which multiplies the "
            "document's state itself. The map is worth 78 points of R@1 on household.",
            "choices": PREDICTOR_TYPES,
        },
    )
    embedding_dim: int | None = field(
        default=None,
        metadata={"help": "Index width k; default: the encoder's hidden size. 'paper' has no choice."},
    )

    def __post_init__(self) -> None:
        if self.predictor_type not in PREDICTOR_TYPES:
            raise ValueError(f"predictor_type is {self.predictor_type!r}; accepted: {', '.join(PREDICTOR_TYPES)}")
        if self.layers is not None and self.layers < 1:
            raise ValueError(f"encoder is {self.encoder!r}; accepted: a folder, a Hub id, or 1 layer or more")

    @property
    def layers(self) -> int | None:
        """How many of the first layers of the teacher's backbone the student keeps, if `encoder` is a number."""
        number = self.encoder is not None and self.encoder.isascii() and self.encoder.isdigit()
        return int(self.encoder) if number and self.encoder is not None else None

    @property
    def other_encoder(self) -> str | None:
        """Folder or Hub id of another encoder than the teacher's backbone, if there is one."""
        return None if self.layers is not None else self.encoder

    def shape(self, hidden_size: int, poolings: list[str]) -> dict[str, Any]:
        """Settings of `RabtrieverConfig` on an encoder of this width, which is pooled that way.

        Raises:
            ValueError: the paper's predictor is asked for with another index width than its own.
        """
        if self.predictor_type == "hadamard":
            return {"embedding_dim": self.embedding_dim, "feature_poolings": poolings}
        if self.embedding_dim not in (None, hidden_size):
            raise ValueError(
                f"embedding_dim is {self.embedding_dim}; accepted with predictor_type paper: {hidden_size}, the hidden "
                "size"
            )
        return {"query_hidden_size": hidden_size, "feature_poolings": ["last"], "document_map": False}
