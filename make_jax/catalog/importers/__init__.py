"""Importers of public benchmarks: one file a benchmark, on top of tables.py (rows of files) and import_state.py."""
