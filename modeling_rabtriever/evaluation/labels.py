"""Names of systems and metrics in reports."""

RANDOM = "random"
TEACHER, STUDENT = "teacher", "Rabtriever"  # compared in reports
TRIVIAL = (RANDOM, "label prior", "BM25")  # baselines that a teacher must beat
COMPARED = ("success@1", "mrr@10")
COLUMNS = {"success@1": "R@1", "success@3": "R@3", "success@5": "R@5", "mrr@10": "MRR@10"}
NOTE = (
    "Systems rank every document of the corpus unless stated otherwise; random is the expectation of a random order. "
    "R@k: share of queries with a relevant document among the first k, in percent (success@k; equal to recall if one "
    "document is relevant). Brackets: 95% bootstrap interval over queries. ms: median time of a single query, from "
    "text to scores of the whole corpus, with the teacher's document prefixes and Rabtriever's vectors already "
    "computed."
)
