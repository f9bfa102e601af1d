"""Public encoders as ours: read, and checked tensor by tensor against their own config."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float32

from make_jax.config import ImageConfig, TextConfig
from make_jax.errors import InputError
from make_jax.inputs.tokenizer import load_tokenizer
from make_jax.interop import encoder_files
from make_jax.interop.encoder_files import ImagePreprocessing, PretrainedEncoder
from make_jax.interop.families import FAMILIES
from make_jax.interop.model_folder import JsonObject, ModelFolder, open_model_folder, resolve_model_folder
from make_jax.interop.tensor_names import EncoderFamily, EncoderKind, Params, convert
from make_jax.model.image import ImageEncoder
from make_jax.model.text import TextEncoder

MOST_PROBLEMS = 12  # tensors that an error lists
_TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json", "sentencepiece.bpe.model")
_LARGEST = {"layers": 256, "width": 1 << 16, "heads": 1 << 10, "mlp_width": 1 << 18, "patch_size": 1 << 10}
_PREPROCESSING = "preprocessor_config.json"


def read_encoder(name: str, kind: EncoderKind, setting: str) -> PretrainedEncoder:
    """The encoder of texts or of images that a folder or hub id holds.

    Args:
        name: a folder in the layout of Hugging Face transformers, one that `convert.py import` wrote, or a hub id.
        kind: what it is to read.
        setting: what errors call it.

    Raises:
        InputError: nothing there, another family or kind, a tensor too few, too many or of another shape (all listed),
            a pickle, a damaged file, a config that asks for code.
    """
    folder = resolve_model_folder(name, setting)
    if encoder_files.is_encoder_folder(folder):
        return _checked(encoder_files.load_encoder(folder, kind))
    source = open_model_folder(folder)
    return read_family(source, _family(source, kind, setting))


def families_of(source: ModelFolder) -> list[EncoderFamily]:
    """The families whose encoders `source` holds: two for both towers of Chinese-CLIP. InputError for none."""
    kind = source.config.text("model_type", "")
    found = [family for family in FAMILIES if kind in family.model_types]
    if not found:
        known = ", ".join(sorted({name for family in FAMILIES for name in family.model_types}))
        raise InputError(f"{source.config.where}: model_type is {kind!r}, expected one of {known}")
    return found


def read_family(source: ModelFolder, family: EncoderFamily) -> PretrainedEncoder:
    """The encoder of one family in `source`; errors as `read_encoder`."""
    part = family.model_types[source.config.text("model_type", "")]
    config = source.config.part(part) if part else source.config
    settings = family.settings(config)
    _check_sizes(settings, config.where)
    size, offset = family.size(config), family.offset(config)
    length = 0
    if family.kind == "text":
        length = config.whole("max_position_embeddings", 512)
    else:
        size -= size % settings["patch_size"]  # pixels that fill no patch are never read
    expected = expected_shapes(family.kind, settings, size, length)
    arrays = _converted(source, family, settings["layers"], expected)
    if offset:
        arrays["position"] = arrays["position"][offset:]
    folder = source.folder
    there = family.kind == "text" and any((folder / name).is_file() for name in _TOKENIZER_FILES)
    return PretrainedEncoder(
        folder=str(folder),
        family=family.name,
        kind=family.kind,
        settings=settings,
        pooling=_pooling(source, family),
        resample=family.resample,
        pixels=_pixels(source, family, size) if family.kind == "image" else None,
        tokenizer=load_tokenizer(folder).definition if there else None,
        arrays=arrays,
    )


def expected_shapes(
    kind: EncoderKind, settings: Mapping[str, Any], size: int, length: int
) -> dict[str, tuple[int, ...]]:
    """The shapes of our encoder's parameters by their paths.

    `size` counts word pieces, or pixels a side; `length` counts tokens. Nothing is computed.
    """
    if kind == "text":
        text = TextEncoder(TextConfig(**settings), size, length)
        tokens = jnp.zeros((1, 1), jnp.int32)
        tree = jax.eval_shape(text.init, jax.random.key(0), tokens, tokens > 0)
    else:
        image = ImageEncoder(ImageConfig(**settings), (0.0,) * 3, (1.0,) * 3)
        tree = jax.eval_shape(image.init, jax.random.key(0), jax.ShapeDtypeStruct((1, size, size, 3), jnp.uint8))
    return {path: leaf.shape for path, leaf in flatten(tree["params"]).items()}


def flatten(tree: Params) -> dict[str, Any]:
    """The leaves of dicts in dicts, by paths such as "layer_0/attention/query/kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(step.key) for step in path): leaf for path, leaf in leaves}


