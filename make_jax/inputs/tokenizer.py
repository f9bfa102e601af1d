"""Texts as token ids: a WordPiece trained on a catalog, or any Hugging Face tokenizer from a local folder.

A tokenizer is its definition, one JSON text in the format of Hugging Face `tokenizers`. The definition travels in the
checkpoint, so that evaluation and serving cut texts exactly as training did.
"""

import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import tokenizers
from jaxtyping import Bool, Int32
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors, trainers

from make_jax.errors import InputError

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0 to 4 of a trained WordPiece
_ACCENTS = "[\u0300-\u036f]"  # of European letters; Japanese voicing marks and Korean letters lie elsewhere


class Tokenizer:
    """Cuts texts into token ids the way `definition` says. Safe to use from several threads."""

    definition: str  # JSON; padding and truncation are not part of it
    vocabulary_size: int  # every id is less than this
    pad_id: int  # fills rows up to their length; the mask, not this id, tells padding
    mask_id: int | None  # stands for a hidden token in masked modelling; None when the vocabulary has none
    special_ids: frozenset[int]  # tokens that are not text

    def __init__(self, definition: str) -> None:
        plain = _parse(definition)
        plain.no_padding()
        plain.no_truncation()
        self.definition = plain.to_str()
        # Ids need not be dense, and a checkpoint's embedding table has a row for each up to the largest.
        self.vocabulary_size = 1 + max(plain.get_vocab(with_added_tokens=True).values())
        self.special_ids = frozenset(i for i, token in plain.get_added_tokens_decoder().items() if token.special)
        pad = _first_id(plain, "[PAD]", "<pad>")
        self.pad_id = 0 if pad is None else pad
        self.mask_id = _first_id(plain, "[MASK]", "<mask>")
        self._around = plain.num_special_tokens_to_add(is_pair=False)
        # The length is a setting inside the library's object, so each length gets an object of its own.
        self._by_length: dict[int, tokenizers.Tokenizer] = {}
        if self._around == 0:
            raise InputError(
                "inputs.tokenizer: the tokenizer puts no special token around a text, so that an empty text would have "
                "no token at all; expected one with a post-processor, as BERT, RoBERTa and CLIP have"
            )

    def encode(
        self, texts: Sequence[str], length: int
    ) -> tuple[Int32[np.ndarray, "n {length}"], Bool[np.ndarray, "n {length}"]]:
        """Token ids and the mask of real tokens; special tokens are real and present even when the text is empty.

        Longer texts lose their end, never their special tokens. The text "[MASK]" typed by a user is plain text.

        Raises:
            InputError: `length` leaves no room for a token of text.
        """
        if not texts:
            return np.zeros((0, length), np.int32), np.zeros((0, length), bool)
        encodings = self._with_length(length).encode_batch_fast(list(texts))
        tokens = np.array([encoding.ids for encoding in encodings], np.int32)
        mask = np.array([encoding.attention_mask for encoding in encodings], bool)
        return tokens, mask

    def _with_length(self, length: int) -> tokenizers.Tokenizer:
        if length not in self._by_length:
            if length <= self._around:
                raise InputError(
                    f"{length} tokens leave no room for text beside the {self._around} special tokens that are added; "
                    "raise inputs.query_tokens or inputs.title_tokens"
                )
            cutter = _parse(self.definition)
            cutter.enable_truncation(length)
            cutter.enable_padding(length=length, pad_id=self.pad_id)
            cutter.encode_special_tokens = True  # special tokens inside a text are cut like any other text
            self._by_length[length] = cutter
        return self._by_length[length]


def from_definition(text: str) -> Tokenizer:
    """The tokenizer that `Tokenizer.definition` describes.

    Raises:
        InputError: `text` is no definition that the `tokenizers` library can read.
    """
    return Tokenizer(text)


