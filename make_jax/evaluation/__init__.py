"""Evaluation of retrieval on judged queries, and reports of it.

- Protocol: `evaluate` runs all systems on a split; `search_pool` defines which products are searched, `eval_split`
  holds the inputs of the systems, `tuning` selects parameters on validation queries, `training_overlap` notes what the
  model was trained on. `cli/evaluation.py` calls them.
- Systems: `baselines` (BM25, random, fusion with BM25), `late_fusion`; `models/` has adapters of other models.
- Numbers: `metrics` (the table of metrics), `slices` (of queries), `significance` (intervals, paired tests, Holm).
- Output: `report` (the folder), `render` (Markdown, terminal), `compare` (two reports), `trec` (run and qrels files).
- Pictures: `gallery` (queries with results), `weights_plot` (modal weights), `fonts`.
"""
