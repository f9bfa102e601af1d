"""The tokenizer and the keyword vocabulary of a new run."""

from collections.abc import Mapping

from make_jax.catalog.keywords import KeywordVocabulary
from make_jax.catalog.mining import mine_keywords
from make_jax.catalog.reader import Catalog
from make_jax.config import Config
from make_jax.errors import InputError
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
    return train_wordpiece(catalog.training_texts(), config.inputs.vocab_size)


def make_keywords(config: Config, catalog: Catalog) -> KeywordVocabulary:
    """Returns the keywords mined from training products and clicks; none if `inputs.max_keywords` is 0."""
    if not config.inputs.max_keywords:
        return KeywordVocabulary(())
    return mine_keywords(catalog, attributes=config.inputs.keyword_attributes, max_keywords=config.inputs.max_keywords)
