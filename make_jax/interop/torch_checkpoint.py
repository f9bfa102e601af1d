"""The PyTorch export: Flax parameters as the state dict of `torch_model.MakeModel` and back, bit by bit; without torch.

One table, `tensor_mapping`, serves both directions. Encoder tensors have the names under which transformers saves BERT
and ViT; all others have the path of the Flax parameter with dots.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

from make_jax.config import ModelConfig
from make_jax.errors import InputError
from make_jax.interop.bundle import CONFIG, ModelBundle, read_bundle
from make_jax.interop.encoder_family import EncoderFamily
from make_jax.interop.families.bert import BERT
from make_jax.interop.families.vit import VIT
from make_jax.interop.model_folder import WEIGHTS, open_model_folder
from make_jax.interop.tensor_names import (
    INVERSE,
    ParamMapping,
    Params,
    convert,
    dense,
    identity,
    join_problems,
    layer_norm,
)
from make_jax.model.keyword_evidence import EPS, EXCLUSION, SCORE_NORM
from make_jax.model.layer_config import LayerConfig, compute_config, is_plain_vit, layer_config
from make_jax.model.make import Make

CONSTANTS = {"eps": EPS, "rival": EXCLUSION, "length": SCORE_NORM}  # of keyword evidence
_TRAINING_ONLY = ("matching", "query_head", "title_head", "patch_head")  # submodules that `search_config` drops


def write(folder: Path, params: Params, bundle: ModelBundle) -> None:
    """Writes model.safetensors and the bundle's files into an existing folder."""
    leaves = {path: np.asarray(leaf, np.float32) for path, leaf in flatten_dict(search_params(params), sep="/").items()}
    table = tensor_mapping(bundle.config.model, len(bundle.keywords))
    assert {row.param for row in table} == leaves.keys()
    save_file(to_tensors(table, leaves.__getitem__), folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)  # safetensors creates files with mode 0600
    bundle.write(folder)


def read(folder: Path) -> tuple[Params, ModelBundle]:
    """Returns the parameters, as NumPy arrays, and the bundle of a folder.

    Raises:
        InputError: a file is missing, damaged, a pickle, or requests custom code; tensors are missing, unknown or of
            another shape (all listed); or the constants of keyword evidence differ from this version's.
    """
    bundle = read_bundle(folder)
    if dict(bundle.evidence) != CONSTANTS:
        raise InputError(f"{folder / CONFIG}: evidence is {bundle.evidence}, this make_jax has {CONSTANTS}")
    source = open_model_folder(folder)
    table = tensor_mapping(bundle.config.model, len(bundle.keywords))
    shapes = {name: source.shape(name) for name in source.tensors}
    known = {row.tensors[0] for row in table}
    converted = convert(table, param_shapes(bundle), shapes, source.read)
    unknown = [f"{name} {list(shape)} is unknown" for name, shape in shapes.items() if name not in known]
    if problems := [*converted.problems, *unknown]:
        raise InputError(f"{folder}: the tensors are not those of its {CONFIG}: {join_problems(problems)}")
    return unflatten_dict(converted.arrays, sep="/"), bundle


def make_module(bundle: ModelBundle) -> Make:
    """Returns the Flax module whose parameters an export holds."""
    keywords = bundle.keywords
    return Make(
        bundle.config.model,
        bundle.config.inputs,
        bundle.tokenizer.vocab_size,
        len(keywords),
        keywords.exclusion_groups,
    )


def search_params(params: Params) -> Params:
    """Returns the parameters that search uses: those of a run without the training-only submodules."""
    return {name: tree for name, tree in params.items() if name not in _TRAINING_ONLY}


