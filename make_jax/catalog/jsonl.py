"""Typed models of a catalog's JSON lines, and pydantic's errors as problems with file, line, key and expected value."""

import codecs
import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Protocol, TypeVar, runtime_checkable

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict, ValidationError
from pydantic_core import ErrorDetails

from make_jax.catalog.attributes import AttributeValue, attribute_value
from make_jax.catalog.reporting import Problems, preview
from make_jax.catalog.schema import POOLS, SPLITS, CatalogInfo, Pool, Split
from make_jax.catalog.source import Source
from make_jax.catalog.text import strip_text
from make_jax.unique_json import DuplicateKeyError, object_of

PRODUCTS, QUERIES, CLICKS, INFO = "products.jsonl", "queries.jsonl", "clicks.jsonl", "catalog.json"
NEVER_ATTRIBUTES = ("id", "title", "image", "split", "group", "tier", "sensitive", "dropped")
_MAX_INFO_BYTES = 1 << 20
_PLACEHOLDERS = {"id": "-", "qid": "-", "split": "train", "text": "-", "query": "-", "product": "-", "rel": {}}

_DECODER = json.JSONDecoder()
_UNIQUE_DECODER = json.JSONDecoder(object_pairs_hook=object_of)


def _encodable(text: str) -> str:
    """The text. Raises UnicodeEncodeError, a ValueError, for half of a surrogate pair, which JSON can express."""
    if not text.isascii():
        text.encode("utf-8")
    return text


def _null(default: Any) -> BeforeValidator:
    """Reads null as `default`."""
    return BeforeValidator(lambda value: default if value is None else value)


def _choices(values: tuple[str, ...]) -> str:
    return "one of " + ", ".join(f'"{value}"' for value in values)


# The description of a field is what an error message states as expected.
_Unicode = Annotated[str, AfterValidator(_encodable)]
_Stripped = Annotated[_Unicode, AfterValidator(strip_text)]
Id = Annotated[  # TREC files separate by white space
    _Unicode, Field(pattern=r"^[^\s\x1c-\x1f]+$", description="a string, not empty, without white space")
]
RequiredText = Annotated[_Stripped, Field(min_length=1, description="a string that is not empty")]
Text = Annotated[_Stripped, _null(""), Field(description="a string")]
Texts = Annotated[tuple[_Unicode, ...], Strict(False), _null(()), Field(description="a list of strings")]
Flag = Annotated[bool, _null(False), Field(description="true or false")]
SPLIT_CHOICES = _choices(SPLITS)
SplitName = Annotated[Split, Field(description=SPLIT_CHOICES)]
OptionalSplit = Annotated[Split | None, Field(description=SPLIT_CHOICES)]
MAX_GRADE = 1_000_000  # trec_eval takes time and memory in proportion to the largest grade
Grade = Annotated[int, Field(ge=0, le=MAX_GRADE)]
_GradeKey = Annotated[str, Field(pattern=r"^[0-9]{1,9}$")]
_Gain = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Line(BaseModel):
    """One JSON object. Keys that the model does not declare are ignored."""

    model_config = ConfigDict(strict=True)


class ProductLine(_Line):
    """A line of products.jsonl; `model_extra` has the undeclared keys, some of which are attributes."""

    model_config = ConfigDict(extra="allow")

    id: Id
    split: OptionalSplit = None
    title: Text = ""
    image: Text = ""
    category: Texts = ()
    group: Text = ""
    dropped: Texts = ()
    sensitive: Flag = False


class QueryLine(_Line):
    """A line of queries.jsonl."""

    qid: Id
    text: RequiredText
    split: SplitName
    rel: Annotated[
        dict[str, Grade], Field(description=f"an object {{product id: grade}}, grades integers 0 to {MAX_GRADE}")
    ]
    kind: Text = ""
    lang: Text = ""
    heldout_combo: Flag = False


class ClickLine(_Line):
    """A line of clicks.jsonl."""

    query: RequiredText
    product: Id
    lang: Text = ""


