"""Texts to token ids: a WordPiece trained on a catalog, or any Hugging Face tokenizer from a local folder.

A tokenizer is determined by its definition, a JSON text in the format of Hugging Face `tokenizers`. The checkpoint
holds the definition, so that evaluation and serving tokenize exactly as training did.
"""

import codecs
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from jaxtyping import Bool, Int32
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors, trainers

from make_jax.errors import InputError, check_lists

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0 to 4 of a trained WordPiece
_MAX_WORD = 100  # characters; longer words are split, because a WordPiece makes one unknown token of them
_ACCENTS = "[\u0300-\u036f]"  # of European letters; Japanese voicing marks and Korean letters have other code points


class Tokenizer:
    """Tokenizes texts as `definition` specifies. Thread-safe."""

    definition: str  # JSON, without padding and truncation
    vocab_size: int  # every id is smaller
    pad_id: int  # fills rows up to their length; the mask marks padding, not this id
    mask_id: int | None  # the mask token of masked modeling; None when the vocabulary has none
    special_ids: frozenset[int]  # tokens that are not text
    unknown_id: int | None  # what characters or words outside the vocabulary become; None if there are none

    def __init__(self, definition: str) -> None:
        """Parses a definition. InputError when it cannot be parsed or adds no special token to a text."""
        tokenizer = _parse(definition)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.definition = tokenizer.to_str()
        # Ids need not be contiguous, and the embedding table has a row for each up to the largest.
        self.vocab_size = 1 + max(tokenizer.get_vocab(with_added_tokens=True).values())
        self.special_ids = frozenset(i for i, token in tokenizer.get_added_tokens_decoder().items() if token.special)
        pad = _first_id(tokenizer, "[PAD]", "<pad>")
        self.pad_id = 0 if pad is None else pad
        self.mask_id = _first_id(tokenizer, "[MASK]", "<mask>")
        model = json.loads(self.definition)["model"]
        self.unknown_id = model.get("unk_id")  # of a Unigram model; others name the token
        if model.get("unk_token") is not None:
            self.unknown_id = tokenizer.token_to_id(model["unk_token"])
        self._num_special = tokenizer.num_special_tokens_to_add(is_pair=False)
        # The library keeps the length as mutable state, so each length gets a tokenizer object.
        self._by_length: dict[int, tokenizers.Tokenizer] = {}
        if self._num_special == 0:
            raise InputError(
                "inputs.tokenizer: the tokenizer puts no special token around a text, so that an empty text would have "
                "no token at all; expected one with a post-processor, as BERT, RoBERTa and CLIP have"
            )

    def encode(
        self, texts: Sequence[str], length: int
    ) -> tuple[Int32[np.ndarray, "n {length}"], Bool[np.ndarray, "n {length}"]]:
        """Returns token ids and the mask of real tokens, which include special tokens, even for an empty text.

        Longer texts are truncated at the end; special tokens are kept. "[MASK]" inside a text is plain text.

        Raises:
            InputError: `length` leaves no room for a token of text.
        """
        check_lists(texts=texts)
        if not texts:
            return np.zeros((0, length), np.int32), np.zeros((0, length), bool)
        encodings = self._with_length(length).encode_batch_fast(list(texts))
        tokens = np.array([encoding.ids for encoding in encodings], np.int32)
        mask = np.array([encoding.attention_mask for encoding in encodings], bool)
        return tokens, mask

    def mostly_unknown(self, tokens: Int32[np.ndarray, "n length"], mask: Bool[np.ndarray, "n length"]) -> np.ndarray:
        """Returns, for each row [n] of `encode`, whether more than half of its tokens of text are unknown."""
        if self.unknown_id is None:
            return np.zeros(len(tokens), bool)
        [[*special]], _ = self.encode([""], self._num_special + 1)  # may contain it: CLIP has one token for both
        around = special[: self._num_special].count(self.unknown_id)
        unknown = ((tokens == self.unknown_id) & mask).sum(axis=1) - around
        return 2 * unknown > mask.sum(axis=1) - self._num_special

    def _with_length(self, length: int) -> tokenizers.Tokenizer:
        if length not in self._by_length:
            if length <= self._num_special:
                raise InputError(
                    f"{length} tokens leave no room for text next to the {self._num_special} special tokens; "
                    "raise inputs.max_query_tokens or inputs.max_title_tokens"
                )
            tokenizer = _parse(self.definition)
            tokenizer.enable_truncation(length)
            tokenizer.enable_padding(length=length, pad_id=self.pad_id)
            tokenizer.encode_special_tokens = True  # special tokens inside a text are tokenized like any other text
            self._by_length[length] = tokenizer
        return self._by_length[length]


