"""Settings of a student: its teacher, its encoder, and the shape of its predictor."""

from dataclasses import dataclass, field
from typing import Any

from ..loading import DTYPES

PREDICTOR_TYPES = ("hadamard", "paper")


@dataclass
class ServedTeacherArguments:
    """A teacher behind a server."""

    teacher: str | None = field(
        default=None,
        metadata={
            "help": "Address of an OpenAI-compatible server that runs the teacher, such as http://localhost:8000/v1; "
            "model_name_or_path then names its tokenizer."
        },
    )
    served_model: str | None = field(
        default=None, metadata={"help": "Name of the teacher at the server, if it has several models."}
    )
    requests_in_flight: int = field(
        default=8, metadata={"help": "Requests to the server at once, each with up to 16 pairs."}
    )


@dataclass
class TeacherSourceArguments(ServedTeacherArguments):
    """The teacher, and additional queries for it to score."""

    teacher: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of the teacher, or the address of an OpenAI-compatible server that runs it, such "
            "as http://localhost:8000/v1; model_name_or_path then names its tokenizer, and encoder the student's. "
            "Default: <output_dir>/teacher/model."
        },
    )
    dry_run: bool = field(
        default=False,
        metadata={"help": "Print how many pairs and tokens the teacher will read, and stop. Asks no server."},
    )
    cross_encoder: str | None = field(
        default=None, metadata={"help": "Folder or Hub id of a sentence-transformers CrossEncoder to distil instead."}
    )
    unlabelled_queries: str | None = field(
        default=None,
        metadata={
            "help": 'File of queries without labels to distil beside the training split, lines {"_id": ..., "text": '
            "...}: a query log, or the output of the stage generate_queries. {output_dir} in the name stands for the "
            "folder of this run."
        },
    )
    states: str | None = field(
        default=None, metadata={"help": "Folder of the caches of teacher scores; default: <output_dir>/states."}
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Whether code from the teacher's repository may run."}
    )
    dtype: str = field(
        default="auto",
        metadata={
            "help": "Type of the teacher's weights while it scores, and of a frozen student's backbone if it is the "
            "teacher's; auto: as saved. bfloat16 is several times faster if the machine computes in it.",
            "choices": list(DTYPES),
        },
    )


@dataclass
class StudentArguments:
    """What the student starts from, and the form and width of its predictor.

    Examples:
        >>> from modeling_rabtriever.distillation import StudentArguments
        >>> shape = StudentArguments(encoder="sentence-transformers/all-MiniLM-L6-v2")  # the fourth argument of distill
    """

    encoder: str | None = field(
        default=None,
        metadata={
            "help": "The student's encoder: folder or Hub id of a text model or sentence-transformers model, with its "
            "own tokenizer, prompts and pooling; or a number N, for the first N layers of the teacher's backbone. "
            "Default: the whole backbone. A sentence-transformers model starts with its own ranking."
        },
    )
    predictor_type: str = field(
        default="hadamard",
        metadata={
            "help": "Form of the predictor: with a learned document map (hadamard), or the paper's, which multiplies "
            "the document's state itself. The map, with whitening, is worth 51 points of R@1 on household.",
            "choices": PREDICTOR_TYPES,
        },
    )
    embedding_dim: int | None = field(
        default=None,
        metadata={
            "help": "Index width k, at most 65,536; default: the encoder's hidden size, the only width of 'paper'. On "
            "household, half of it is level."
        },
    )

    def __post_init__(self) -> None:
        if self.encoder is not None:
            self.encoder = str(self.encoder)  # a Path or a number, from Python
        if self.predictor_type not in PREDICTOR_TYPES:
            raise ValueError(f"predictor_type is {self.predictor_type!r}; accepted: {', '.join(PREDICTOR_TYPES)}")
        if self.layers is not None and self.layers < 1:
            raise ValueError(f"encoder is {self.encoder!r}; accepted: a folder, a Hub id, or 1 layer or more")

    @property
    def layers(self) -> int | None:
        """How many of the first layers of the teacher's backbone the student keeps, if `encoder` is a number."""
        if self.encoder is None or not (self.encoder.isascii() and self.encoder.isdigit()):
            return None
        return int(self.encoder)

    @property
    def other_encoder(self) -> str | None:
        """Folder or Hub id of the encoder, if it is not the teacher's backbone."""
        return None if self.layers is not None else self.encoder

    def shape(self, hidden_size: int, poolings: list[str]) -> dict[str, Any]:
        """Settings of `RabtrieverConfig` for an encoder of this width and with these poolings.

        Raises:
            ValueError: the paper's predictor is combined with another index width than the hidden size.
        """
        if self.predictor_type == "hadamard":
            return {"embedding_dim": self.embedding_dim, "feature_poolings": poolings}
        if self.embedding_dim not in (None, hidden_size):
            raise ValueError(
                f"embedding_dim is {self.embedding_dim}; accepted with predictor_type paper: {hidden_size}, the hidden "
                "size"
            )
        return {"query_hidden_size": hidden_size, "feature_poolings": ["last"], "document_map": False}
