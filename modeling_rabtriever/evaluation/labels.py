"""What reports call systems and metrics."""

RANDOM = "random"
TEACHER, STUDENT = "teacher", "Rabtriever"  # whom reports hold against each other
TRIVIAL = (RANDOM, "label prior", "BM25")  # what a teacher has to be better than
COMPARED = ("success@1", "mrr@10")
COLUMNS = {"success@1": "R@1", "success@3": "R@3", "success@5": "R@5", "mrr@10": "MRR@10"}
NOTE = (
    "Every document of the corpus is ranked unless it says otherwise; random is the expectation of a random order. "
    "R@k: share of queries with a relevant document among the first k, in percent (success@k; the recall where one "
    "document is relevant). Brackets: 95% bootstrap interval over queries. ms: one query at a time, text in, scores of "
    "the whole corpus out, median; the teacher's document prefixes and Rabtriever's vectors are computed before."
)
