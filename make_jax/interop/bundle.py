"""What lies beside the weights of every export: how texts and pictures become what the model reads. Imports no jax.

config.json                              settings, sizes, and where the weights come from
tokenizer.json, tokenizer_config.json    the tokenizer, as transformers reads it too
keywords.json                            the keyword vocabulary
preprocessor_config.json                 how a picture becomes pixels, for people who write that anew
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
from make_jax.errors import InputError
from make_jax.inputs.batch import Batch, product_arrays
from make_jax.inputs.images import WHITE, load_image
from make_jax.inputs.tokenizer import Tokenizer
from make_jax.interop.model_folder import read_json

MODEL_TYPE = "make_jax"  # in config.json
CONFIG, TOKENIZER, KEYWORDS, MODEL_CARD = "config.json", "tokenizer.json", "keywords.json", "README.md"


@dataclass(frozen=True)
class ModelBundle:
    """All that a model has beside its parameters."""

    config: Config  # of its run, without what only training uses and without paths of a machine
    tokenizer: Tokenizer
    keywords: KeywordVocabulary
    evidence: Mapping[str, float]  # constants of keyword evidence: eps, rival, length
    origin: Mapping[str, Any]  # of which checkpoint the parameters are

    @property
    def dimensions(self) -> int:
        """n, dimensions of the vectors that stand for keywords."""
        return min(self.config.model.keyword_dims, len(self.keywords))

    def queries(self, texts: Sequence[str]) -> Batch:
        """query_tokens [B, Lq] int32, query_mask [B, Lq] bool, query_keywords [B, n] bool."""
        tokens, mask = self.tokenizer.encode(texts, self.config.inputs.max_query_tokens)
        packed = self.keywords.pack([self.keywords.tag(text) for text in texts])
        keywords = unpack_keywords(packed, self.dimensions)
        return {"query_tokens": tokens, "query_mask": mask, "query_keywords": keywords}

    def products(self, titles: Sequence[str], images: Sequence[bytes | None]) -> Batch:
        """title_tokens [B, Lt] int32, title_mask [B, Lt], image [B, H, W, 3] uint8, has_title [B], has_image [B].

        "" is no title; `images` are files' bytes, None for none. InputError for an unreadable picture.
        """
        i = self.config.inputs
        tokens, mask = self.tokenizer.encode(titles, i.max_title_tokens)
        has_title = np.array([bool(title.strip()) for title in titles], bool)
        pictures = [
            load_image(data, f"image of product number {number}", i.image_height, i.image_width) if data else None
            for number, data in enumerate(images)
        ]
        return product_arrays(tokens, mask, has_title, pictures, i.image_height, i.image_width)

    def write(self, folder: Path) -> None:
        """Writes all files but the card into an existing folder."""
        i = self.config.inputs
        files: dict[str, Any] = {
            CONFIG: {
                "model_type": MODEL_TYPE,
                "architectures": ["MakeModel"],
                "dtype": "float32",
                "vocabulary": self.tokenizer.vocab_size,
                "keywords": len(self.keywords),
                "rivals": list(self.keywords.exclusion_groups[: self.dimensions]),
                "evidence": dict(self.evidence),
                "origin": dict(self.origin),
                "settings": dataclasses.asdict(self.config),
            },
            "preprocessor_config.json": {
                "size": {"height": i.image_height, "width": i.image_width},
                "keep_aspect": True,
                "resample": "bicubic, antialiased",
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
    """Whether the folder says that `write` wrote it; reads nothing else. False for a damaged config.json too."""
    try:
        return read_json(folder / CONFIG).values.get("model_type") == MODEL_TYPE
    except InputError:
        return False


def read_bundle(folder: Path) -> ModelBundle:
    """What `write` wrote. InputError that names the file where it is absent or something else."""
    told = read_json(folder / CONFIG)
    if (found := told.text("model_type", "")) != MODEL_TYPE:
        raise InputError(f"{told.where}: model_type is {found!r}, expected {MODEL_TYPE!r}, as convert.py export writes")
    texts = {}
    for name in (TOKENIZER, KEYWORDS):
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: no such file, expected one as convert.py export wrote it")
        try:
            texts[name] = (folder / name).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{folder / name}: not UTF-8: {error}") from None
    config = _checked(json.dumps(told.part("settings").values), f"{told.where}: settings")
    served = ModelBundle(
        config,
        Tokenizer(texts[TOKENIZER]),
        KeywordVocabulary.from_json(texts[KEYWORDS], str(folder / KEYWORDS)),
        {name: told.part("evidence").number(name, 0.0) for name in ("eps", "rival", "length")},
        told.part("origin").values,
    )
    sizes = {"vocabulary": served.tokenizer.vocab_size, "keywords": len(served.keywords)}
    for name, size in sizes.items():
        if told.whole(name, 0) != size:
            file = TOKENIZER if name == "vocabulary" else KEYWORDS
            raise InputError(f"{told.where}: {name} is {told.whole(name, 0)}, {file} has {size}; they belong together")
    return served


def _checked(settings: str, where: str) -> Config:
    """The settings, once a model can be made of them; what was minimised is only told."""
    config = from_json(settings, where)
    try:
        check(replace(config, objectives=ObjectivesConfig()))
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    return config


def search_config(config: Config) -> Config:
    """The settings of an export: the model without what only training and re-ranking use, and no paths of a machine."""
    m = config.model
    model = replace(
        m,
        query=replace(m.query, init_from=_name(m.query.init_from)),
        title=replace(m.title, init_from=_name(m.title.init_from)),
        image=replace(m.image, init_from=_name(m.image.init_from)),
        matching=replace(m.matching, layers=0),
        mlm=False,
        mpm="none",
    )
    return replace(
        config,
        run=_name(config.run),
        data=DataConfig(catalog=_name(config.data.catalog)),
        inputs=replace(config.inputs, tokenizer=_name(config.inputs.tokenizer)),
        model=model,
        train=replace(config.train, init_from=_name(config.train.init_from)),
    )


def omitted_parts(model: ModelConfig) -> list[str]:
    """What `search_config` leaves out of a model, in words."""
    there = {"matching encoder": model.matching.layers, "heads of masked modelling": model.mlm or model.mpm != "none"}
    return [f"the {name}" for name, has in there.items() if has]


def tokenizer_files(tokenizer: Tokenizer, longest: int) -> dict[str, str]:
    """The files by which transformers has the tokenizer: name -> text. `longest` counts tokens."""
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "split_special_tokens": True,  # those that a user types are text to us
        "model_max_length": longest,
        **_special_tokens(tokenizer),
    }
    return {TOKENIZER: tokenizer.definition, "tokenizer_config.json": json.dumps(config, indent=2) + "\n"}


def unpack_keywords(packed: UInt32[np.ndarray, "B words"], count: int) -> Bool[np.ndarray, "B count"]:
    """The first `count` keywords of packed sets."""
    number = np.arange(count)
    bits = packed[:, number // 32] >> (number % 32).astype(np.uint32)
    return (bits & 1).astype(bool)


def _name(path: str) -> str:
    """An absolute path's last part: where somebody's files lie is nobody's business."""
    return Path(path).name if Path(path).is_absolute() else path


def _special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """How transformers calls the special tokens that there are."""
    names = {
        "pad_token": ("[PAD]", "<pad>"),
        "unk_token": ("[UNK]", "<unk>"),
        "cls_token": ("[CLS]", "<s>"),
        "sep_token": ("[SEP]", "</s>"),
        "mask_token": ("[MASK]", "<mask>"),
    }
    known = json.loads(tokenizer.definition).get("added_tokens", [])
    special = {token["content"] for token in known if token.get("special")}
    return {key: name for key, either in names.items() for name in either if name in special}