def from_folder(path: str | Path) -> Tokenizer:
    """The tokenizer of a local Hugging Face folder: `tokenizer.json` as it is, else converted by `transformers`.

    Nothing is downloaded and no code from the folder runs.

    Raises:
        InputError: there is no such folder, or no tokenizer in it that `tokenizers` can express.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"inputs.tokenizer: {folder} is no folder; expected a local Hugging Face tokenizer folder")
    ready = folder / "tokenizer.json"
    try:
        return Tokenizer(ready.read_text(encoding="utf-8") if ready.is_file() else _converted(folder))
    except (InputError, UnicodeDecodeError) as error:
        raise InputError(f"{folder}: {error}") from None


def train_wordpiece(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """A BERT-style WordPiece of at most `vocabulary` tokens; the same texts give the same definition.

    Texts are brought to NFKC without accents, in lower case; every Chinese character stands alone. A text that occurs
    twice counts twice. Characters take at most half of the vocabulary, the most frequent ones first.

    Raises:
        InputError: there is no text, or the vocabulary has no room.
    """
    if vocabulary < 4 * len(SPECIAL):
        raise InputError(f"inputs.vocabulary: found {vocabulary}, expected at least {4 * len(SPECIAL)}")
    counts = Counter(texts)
    cutter = _untrained(models.WordPiece(unk_token="[UNK]"))
    alphabet, continuing = _characters(cutter, counts, (vocabulary - len(SPECIAL)) // 2)
    if not alphabet:
        raise InputError("the catalog's training split has no text: expected titles or clicked queries to train on")
    # The library numbers "##x" pieces in the order of a randomly seeded hash map and breaks ties by number. Naming
    # them ahead, as if they were special, fixes the numbers; the final tokenizer knows the real special tokens only.
    pieces = [f"##{character}" for character in sorted(continuing)]
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[*SPECIAL, *pieces],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    cutter.train_from_iterator(counts.elements(), trainer)
    trained = _untrained(models.WordPiece(cutter.get_vocab(with_added_tokens=False), unk_token="[UNK]"))
    trained.add_special_tokens(list(SPECIAL))
    trained.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, SPECIAL.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    return Tokenizer(trained.to_str())


def with_characters(tokenizer: Tokenizer, texts: Iterable[str], most: int) -> Tokenizer:
    """`tokenizer` with up to `most` pieces more, of the characters that make words of `texts` unknown to it.

    All ids stay what they are. New pieces are single characters, the most frequent first, "##x" where x continues a
    word; a character that texts have once gets none. An English WordPiece comes to know Chinese by them.

    Raises:
        InputError: the tokenizer is no WordPiece.
    """
    described = json.loads(tokenizer.definition)
    if described["model"]["type"] != "WordPiece" or not (described["normalizer"] and described["pre_tokenizer"]):
        raise InputError(
            f"inputs.new_characters: the tokenizer is a {described['model']['type']}, expected a WordPiece as BERT has "
            "it; set it to 0 for a tokenizer that knows all characters"
        )
    cutter, vocabulary = _parse(tokenizer.definition), described["model"]["vocab"]
    unknown, continuing = described["model"]["unk_token"], described["model"]["continuing_subword_prefix"]
    counts: Counter[str] = Counter()
    for word, times in _words(cutter, texts).items():
        if unknown in (piece.value for piece in cutter.model.tokenize(word)):
            pieces = [word[0], *(continuing + character for character in word[1:])]
            counts.update({piece: times for piece in pieces if piece not in vocabulary})
    found = sorted((piece for piece, times in counts.items() if times > 1), key=lambda piece: (-counts[piece], piece))
    vocabulary |= {piece: tokenizer.vocabulary_size + i for i, piece in enumerate(found[:most])}
    return Tokenizer(json.dumps(described))


def normalised(text: str) -> str:
    """What two texts have in common when they are the same query: NFKC, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).lower().split())


def _untrained(model: models.WordPiece) -> tokenizers.Tokenizer:
    cutter = tokenizers.Tokenizer(model)
    cutter.normalizer = normalizers.Sequence(
        [
            normalizers.NFKD(),
            normalizers.Replace(Regex(_ACCENTS), ""),
            normalizers.NFKC(),
            normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=False, lowercase=True),
        ]
    )
    cutter.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return cutter


def _characters(cutter: tokenizers.Tokenizer, texts: Iterable[str], most: int) -> tuple[list[str], set[str]]:
    """The characters worth a token, and those of them that also continue a word; together at most `most` tokens."""
    first: Counter[str] = Counter()
    later: Counter[str] = Counter()
    for word, times in _words(cutter, texts).items():
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


def _words(cutter: tokenizers.Tokenizer, texts: Iterable[str]) -> Counter[str]:
    """How often each word occurs, as the tokenizer's model gets it."""
    words: Counter[str] = Counter()
    every = list(texts)
    for start in range(0, len(every), 256):
        # One call for many texts: the call itself is what costs. A line break ends a word like any other space.
        joined = cutter.normalizer.normalize_str("\n".join(every[start : start + 256]))
        words.update(word for word, _ in cutter.pre_tokenizer.pre_tokenize_str(joined))
    return words


def _parse(definition: str) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(definition)
    except Exception as error:  # the library raises plain Exception
        raise InputError(f"not a tokenizer definition: {error}; expected the JSON of a tokenizer.json") from None


def _first_id(cutter: tokenizers.Tokenizer, *names: str) -> int | None:
    return next((i for i in map(cutter.token_to_id, names) if i is not None), None)


def _converted(folder: Path) -> str:
    """The definition of a folder without tokenizer.json, such as one with vocab.txt or vocab.json and merges.txt."""
    from transformers import AutoTokenizer, BertTokenizerFast  # type: ignore[attr-defined]  # slow to import

    known = any((folder / name).is_file() for name in ("tokenizer_config.json", "config.json"))
    try:
        if (
            not known and (folder / "vocab.txt").is_file()
        ):  # BERT's layout, before folders said which tokenizer they hold
            loaded = BertTokenizerFast.from_pretrained(os.fspath(folder), local_files_only=True)
        else:
            loaded = AutoTokenizer.from_pretrained(
                os.fspath(folder), local_files_only=True, trust_remote_code=False, use_fast=True
            )
    except Exception as error:  # transformers raises many kinds
        reason = str(error).strip().splitlines()[:1]
        raise InputError(f"no tokenizer found: {reason[0] if reason else type(error).__name__}") from None
    if not loaded.is_fast:
        raise InputError(f"{type(loaded).__name__} has no fast form; expected a folder with a tokenizer.json")
    if len(loaded) <= len(loaded.all_special_ids):  # what transformers makes of a folder without vocabulary files
        raise InputError("no tokenizer found: the folder has no vocabulary, expected tokenizer.json or vocab.txt")
    return str(loaded.backend_tokenizer.to_str())
