"""The files that accompany the weights of every export: settings, tokenizer, keywords, preprocessing. Imports no jax.

config.json                              settings, sizes, and the checkpoint that the weights come from
tokenizer.json, tokenizer_config.json    the tokenizer, in the format of transformers
keywords.json                            the keyword vocabulary
preprocessor_config.json                 image preprocessing, for reimplementations
README.md                                the model card
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt32

from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.config import Config, DataConfig, ModelConfig, ObjectivesConfig, check, from_json
from make_jax.errors import InputError, check_lists
from make_jax.inputs.batch import Batch, product_arrays
from make_jax.inputs.images import WHITE, load_image
from make_jax.inputs.tokenizer import Tokenizer
from make_jax.interop.model_folder import read_json

MODEL_TYPE = "make_jax"  # in config.json
CONFIG, TOKENIZER, KEYWORDS, MODEL_CARD = "config.json", "tokenizer.json", "keywords.json", "README.md"

_LARGE_IMAGES = {  # what preprocessor_config.json states of images over twice the size, by inputs.image_decoding
    "full": {},
    "scaled": {
        "resample_over_twice_the_size": "JPEGs decoded at 1/8 to 1/2, others averaged over boxes; then bilinear"
    },
}


@dataclass(frozen=True)
class ModelBundle:
    """Everything that a model needs for search except its parameters."""

    config: Config  # of the run, as `search_config` returns it
    tokenizer: Tokenizer
    keywords: KeywordVocabulary
    evidence: Mapping[str, float]  # constants of keyword evidence: eps, rival, length
    origin: Mapping[str, Any]  # the run and checkpoint of the parameters

    @property
    def keyword_dims(self) -> int:
        """n, the number of vector dimensions that represent keywords."""
        return min(self.config.model.keyword_dims, len(self.keywords))

    def queries(self, texts: Sequence[str]) -> Batch:
        """Returns query_tokens [B, Lq] int32, query_mask [B, Lq] bool and query_keywords [B, n] bool."""
        check_lists(texts=texts)
        tokens, mask = self.tokenizer.encode(texts, self.config.inputs.max_query_tokens)
        packed = self.keywords.pack([self.keywords.tag(text) for text in texts])
        keywords = unpack_keywords(packed, self.keyword_dims)
        return {"query_tokens": tokens, "query_mask": mask, "query_keywords": keywords}

    def products(self, titles: Sequence[str], images: Sequence[bytes | None]) -> Batch:
        """Returns the `PRODUCT_INPUTS` of `inputs/batch.py`.

        "" is no title; `images` are encoded image files, None for no image. InputError for an unreadable image.
        """
        check_lists(titles=titles, images=images)
        i = self.config.inputs
        tokens, mask = self.tokenizer.encode(titles, i.max_title_tokens)
        has_title = np.array([bool(title.strip()) for title in titles], bool)
        decoded = [
            load_image(data, f"image of product number {number}", i) if data else None
            for number, data in enumerate(images)
        ]
        return product_arrays(tokens, mask, has_title, decoded, i.image_height, i.image_width)

    def write(self, folder: Path) -> None:
        """Writes all files except the model card into an existing folder."""
        i = self.config.inputs
        files: dict[str, Any] = {
            CONFIG: {
                "model_type": MODEL_TYPE,
                "architectures": ["MakeModel"],
                "dtype": "float32",
                "vocabulary": self.tokenizer.vocab_size,
                "keywords": len(self.keywords),
                "rivals": list(self.keywords.exclusion_groups[: self.keyword_dims]),
                "evidence": dict(self.evidence),
                "origin": dict(self.origin),
                "settings": dataclasses.asdict(self.config),
            },
            "preprocessor_config.json": {
                "size": {"height": i.image_height, "width": i.image_width},
                "keep_aspect": True,
                "resample": "bicubic, antialiased",
                **_LARGE_IMAGES[i.image_decoding],
                "background": list(WHITE),
                "rescale_factor": 1 / 255,
                "image_mean": list(i.image_mean),
                "image_std": list(i.image_std),
            },
        }
        texts = {name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in files.items()}
        texts |= tokenizer_files(self.tokenizer, max(i.max_query_tokens, i.max_title_tokens))
        texts[KEYWORDS] = self.keywords.to_json()
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")


def is_bundle(folder: Path) -> bool:
    """Returns whether config.json marks the folder as an export; False for a damaged config.json."""
    try:
        return read_json(folder / CONFIG).values.get("model_type") == MODEL_TYPE
    except InputError:
        return False


def read_bundle(folder: Path) -> ModelBundle:
    """Returns what `ModelBundle.write` wrote. InputError that names a file which is missing or invalid."""
    header = read_json(folder / CONFIG)
    if (model_type := header.string("model_type", "")) != MODEL_TYPE:
        raise InputError(
            f"{header.where}: model_type is {model_type!r}, expected {MODEL_TYPE!r}, as convert.py export writes"
        )
    texts = {}
    for name in (TOKENIZER, KEYWORDS):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: no such file, expected one as convert.py export wrote it")
        try:
            texts[name] = (folder / name).read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise InputError(f"{folder / name}: not UTF-8: {error}") from None
    bundle = ModelBundle(
        _read_config(json.dumps(header.section("settings").values), f"{header.where}: settings"),
        Tokenizer(texts[TOKENIZER]),
        KeywordVocabulary.from_json(texts[KEYWORDS], str(folder / KEYWORDS)),
        {name: header.section("evidence").number(name, 0.0) for name in ("eps", "rival", "length")},
        header.section("origin").values,
    )
    sizes = {"vocabulary": (TOKENIZER, bundle.tokenizer.vocab_size), "keywords": (KEYWORDS, len(bundle.keywords))}
    for name, (file, size) in sizes.items():
        if (expected := header.integer(name, 0)) != size:
            raise InputError(f"{header.where}: {name} is {expected}, {file} has {size}; they belong together")
    return bundle


def _read_config(settings: str, where: str) -> Config:
    """The settings, checked for the model; the objectives are informative and not checked."""
    config = from_json(settings, where)
    try:
        check(replace(config, objectives=ObjectivesConfig()))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return config


def search_config(config: Config) -> Config:
    """Returns the settings of an export: search parts only, absolute paths cut to their last part."""
    m = config.model
    model = replace(
        m,
        query=replace(m.query, init_from=_name(m.query.init_from)),
        title=replace(m.title, init_from=_name(m.title.init_from)),
        image=replace(m.image, init_from=_name(m.image.init_from)),
        matching=replace(m.matching, layers=0),
        mlm=False,
        mpm="none",
        attention="xla",  # the only implementation that every format and device has
    )
    return replace(
        config,
        run=_name(config.run),
        data=DataConfig(catalog=_name(config.data.catalog), queries=config.data.queries),
        inputs=replace(config.inputs, tokenizer=_name(config.inputs.tokenizer)),
        model=model,
        train=replace(config.train, init_from=_name(config.train.init_from)),
    )


def omitted_parts(model: ModelConfig) -> list[str]:
    """Returns descriptions of the parts of a model that `search_config` drops."""
    parts = {"matching encoder": model.matching.layers, "heads of masked modeling": model.mlm or model.mpm != "none"}
    return [f"the {name}" for name, present in parts.items() if present]


def tokenizer_files(tokenizer: Tokenizer, max_length: int) -> dict[str, str]:
    """Returns the files from which transformers loads the tokenizer: name -> text. `max_length` counts tokens."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "split_special_tokens": True,  # special tokens typed by a user are plain text
        "model_max_length": max_length,
        **_special_tokens(tokenizer),
    }
    return {TOKENIZER: tokenizer.definition, "tokenizer_config.json": json.dumps(config, indent=2) + "\n"}


def unpack_keywords(packed: UInt32[np.ndarray, "B words"], count: int) -> Bool[np.ndarray, "B count"]:
    """Returns the first `count` keywords of bit-packed sets."""
    number = np.arange(count)
    bits = packed[:, number // 32] >> (number % 32).astype(np.uint32)
    return (bits & 1).astype(bool)


def _name(path: str) -> str:
    """The last part of an absolute path, so that exports reveal no folder names of a machine."""
    return Path(path).name if Path(path).is_absolute() else path


def _special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """The special tokens of the tokenizer by their names in transformers."""
    names = {
        "pad_token": ("[PAD]", "<pad>"),
        "unk_token": ("[UNK]", "<unk>"),
        "cls_token": ("[CLS]", "<s>"),
        "sep_token": ("[SEP]", "</s>"),
        "mask_token": ("[MASK]", "<mask>"),
    }
    added = json.loads(tokenizer.definition).get("added_tokens", [])
    special = {token["content"] for token in added if token.get("special")}
    return {key: name for key, candidates in names.items() for name in candidates if name in special}
