"""Evaluation: metrics with intervals, trivial baselines, systems that rank, `evaluate()`, reports and plots.

Needs the extra "evaluation". A name is imported when it is first used.
"""

from typing import TYPE_CHECKING

from ..lazy import imported_when_used

if TYPE_CHECKING:
    from .metrics import bootstrap_interval, mean_metrics, paired_test, query_metrics, rank_documents
    from .report import Interval, Report, SystemReport
    from .splits import evaluate
    from .systems import System, baselines, load_system, rabtriever_system, reranker_system

__getattr__ = imported_when_used(
    __name__,
    {
        "Interval": "report",
        "Report": "report",
        "System": "systems",
        "SystemReport": "report",
        "baselines": "systems",
        "bootstrap_interval": "metrics",
        "evaluate": "splits",
        "load_system": "systems",
        "mean_metrics": "metrics",
        "paired_test": "metrics",
        "query_metrics": "metrics",
        "rabtriever_system": "systems",
        "rank_documents": "metrics",
        "reranker_system": "systems",
    },
)

__all__ = [
    "Interval",
    "Report",
    "System",
    "SystemReport",
    "baselines",
    "bootstrap_interval",
    "evaluate",
    "load_system",
    "mean_metrics",
    "paired_test",
    "query_metrics",
    "rabtriever_system",
    "rank_documents",
    "reranker_system",
]