class InfoFile(_Line):
    """The content of catalog.json."""

    model_config = ConfigDict(extra="forbid")

    name: Text = ""
    title: Text = ""
    licence: Text = ""
    attributes: Texts = ()
    gains: Annotated[
        dict[_GradeKey, _Gain],
        _null({}),
        Field(description="an object {grade: gain}, grades integers >= 0, gains numbers >= 0"),
    ] = {}
    relevant: Annotated[int, Field(ge=1, le=MAX_GRADE, description=f"an integer >= 1, at most {MAX_GRADE}")] = 3
    hide_title: Flag = False
    pool: Annotated[Pool, Field(description=_choices(POOLS))] = "split"


Model = TypeVar("Model", bound=_Line)


@runtime_checkable
class Hash(Protocol):
    """An object of hashlib, whose type has no public name."""

    def update(self, data: bytes, /) -> None:
        """Adds bytes."""
        ...

    def copy(self) -> "Hash":
        """An independent copy of the state."""
        ...

    def hexdigest(self) -> str:
        """The digest in hex."""
        ...


@dataclass(slots=True)
class Parsed(Generic[Model]):
    """A line and the keys whose values are wrong. Wrong values are replaced by defaults or placeholders, so that
    checks of the other keys still run."""

    line: Model
    wrong: frozenset[str]


def parse_lines(
    model: type[Model], data: bytes, name: str, first: int, problems: Problems
) -> Iterator[tuple[int, Parsed[Model] | None]]:
    """The number and the parsed object of each line in `data`, None for invalid JSON or a duplicate key.

    Blank lines are skipped. `first` is the number of the first line in the file `name`.
    """
    for number, line in enumerate(data.split(b"\n"), start=first):
        if line.removeprefix(codecs.BOM_UTF8).strip():
            yield number, _parse(model, line, f"{name}:{number}", problems)


def read_info(source: Source, problems: Problems, sha: Hash | None = None) -> CatalogInfo:
    """The content of catalog.json; defaults if there is none. The default name is the file name of the catalog.

    `sha` is updated with the name, size and bytes of the file.
    """
    default_name = source.path.resolve().name.removesuffix(".zip")
    if INFO not in source.sizes:
        return CatalogInfo(name=default_name)
    content = source.read(INFO, _MAX_INFO_BYTES)
    if sha is not None:
        sha.update(f"{INFO} {source.sizes[INFO]}\n".encode() + content)
    parsed = _parse(InfoFile, content, INFO, problems)
    if parsed is None:
        return CatalogInfo(name=default_name)
    line = parsed.line
    for key in line.attributes:
        if key in NEVER_ATTRIBUTES:
            problems.add(INFO, f'attributes: "{key}" cannot be an attribute, expected keys that describe the product')
    return CatalogInfo(
        name=line.name or default_name,
        title=line.title,
        licence=line.licence,
        attributes=line.attributes,
        gains={int(grade): gain for grade, gain in line.gains.items()},
        relevant=line.relevant,
        hide_title=line.hide_title,
        pool=line.pool,
    )


def attributes(line: ProductLine, info: CatalogInfo, place: str, problems: Problems) -> dict[str, AttributeValue]:
    """The attribute values of a product that are not empty; "category" is its most specific level."""
    values: dict[str, AttributeValue] = {}
    for key in info.attributes:
        value = (line.model_extra or {}).get(key)
        if key == "category":
            value = line.category[-1] if line.category else ""
        try:
            kept = attribute_value(value)
        except ValueError as error:
            problems.add(place, f"{key}: {error}")
        else:
            values |= {} if kept is None else {key: kept}
    return values


