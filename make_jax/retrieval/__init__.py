"""Embedding a catalog, exact search, metrics, baselines, evaluation, reports."""
