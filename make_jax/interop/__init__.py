"""Weights in and out: public encoders into a run, a run's model into PyTorch, ONNX, StableHLO, sentence-transformers.

families/                        one file per encoder family and their table; add a family there (docs/extending.md)
encoder_family.py                what a family defines
import_encoders.py               reads an encoder; model_folder.py: files and hub; tensor_names.py: mapping of tensors
encoder_files.py                 imported encoders on disk
init_encoders.py                 initializes a run from encoders; position_resampling.py adapts image positions
export.py                        the table of export formats; add a format there
onnx_export.py, stablehlo_export.py, sentence_transformers_export.py, torch_checkpoint.py    one file per format
torch_model/                     MAKE in PyTorch, file by file as make_jax/model; read back by torch_checkpoint.py
bundle.py, model_card.py         what accompanies the weights of every export
"""
