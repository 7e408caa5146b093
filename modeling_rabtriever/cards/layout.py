"""Where a card stands and what lies beside it; read by the generator and by the release."""

from ..evaluation.labels import STUDENT, TEACHER

EVALUATION = "evaluation"  # folder beside the card: reports and plots
# Stage folder -> template, name of the system in the reports, tags.
CARDS: dict[str, tuple[str, str, list[str]]] = {
    "teacher": ("generative_reranker.md", TEACHER, ["reranker", "rationale-based-retrieval"]),
    "student": ("rabtriever.md", STUDENT, ["rabtriever", "retrieval", "rationale-based-retrieval"]),
}