def param_shapes(bundle: ModelBundle) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each parameter by path, without computing values."""
    row = bundle.queries([""]) | bundle.products([""], [None])
    batch = {name: jnp.zeros(array.shape, array.dtype) for name, array in row.items() if name != "query_keywords"}
    tree = jax.eval_shape(make_module(bundle).init, jax.random.key(0), batch)
    return {path: leaf.shape for path, leaf in flatten_dict(tree["params"], sep="/").items()}


def tensor_mapping(model: ModelConfig, keywords: int) -> list[ParamMapping]:
    """Returns the table of a search model; `keywords` is the size of the keyword vocabulary."""
    m, a = model, model.adaptation
    dual_encoder = a.modalities == "both" and not a.single_stream
    table = [*_encoder(BERT, m.query.layers, "query_encoder"), *_dense("query_projection")]
    if m.enrichment and keywords:
        table += [*_dense("enhancement/predict"), *_dense("enhancement/gate"), _param("enhancement/embedding", 2)]
    if a.single_stream:
        stream = _encoder(BERT, m.title.layers, "product_encoder", "product_encoder.encoder")
        # A single stream uses both token types, a text encoder only the first.
        table += [row._replace(transform=identity) if row.param.endswith("/type") else row for row in stream]
        table += [*_dense("product_encoder/patch"), *_dense("product_encoder/projection")]
    else:
        if a.modalities != "image" and not m.shared_text:
            table += _encoder(BERT, m.title.layers, "title_encoder")
        if a.modalities != "title":
            table += _image_encoder(m)
        table += _modal_adaptation(m) if dual_encoder else _dense("product_projection")
    if min(m.keyword_dims, keywords):
        table.append(_param("keyword_evidence/known", 1))
        for name in ("title", "image") if dual_encoder else ("product",):
            table += [*_dense(f"keyword_evidence/{name}/hidden"), *_dense(f"keyword_evidence/{name}/predict")]
    return [*table, _param("log_logit_scale", 0), _param("logit_bias", 0)]


def to_tensors(table: list[ParamMapping], read: Callable[[str], np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the tensors that `table` makes of our parameters; `read` returns a parameter by its path."""
    return {row.tensors[0]: np.array(INVERSE[row.transform](read(row.param)), order="C") for row in table}


def _encoder(family: EncoderFamily, layers: int, params: str, tensors: str = "") -> list[ParamMapping]:
    """An encoder's table with the encoder's own name in front of every name."""
    return [
        ParamMapping(f"{params}/{row.param}", tuple(f"{tensors or params}.{name}" for name in row.tensors), *row[2:])
        for row in family.table(layers)
    ]


def _image_encoder(model: ModelConfig) -> list[ParamMapping]:
    image = model.image
    plain = is_plain_vit(image)
    table = _encoder(VIT, image.layers if plain else 0, "image_encoder")
    if not plain:
        layer = layer_config(image, compute_config(model))
        for i in range(image.layers):
            table += _pre_norm_layer(f"image_encoder.layers.{i}", f"image_encoder/layer_{i}", layer)
    if not image.class_tokens:
        table = [row for row in table if row.param != "image_encoder/class"]
    if image.embedding_norm:
        table += layer_norm("image_encoder.embeddings.norm", "image_encoder/embedding_norm")
    return table


def _pre_norm_layer(tensor: str, param: str, config: LayerConfig) -> list[ParamMapping]:
    """The table of a `PreNormLayer`."""
    norms = ["attention_norm", "mlp_norm", *(["mlp.norm"] if config.mlp_sub_norm else [])]
    table = [row for name in norms for row in layer_norm(f"{tensor}.{name}", f"{param}/{name.replace('.', '/')}")]
    for name in ("query", "key", "value", "out"):
        rows = dense(f"{tensor}.attention.{name}", f"{param}/attention/{name}")
        table += rows[:1] if name == "key" and not config.key_bias else rows
    mlp = {"first": "in", "second": "out", **({"gate": "gate"} if config.activation == "swiglu" else {})}
    for theirs, ours in mlp.items():  # "in" is a Python keyword
        table += dense(f"{tensor}.mlp.{theirs}", f"{param}/mlp/{ours}")
    return table


def _modal_adaptation(model: ModelConfig) -> list[ParamMapping]:
    a = model.adaptation
    table = [*_dense("adaptation/title_projection"), *_dense("adaptation/image_projection")]
    if a.weights == "gate":
        if model.title.width != model.image.width:
            table += _dense("adaptation/gate_image")
        table += [*_dense("adaptation/gate_in"), *_dense("adaptation/gate_out")]
    if a.cross_attention:
        layer = layer_config(model.title, compute_config(model))
        for block in ("adaptation/title_attends_image", "adaptation/image_attends_title"):
            table += _pre_norm_layer(block.replace("/", "."), block, layer)
    return table


def _dense(path: str) -> tuple[ParamMapping, ParamMapping]:
    """A dense layer under its own path."""
    return dense(path.replace("/", "."), path)


def _param(path: str, rank: int) -> ParamMapping:
    """A bare parameter under its own path."""
    return ParamMapping(path, (path.replace("/", "."),), identity, (rank,))
