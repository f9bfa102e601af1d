"""Weights in: public encoders become ours (`encoders.py`). One file a family under `families/` says how."""
