"""Training. Read `loop.py` first: `train` sets up a run, `Trainer.run` is the loop.

loop.py              a run from first line to last; the order inside the loop
initialization.py    what a run starts from: own checkpoint, another run, pretrained encoders, the seed
resume_check.py      which settings may change when a run is resumed
vocabularies.py      tokenizer and keywords of a new run
checkpointing.py     progress of a run; what checkpoints contain in addition to the state

step.py              the compiled training step and the initial state
gradient_cache.py    loss and gradient, in micro-batches
optimizer.py         AdamW, learning-rate schedule, learning-rate multipliers and freezing

validation.py        retrieval quality on the validation split
keyword_heads.py     the fit of the keyword heads, before each validation
eval_context.py      what both need to embed the catalog

step_metrics.py      metrics of steps, averaged and checked
metric_logger.py     passes metrics on to the writers of metric_writers/ (JSON lines, TensorBoard, W&B, terminal)
curves.py            curves.png from metrics.jsonl
utilization.py       examples per second, MFU, peak memory
data_fingerprint.py  one number for all examples read so far
profiling.py         traces of selected steps
stopping.py          Ctrl-C and SIGTERM
"""
