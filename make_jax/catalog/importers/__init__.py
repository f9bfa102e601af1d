"""Public benchmarks as catalogs: one file a benchmark, `work` and the readers of tables under them all."""