def nest(leaves: Mapping[str, Any]) -> Params:
    """The tree of which `flatten` gives `leaves`."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, last = path.split("/")
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = leaf
    return tree


def _check_sizes(settings: Mapping[str, Any], where: str) -> None:
    """InputError for sizes of which there is no encoder."""
    for name in ("layers", "width", "heads", "mlp_width", "patch_size"):
        if not 1 <= settings.get(name, 1) <= _LARGEST[name]:
            raise InputError(f"{where}: {name} of {settings[name]}, expected 1 to {_LARGEST[name]:,}")
    if settings["width"] % settings["heads"]:
        raise InputError(f"{where}: a width of {settings['width']} does not go into {settings['heads']} heads")


def _checked(encoder: PretrainedEncoder) -> PretrainedEncoder:
    """A saved encoder, once its parameters are those that its settings ask for."""
    _check_sizes(encoder.settings, encoder.folder)
    rows = {name: len(encoder.arrays.get(name, ())) for name in ("word/embedding", "position")}
    size = rows["word/embedding"] if encoder.pixels is None else encoder.pixels.size
    expected = expected_shapes(encoder.kind, encoder.settings, size, rows["position"])
    found = {path: array.shape for path, array in encoder.arrays.items()}
    problems = [f"{path} is missing" for path in expected if path not in found]
    problems += [f"{path} is unknown" for path in found if path not in expected]
    problems += [
        f"{path} is {list(found[path])}, expected {list(shape)}"
        for path, shape in expected.items()
        if path in found and found[path] != shape
    ]
    if problems:
        raise InputError(f"{encoder.folder}: the parameters do not fit {encoder_files.NAME}: {listed(problems)}")
    return encoder


def listed(problems: list[str]) -> str:
    """Problems in a line, the first of them where there are many."""
    more = f"; and {len(problems) - MOST_PROBLEMS} more" if len(problems) > MOST_PROBLEMS else ""
    return "; ".join(problems[:MOST_PROBLEMS]) + more


def _family(source: ModelFolder, kind: EncoderKind, setting: str) -> EncoderFamily:
    for family in families_of(source):
        if family.kind == kind:
            return family
    found = source.config.text("model_type", "")
    known = ", ".join(sorted({family.name for family in FAMILIES if family.kind == kind}))
    raise InputError(f"{setting}: {source.folder} is {found!r}, expected a family with an encoder of {kind}: {known}")


def _converted(
    source: ModelFolder, family: EncoderFamily, layers: int, expected: Mapping[str, tuple[int, ...]]
) -> dict[str, Float32[np.ndarray, "..."]]:
    """All parameters of the encoder. InputError that lists every tensor that does not fit."""
    rows = family.rows(layers)
    wanted = {name for row in rows for name in row.theirs}
    prefix = max(family.prefixes, key=lambda prefix: sum(prefix + name in source.tensors for name in wanted))
    shapes = {}
    for name in source.tensors:
        if name.startswith(prefix):
            shapes[name.removeprefix(prefix)] = source.shape(name)
    arrays, problems = convert(rows, expected, shapes, lambda name: source.read(prefix + name))
    problems += [
        f"{name} {list(shape)} is unknown"
        for name, shape in shapes.items()
        if name not in wanted and not name.startswith(family.left_out)
    ]
    if problems:
        what = f"the tensors are not those of {family.name} with the sizes in config.json"
        raise InputError(f"{source.folder}: {what}: {listed(problems)}")
    return arrays


def _pixels(source: ModelFolder, family: EncoderFamily, size: int) -> ImagePreprocessing:
    """What the family subtracts from pixels and divides them by."""
    given = source.json(_PREPROCESSING)
    if given is None and (whole := source.json("processor_config.json")) is not None:
        given = whole.part("image_processor")
    if given is None:
        return ImagePreprocessing(family.mean, family.std, size)
    given.expect("do_rescale", True)
    if abs(given.number("rescale_factor", 1 / 255) - 1 / 255) > 1e-9:
        given.expect("rescale_factor", 1 / 255)
    if given.values.get("do_normalize", True) is False:
        return ImagePreprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), size)
    return ImagePreprocessing(
        _three(given, "image_mean", family.mean),
        _three(given, "image_std", family.std),
        size,
    )


def _three(given: JsonObject, key: str, default: tuple[float, float, float]) -> tuple[float, float, float]:
    values = given.values.get(key, default)
    if not isinstance(values, list | tuple) or len(values) != 3 or not all(type(v) in (int, float) for v in values):
        raise InputError(f"{given.where}: {key} is {values!r}, expected three numbers")
    return (float(values[0]), float(values[1]), float(values[2]))


def _pooling(source: ModelFolder, family: EncoderFamily) -> str:
    """How its makers make a vector of the states: sentence-transformers writes it down."""
    written = source.json("1_Pooling/config.json")
    if family.kind == "image" or written is None:
        return family.pooling
    return "mean" if written.values.get("pooling_mode_mean_tokens") else "cls"
