"""The tokenizer and the keyword vocabulary of a new run."""

from collections.abc import Mapping

import tokenizers

from make_jax.catalog import keywords, mining, reader, terms
from make_jax.catalog.cache import cache_root, remembered
from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.reader import Catalog
from make_jax.config import Config
from make_jax.errors import InputError
from make_jax.inputs import tokenizer
from make_jax.inputs.tokenizer import Tokenizer, add_characters, load_tokenizer, split_long_words, train_wordpiece
from make_jax.interop.encoder_files import PretrainedEncoder


def make_tokenizer(
    config: Config, catalog: Catalog, encoders: Mapping[str, PretrainedEncoder] | None = None
) -> Tokenizer:
    """Returns the tokenizer of `inputs.tokenizer`; else that of a pretrained text encoder, extended by
    `inputs.new_characters` pieces; else a WordPiece trained on titles and clicked queries of the train split. Whichever
    it is, it splits words that are too long for a WordPiece (`split_long_words`).

    Raises InputError if a pretrained text encoder comes without a tokenizer and none is set.
    """
    if config.inputs.tokenizer:
        return split_long_words(load_tokenizer(config.inputs.tokenizer))
    for setting, encoder in (encoders or {}).items():
        if encoder.tokenizer is not None:
            pretrained = split_long_words(Tokenizer(encoder.tokenizer))
            new_characters = config.inputs.new_characters
            return (
                add_characters(pretrained, catalog.training_texts(), new_characters) if new_characters else pretrained
            )
        if encoder.kind == "text":
            raise InputError(
                f"{setting}.init_from: {encoder.folder} contains no tokenizer; set inputs.tokenizer to the folder of "
                "the tokenizer that its weights were trained with"
            )
    size = config.inputs.vocab_size
    definition = remembered(
        cache_root(config.data.cache),
        ("tokenizer", tokenizers.__version__, catalog.digest, catalog.derivation, size),
        (reader, tokenizer),
        lambda: train_wordpiece(catalog.training_texts(), size).definition,
    )
    return Tokenizer(definition)


def make_keywords(config: Config, catalog: Catalog) -> KeywordVocabulary:
    """Returns the keywords mined from training products and clicks; none if `inputs.max_keywords` is 0."""
    if not config.inputs.max_keywords:
        return KeywordVocabulary(())
    attributes, largest = config.inputs.keyword_attributes, config.inputs.max_keywords
    text = remembered(
        cache_root(config.data.cache),
        ("keywords", catalog.digest, catalog.derivation, attributes, largest),
        (reader, mining, terms, keywords),
        lambda: mining.mine_keywords(catalog, attributes=attributes, max_keywords=largest).to_json(),
    )
    return KeywordVocabulary.from_json(text, "mined keywords")
