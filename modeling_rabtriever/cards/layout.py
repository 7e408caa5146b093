"""Locations and names of cards and their files, shared by the generator and the release."""

from ..evaluation.labels import STUDENT, TEACHER

EVALUATION = "evaluation"  # folder next to the card, with reports and plots
# Stage folder -> template, name of the system in the reports, tags.
CARDS: dict[str, tuple[str, str, list[str]]] = {
    "teacher": ("generative_reranker.md", TEACHER, ["reranker", "rationale-based-retrieval"]),
    "student": ("rabtriever.md", STUDENT, ["rabtriever", "retrieval", "rationale-based-retrieval"]),
}
