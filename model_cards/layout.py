"""Where a card stands and what lies beside it; read by the generator and by the release."""

EVALUATION = "evaluation"  # folder beside the card: reports and plots
# Stage folder -> template, name of the system in the reports, tags.
CARDS: dict[str, tuple[str, str, list[str]]] = {
    "teacher": ("generative_reranker.md", "teacher", ["reranker", "rationale-based-retrieval"]),
    "student": ("rabtriever.md", "Rabtriever", ["rabtriever", "retrieval", "rationale-based-retrieval"]),
}