def _parse(model: type[Model], data: bytes, place: str, problems: Problems) -> Parsed[Model] | None:
    """The parsed line. Wrong values are added to `problems` and replaced. Invalid JSON and duplicate keys give None."""
    if fault := _duplicate_key(data):
        problems.add(place, fault)
        return None
    try:
        return Parsed(model.model_validate_json(data), frozenset())
    except ValidationError:
        pass
    # json accepts what pydantic's parser rejects (surrogates, a byte order mark, deep nesting), and names the column.
    values, fault = _json_object(data)
    if fault:
        problems.add(place, fault)
        return None
    values = {key: _accepted(key, value) if key in model.model_fields else value for key, value in values.items()}
    try:
        return Parsed(model.model_validate(values), frozenset())
    except ValidationError as error:
        messages = _messages(model, error, values)
    for key, message in messages.items():
        problems.add(place, f"{key}: {message}")
    kept = {key: value for key, value in values.items() if key not in messages}
    missing = {key for key, field in model.model_fields.items() if field.is_required() and key not in kept}
    line = model.model_validate({**{key: _PLACEHOLDERS[key] for key in missing}, **kept})
    return Parsed(line, frozenset(messages))


def _accepted(key: str, value: Any) -> Any:
    """The value in the documented form if it is in a usual other one: a number as an id, a grade 1.0, a category that
    is one string, the split "validation"."""
    if key in ("id", "qid", "product"):
        number = _integer(value)
        return str(number) if isinstance(number, int) and not isinstance(number, bool) else value
    if key == "rel" and isinstance(value, dict):
        return {product: _integer(grade) for product, grade in value.items()}
    if key == "category" and isinstance(value, str):
        return [value] if strip_text(value) else []
    if key == "split" and value == "validation":
        return "val"
    return _integer(value) if key == "relevant" else value


def _integer(value: Any) -> Any:
    """A float without a fraction as an integer; any other value as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _messages(model: type[_Line], error: ValidationError, values: dict[str, Any]) -> dict[str, str]:
    """One message for each wrong key."""
    messages: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        key = str(detail["loc"][0])
        if detail["type"] == "extra_forbidden":
            nearest = difflib.get_close_matches(key, model.model_fields, 1)
            expected = f'"{nearest[0]}"' if nearest else "one of " + ", ".join(model.model_fields)
            messages[key] = f"unknown key, expected {expected}"
        elif key not in messages:
            messages[key] = _message(detail, values.get(key), model.model_fields[key].description or "")
            if key == "split" and values.get(key) == "all":
                messages[key] += f'; "pool": "all" in {INFO} makes queries search all products'
    return messages


def _message(detail: ErrorDetails, value: Any, expected: str) -> str:
    """What was found and what was expected; of an object, the first wrong entry only."""
    if detail["type"] == "missing":
        return f"missing, expected {expected}"
    if detail["type"] == "value_error":
        return "half of a surrogate pair, expected valid Unicode"
    if isinstance(value, dict) and len(detail["loc"]) > 1:
        entry = detail["loc"][1]
        value = {entry: value.get(str(entry))}
    return f"found {preview(value)}, expected {expected}"


def _duplicate_key(data: bytes) -> str:
    """What is wrong with a line that has a key twice in one object, of which parsers keep the last; "" otherwise."""
    try:
        _UNIQUE_DECODER.decode(data.decode("utf-8-sig"))
    except DuplicateKeyError as error:
        return str(error)
    except (ValueError, RecursionError):
        pass  # reported by the parser if it matters
    return ""


def _json_object(data: bytes) -> tuple[dict[str, Any], str]:
    """The JSON object in `data` and what is wrong with it ("" if nothing is)."""
    try:
        values = _DECODER.decode(data.decode("utf-8").removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        return {}, f"not UTF-8 at byte {error.start + 1}, expected UTF-8"
    except json.JSONDecodeError as error:
        return {}, f"not JSON ({error.msg} at column {error.colno}), expected one object"
    except RecursionError:
        return {}, "nested too deep, expected one flat object"
    except ValueError as error:  # an integer of thousands of digits
        return {}, f"not readable ({error}), expected one object"
    if not isinstance(values, dict):
        return {}, f"found {preview(values)}, expected one object"
    return values, ""