def load_tokenizer(path: str | Path) -> Tokenizer:
    """Returns the tokenizer of a local Hugging Face folder: its `tokenizer.json`, else what `transformers` converts.

    Nothing is downloaded and no code from the folder runs.

    Raises:
        InputError: the folder does not exist or has no tokenizer that `tokenizers` can express.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"inputs.tokenizer: {folder} is no folder; expected a local Hugging Face tokenizer folder")
    file = folder / "tokenizer.json"
    try:
        return Tokenizer(file.read_text(encoding="utf-8-sig") if file.is_file() else _convert(folder))
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"{folder}: {error}") from None


def train_wordpiece(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Returns a BERT-style WordPiece with at most `vocab_size` tokens; the same texts give the same definition.

    Normalization is NFKC, lower case, without accents; every Chinese character is a word, and a word of more than 100
    characters several. A text that occurs twice counts twice. Single characters take at most half of the vocabulary,
    the most frequent first. Characters outside the vocabulary are words, so that the rest of their word keeps its
    tokens; with BERT's rule one such character makes the complete word unknown.

    Raises:
        InputError: no text, or a vocabulary that is too small.
    """
    check_lists(texts=texts)
    if vocab_size < 4 * len(SPECIAL_TOKENS):
        raise InputError(f"inputs.vocab_size: found {vocab_size}, expected at least {4 * len(SPECIAL_TOKENS)}")
    counts = Counter(texts)
    tokenizer = _untrained(models.WordPiece(unk_token="[UNK]"))
    alphabet, continuing = _characters(tokenizer, counts, (vocab_size - len(SPECIAL_TOKENS)) // 2)
    if not alphabet:
        raise InputError("the catalog's training split has no text: expected titles or clicked queries to train on")
    # The library numbers "##x" pieces in the order of a randomly seeded hash map and breaks ties by number. Passing
    # them as special tokens fixes the numbers; the returned tokenizer has only the real special tokens.
    pieces = [f"##{character}" for character in sorted(continuing)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[*SPECIAL_TOKENS, *pieces],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(counts.elements(), trainer)
    vocab = tokenizer.get_vocab(with_added_tokens=False)
    trained = _untrained(models.WordPiece(vocab, unk_token="[UNK]"))
    # Last: the words of the training texts, and so the vocabulary, do not depend on it.
    trained.pre_tokenizer = pre_tokenizers.Sequence([*trained.pre_tokenizer, *_unknown_splits(vocab)])
    trained.add_special_tokens(list(SPECIAL_TOKENS))
    trained.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, SPECIAL_TOKENS.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    return Tokenizer(trained.to_str())


def add_characters(tokenizer: Tokenizer, texts: Iterable[str], max_new: int) -> Tokenizer:
    """Returns `tokenizer` extended by up to `max_new` single characters whose absence makes words of `texts` unknown.

    Existing ids stay. New pieces are the most frequent characters, "##x" where x continues a word; a character that
    occurs once is not added. This lets an English WordPiece read Chinese.

    Raises:
        InputError: the tokenizer is no WordPiece.
    """
    check_lists(texts=texts)
    definition = json.loads(tokenizer.definition)
    if definition["model"]["type"] != "WordPiece" or not (definition["normalizer"] and definition["pre_tokenizer"]):
        raise InputError(
            f"inputs.new_characters: the tokenizer is a {definition['model']['type']}, expected a WordPiece as BERT "
            "has it; set it to 0 for a tokenizer that knows all characters"
        )
    parsed, vocab = _parse(tokenizer.definition), definition["model"]["vocab"]
    unknown, continuing = definition["model"]["unk_token"], definition["model"]["continuing_subword_prefix"]
    counts: Counter[str] = Counter()
    for word, times in _words(parsed, texts).items():
        if unknown in (piece.value for piece in parsed.model.tokenize(word)):
            pieces = [word[0], *(continuing + character for character in word[1:])]
            counts.update({piece: times for piece in pieces if piece not in vocab})
    new = sorted((piece for piece, times in counts.items() if times > 1), key=lambda piece: (-counts[piece], piece))
    vocab |= {piece: tokenizer.vocab_size + i for i, piece in enumerate(new[:max_new])}
    return Tokenizer(json.dumps(definition))


def split_long_words(tokenizer: Tokenizer) -> Tokenizer:
    """Returns `tokenizer` that splits words longer than its WordPiece reads, which would each be one unknown token.

    BERT's reads 100 characters: a Thai title without spaces or a long part number is unknown to it. All ids stay, and
    so do the tokens of texts without such a word. Any other model, which has no such limit, is returned as it is.
    """
    model = json.loads(tokenizer.definition)["model"]
    length = model.get("max_input_chars_per_word")  # only a WordPiece has it
    if length is None or json.dumps(_word_pattern(length)) in tokenizer.definition:
        return tokenizer
    parsed, split = _parse(tokenizer.definition), _word_split(length)
    before = parsed.pre_tokenizer
    parsed.pre_tokenizer = split if before is None else pre_tokenizers.Sequence([before, split])
    return Tokenizer(parsed.to_str())


def lower_case(tokenizer: Tokenizer) -> Tokenizer:
    """Returns `tokenizer` that puts texts into lower case first; itself if it does already."""
    parsed = _parse(tokenizer.definition)
    before = json.dumps(json.loads(tokenizer.definition)["normalizer"])
    if '"type": "Lowercase"' in before or '"lowercase": true' in before:
        return tokenizer
    parsed.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), *([] if parsed.normalizer is None else [parsed.normalizer])]
    )
    return Tokenizer(parsed.to_str())


