"""Settings of a student: the teacher that is asked, what the student starts from, and its predictor's shape."""

from dataclasses import dataclass, field

from ..loading import DTYPES
from .anchors import check_count


@dataclass
class TeacherSourceArguments:
    """The teacher that is asked, and what it is asked about."""

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
    """What the student starts from, and the shape of its predictor (`RabtrieverConfig`)."""

    encoder: str | None = field(
        default=None,
        metadata={
            "help": "Folder or Hub id of a text model or sentence-transformers model: the student's encoder, with its "
            "own tokenizer, prompts and pooling. A sentence-transformers model starts with its own ranking, and "
            "embedding_dim is its width. Default: the teacher's backbone."
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
    feature_poolings: list[str] | None = field(
        default=None,
        metadata={
            "help": "How a layer becomes a vector. Default: last and mean, or what an encoder of its own was made for.",
            "choices": ["first", "last", "mean"],
        },
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
        others = ("encoder", "encoder_layers", *self.anchors())
        given = {name: value for name, value in vars(self).items() if name not in others}
        if self.feature_poolings is None:
            del given["feature_poolings"]
        return given

    def check_encoder(self) -> None:
        """Raises a ValueError if settings exclude each other: where the encoder is not the teacher's whole backbone."""
        if self.encoder is not None and self.encoder_layers is not None:
            raise ValueError(
                f"encoder_layers is {self.encoder_layers} and encoder {self.encoder!r}; accepted: one of them, as "
                "layers are kept of the teacher's backbone alone"
            )
        if self.document_anchors and (self.encoder is not None or self.encoder_layers is not None):
            raise ValueError(
                f"document_anchors is {self.document_anchors}; accepted: 0 with encoder or encoder_layers, as no other "
                "model than the whole teacher gives its log-odds"
            )

    def anchors(self) -> dict[str, int]:
        """How many anchors of each side `drawn_anchors` draws."""
        return {"query_anchors": self.query_anchors, "document_anchors": self.document_anchors}
