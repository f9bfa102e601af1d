"""What sentence-transformers does around a transformer: its pooling and lower case, and modules that are not imported.

Its layout: modules.json lists modules, each with a class and a folder; the folder's config.json has its arguments.
Those of the transformer are in sentence_bert_config.json. Read by name, so that nothing is guessed: a module, argument
or pooling that make_jax lacks is an InputError that names the file, the key and the value.
"""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from make_jax.errors import InputError
from make_jax.interop.model_folder import JsonObject, read_json

MODULES, POOLING = "modules.json", "1_Pooling/config.json"
_PROMPTS = "config_sentence_transformers.json"
_PACKAGE = "sentence_transformers."  # other classes are custom code
# Written by sentence-transformers before version 5.4, one boolean per pooling; since then one `pooling_mode`.
_OLD_KEYS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
POOLINGS = ("mean", "cls")  # those of `model.pooling`
_NOT_IMPORTED = ("Dense", "LayerNorm")  # after the pooling: a run trains its own projection
_NO_PARAMETERS = ("Normalize", "Dropout")  # nothing to import
# Names of the transformer's arguments, by the age of the folder.
_TRANSFORMER_FILES = [
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]


@dataclass(frozen=True)
class SentenceModules:
    """What surrounds the transformer of a sentence-transformers folder."""

    pooling: str  # "mean" or "cls"
    lower_case: bool  # whether texts are put into lower case before the tokenizer reads them
    notes: tuple[str, ...]  # what the original does and an imported encoder does not, a line each


def read_sentence_modules(folder: Path) -> SentenceModules | None:
    """Returns what sentence-transformers saved around the transformer in `folder`; None for any other folder.

    `folder` is that of the model, or of its transformer alone, as in old versions (MODEL/0_Transformer).

    Raises:
        InputError: a file is damaged, or states a module, argument or pooling that make_jax does not have.
    """
    root, path = folder, ""
    if not (folder / MODULES).is_file():
        modules_file = folder.parent / MODULES
        if modules_file.is_file() and any(module["path"] == folder.name for module in _modules(modules_file)):
            root, path = folder.parent, folder.name
        elif (folder / POOLING).is_file():  # modules.json was not copied
            return SentenceModules(_pooling(read_json(folder / POOLING)), _lower_case(folder), _notes(folder, []))
        else:
            return None
    modules = _modules(root / MODULES)
    where, kinds = root / MODULES, [module["kind"] for module in modules]
    if kinds[:1] != ["Transformer"] or kinds.count("Transformer") != 1 or kinds.count("Pooling") != 1:
        raise InputError(f"{where}: the modules are {kinds}, expected one Transformer, first, and one Pooling")
    if modules[0]["path"] != path:
        raise InputError(f"{where}: its transformer is in {modules[0]['path']}; name {root / modules[0]['path']}")
    for module in modules[1:]:
        if module["kind"] not in ("Pooling", *_NOT_IMPORTED, *_NO_PARAMETERS):
            expected = ", ".join(("Pooling", *_NOT_IMPORTED, *_NO_PARAMETERS))
            raise InputError(f"{where}: type is {module['type']!r}, which make_jax does not have; it reads {expected}")
    [pooling] = (module["path"] for module in modules if module["kind"] == "Pooling")
    config = root / pooling / "config.json"
    if not config.is_file():
        raise InputError(f"{config}: no such file, though {where.name} names it; expected the model's pooling")
    return SentenceModules(_pooling(read_json(config)), _lower_case(folder), _notes(root, modules))


def _modules(path: Path) -> list[dict[str, str]]:
    """`type`, `kind` (its last part) and `path` of each module."""
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))
        modules = [{"type": str(entry["type"]), "path": str(entry["path"])} for entry in entries]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        raise InputError(f"{path}: damaged, expected a list of modules with a type and a path each") from None
    for module in modules:
        if not module["type"].startswith(_PACKAGE):
            raise InputError(f"{path}: type is {module['type']!r}, custom code, which make_jax never runs")
        parts = PurePosixPath(module["path"])
        if parts.is_absolute() or ".." in parts.parts:
            raise InputError(f"{path}: path is {module['path']!r}, expected a folder of the model")
        module["kind"] = module["type"].rpartition(".")[2]
    return modules


def _pooling(config: JsonObject) -> str:
    """The pooling that a module's config.json states, in the format of any version."""
    if "pooling_mode" in config.values:
        value = config.values["pooling_mode"]
        modes = value if isinstance(value, list) else [value]
        stated = f"pooling_mode is {value!r}"
    else:
        modes, keys = [], [key for key in config.values if key.startswith("pooling_mode_")]
        for key in keys:
            if not isinstance(config.values[key], bool):
                raise InputError(f"{config.where}: {key} is {config.values[key]!r}, expected true or false")
        keys = [key for key in keys if config.values[key]]
        modes = [_OLD_KEYS.get(key, key) for key in keys]
        stated = f"{' and '.join(keys) or 'no pooling_mode'} {'are' if len(keys) > 1 else 'is'} true"
    if len(modes) != 1 or modes[0] not in POOLINGS:
        raise InputError(f"{config.where}: {stated}; make_jax has the poolings {' and '.join(POOLINGS)}, one at a time")
    return str(modes[0])


def _lower_case(folder: Path) -> bool:
    """Whether texts are put into lower case; InputError for outputs other than the token states."""
    path = next((folder / name for name in _TRANSFORMER_FILES if (folder / name).is_file()), None)
    if path is None:
        return False
    config = read_json(path)
    config.expect("transformer_task", "feature-extraction")
    config.expect("module_output_name", "token_embeddings")
    config.section("modality_config").section("text").expect("method_output_name", "last_hidden_state")
    lower_case = config.values.get("do_lower_case", False)
    if not isinstance(lower_case, bool):
        raise InputError(f"{path}: do_lower_case is {lower_case!r}, expected true or false")
    return lower_case


def _notes(root: Path, modules: list[dict[str, str]]) -> tuple[str, ...]:
    """What is not imported."""
    notes = [
        f"{root / module['path']}: {module['kind']} is not imported; the run trains its own projections"
        for module in modules
        if module["kind"] in _NOT_IMPORTED
    ]
    if (root / _PROMPTS).is_file():
        config = read_json(root / _PROMPTS)
        for name, text in config.section("prompts").values.items():
            if text:
                notes.append(f"{config.where}: the prompt {name} is {text!r}; a run puts no prompt before its texts")
    return tuple(notes)