def _untrained(model: models.WordPiece) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.Replace(Regex(_ACCENTS), ""),
            normalizers.NFKC(),
            normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=True),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), _word_split(_MAX_WORD)])
    return tokenizer


def _word_split(length: int) -> pre_tokenizers.Split:
    """Splits words into parts of `length` characters; shorter words stay.

    A larger `max_input_chars_per_word` would not do: the time of a WordPiece grows with the cube of a word's length.
    """
    return pre_tokenizers.Split(Regex(_word_pattern(length)), "isolated")


def _word_pattern(length: int) -> str:
    return rf"[\s\S]{{{length}}}"  # a dot matches no line break, and its option is spelled differently in JavaScript


def _unknown_splits(vocab: Iterable[str]) -> list[pre_tokenizers.Split]:
    """Splits words at characters that no piece of `vocab` has in their place; words without such stay as they are.

    A run of characters without any piece becomes a word, hence one unknown token. A character that begins words but
    continues none begins a word.
    """
    beginning = {token for token in vocab if len(token) == 1}
    continuing = {token[2:] for token in vocab if len(token) == 3 and token.startswith("##")}
    splits = [pre_tokenizers.Split(Regex(f"[^{_in_brackets(beginning)}]+"), "isolated")]
    if only_beginning := beginning - continuing:
        inside = rf"(?<=[\s\S])[{_in_brackets(only_beginning)}]"
        splits.append(pre_tokenizers.Split(Regex(inside), "merged_with_next"))
    return splits


def _in_brackets(characters: set[str]) -> str:
    """Returns the inside of a character class; punctuation, which may have a meaning there, as code points."""
    return "".join(c if c.isalnum() or not c.isascii() else f"\\u{ord(c):04x}" for c in sorted(characters))


def _characters(tokenizer: tokenizers.Tokenizer, texts: Iterable[str], most: int) -> tuple[list[str], set[str]]:
    """The most frequent characters, and those of them that also continue a word; together at most `most` tokens."""
    first: Counter[str] = Counter()
    later: Counter[str] = Counter()
    for word, times in _words(tokenizer, texts).items():
        first[word[0]] += times
        for character in word[1:]:
            later[character] += times
    total = first + later
    alphabet: list[str] = []
    room = most
    for character in sorted(total, key=lambda character: (-total[character], character)):
        room -= 2 if character in later else 1
        if room < 0:
            break
        alphabet.append(character)
    return sorted(alphabet), {character for character in alphabet if character in later}


def _words(tokenizer: tokenizers.Tokenizer, texts: Iterable[str]) -> Counter[str]:
    """Counts of words after normalization and pre-tokenization."""
    words: Counter[str] = Counter()
    all_texts = list(texts)
    for start in range(0, len(all_texts), 256):
        # One call for many texts, because the call dominates the time. A line break ends a word like any space.
        joined = tokenizer.normalizer.normalize_str("\n".join(all_texts[start : start + 256]))
        words.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(joined))
    return words


def _parse(definition: str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(definition)
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"not a tokenizer definition: {error}; expected the JSON of a tokenizer.json") from None


def _first_id(tokenizer: tokenizers.Tokenizer, *names: str) -> int | None:
    return next((i for i in map(tokenizer.token_to_id, names) if i is not None), None)


def _convert(folder: Path) -> str:
    """The definition of a folder without tokenizer.json, for example with vocab.txt, or vocab.json and merges.txt."""
    for file in (folder / "vocab.txt", folder / "vocab.json", folder / "merges.txt"):
        if file.is_file() and file.read_bytes().startswith(codecs.BOM_UTF8):  # it would be part of the first token
            raise InputError(f"{file.name}: begins with a byte-order mark, expected UTF-8 without one")
    from transformers import AutoTokenizer, BertTokenizerFast  # type: ignore[attr-defined]  # slow to import

    known = any((folder / name).is_file() for name in ("tokenizer_config.json", "config.json"))
    try:
        if not known and (folder / "vocab.txt").is_file():  # BERT's layout from before tokenizer_config.json
            loaded = BertTokenizerFast.from_pretrained(os.fspath(folder), local_files_only=True)
        else:
            loaded = AutoTokenizer.from_pretrained(
                os.fspath(folder), local_files_only=True, trust_remote_code=False, use_fast=True
            )
    except Exception as error:  # transformers raises many kinds
        reason = str(error).strip().splitlines()[:1]
        raise InputError(f"no tokenizer found: {reason[0] if reason else type(error).__name__}") from None
    if not loaded.is_fast:
        raise InputError(f"{type(loaded).__name__} has no fast version; expected a folder with a tokenizer.json")
    if len(loaded) <= len(loaded.all_special_ids):  # transformers returns this for a folder without vocabulary files
        raise InputError("no tokenizer found: the folder has no vocabulary, expected tokenizer.json or vocab.txt")
    return str(loaded.backend_tokenizer.to_str())
