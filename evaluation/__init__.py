"""Evaluation: metrics, trivial baselines, reports and plots."""
