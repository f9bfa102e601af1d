"""Weights in and out.

In: public encoders become ours (`encoders.py`); one file a family under `families/` says how. Out: `torch_files.py`,
`onnx_files.py`, `stablehlo.py` and `sentence_transformers.py` write a model, `served.py` what lies beside it.
"""
