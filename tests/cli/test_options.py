"""Command lines: recipe first, then options; every mistake is one line; --help; no jax at the start."""

import dataclasses
import subprocess
import sys

import pytest

from make_jax.cli.options import (
    EvalData,
    EvalOptions,
    ExportOptions,
    ImportOptions,
    parse_comparison,
    parse_conversion,
    parse_evaluation,
)
from make_jax.cli.parsing import flags
from make_jax.cli.recipes import load_recipe, recipe_folder, recipes
from make_jax.cli.train_options import COMMON, field_comments, parse_settings
from make_jax.config import Config
from make_jax.errors import InputError

RECIPE = '''
"""A recipe."""
from make_jax.config import Config, OptimConfig, TrainConfig

config = Config(train=TrainConfig(steps=7), optim=OptimConfig(warmup_steps=2, lr_multipliers=(("title", 0.0),)))
'''


@pytest.fixture
def recipe(tmp_path):
    """Writes a recipe and returns its path."""

    def write(text=RECIPE):
        path = tmp_path / "recipe.py"
        path.write_text(text)
        return str(path)

    return write


def error_of(*argv):
    with pytest.raises(InputError) as caught:
        parse_settings(argv)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_arguments_parse_returns_the_default():
    assert parse_settings([]) == Config()


def test_options_change_single_settings():
    config = parse_settings(["--data.catalog", "A B.zip", "--optim.learning-rate=3e-4", "--model.remat"])
    assert (config.data.catalog, config.optim.learning_rate, config.model.remat) == ("A B.zip", 3e-4, True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--objectives.form", "ring"], "objectives.form was renamed to objectives.implementation"),
        (["--optim.largest_scale=50"], "optim.largest_scale was renamed to optim.max_logit_scale"),
        (["--model.no-normalise"], "model.normalise was renamed to model.l2_normalize"),
        (["--processes.count", "2"], "processes.count was renamed to distributed.num_processes"),
        (
            ["--model.adaptation.weights", "confidence"],
            "model.adaptation.weights 'confidence' was renamed to 'per_keyword'",
        ),
    ],
)
def test_renamed_options_are_refused_by_their_new_name(words, expected):
    assert error_of(*words) == expected


def test_a_recipe_with_a_renamed_setting_is_refused_by_its_new_name(recipe):
    path = recipe("from make_jax.config import *\n\nconfig = Config(train=TrainConfig(keep=3))\n")
    assert error_of("--config", path) == f"{path}, line 3: train.keep was renamed to train.max_to_keep"


def test_underscores_are_read_as_dashes():
    assert parse_settings(["--train.batch_size", "8"]).train.batch_size == 8


def test_rules_and_tuples_can_be_set():
    config = parse_settings(
        ["--optim.lr-multipliers", "query/.*", "0.5", "gate", "0", "--inputs.image-mean", "0", "1", "0.5"]
    )
    assert config.optim.lr_multipliers == (("query/.*", 0.5), ("gate", 0.0))
    assert config.inputs.image_mean == (0.0, 1.0, 0.5)


def test_recipe_is_parsed_first_and_options_change_it(recipe):
    config = parse_settings(["--train.seed", "5", "--config", recipe()])
    assert (config.train.steps, config.train.seed, config.optim.lr_multipliers) == (7, 5, (("title", 0.0),))
    assert parse_settings([f"--config={recipe()}", "--optim.lr-multipliers", "a", "1"]).optim.lr_multipliers == (
        ("a", 1.0),
    )


@pytest.mark.parametrize(
    ("option", "nearest"),
    [
        ("--optim.lerning-rate", "--optim.learning-rate"),
        ("--data.catalogue=x", "--data.catalog"),
        ("--model.no-remate", "--model.no-remat"),
        ("--confg", "--config"),
    ],
)
def test_unknown_option_is_named_with_the_nearest_name(option, nearest):
    message = error_of(option, "3")
    assert f"unknown option {option.split('=')[0]}; did you mean {nearest}?" in message


def test_stray_word_is_named():
    assert "unexpected word 'catalog.zip'" in error_of("catalog.zip")


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--train.steps", "many"], ["--train.steps", "many"]),
        (["--model.dtype", "float16"], ["--model.dtype", "float16", "bfloat16"]),
        (["--train.steps"], ["--train.steps"]),
        (["--config"], ["--config"]),
        (["--inputs.image-mean", "1"], ["--inputs.image-mean"]),
        (["--optim.lr-multipliers", "a"], ["--optim.lr-multipliers"]),
    ],
)
def test_wrong_value_is_one_line_without_a_box(argv, parts):
    message = error_of(*argv)
    assert all(part in message for part in parts)
    assert not set("│╭╰─") & set(message)


def test_contradicting_settings_are_named():
    assert "model.query.width is 30, expected a multiple of model.query.heads 4" in error_of(
        "--model.query.width", "30"
    )


def test_missing_recipe_is_named():
    assert "--config: no recipe nowhere.py" in error_of("--config", "nowhere.py")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", ": `config` is not defined, expected `config = Config(...)`"),
        ("config = 3\n", ": `config` is of type int, expected `config = Config(...)`"),
        ("x = 1\n\nconfig = {}['a']\n", ", line 3: KeyError: 'a'"),
        ("x = 1\nconfig = (\n", ", line 2: SyntaxError: '(' was never closed"),
        ("import sys\nsys.exit(1)\n", ", line 2: SystemExit: 1"),
        ("from make_jax.config import Config\nconfig = Config(stepps=3)\n", ", line 2: TypeError"),
    ],
)
def test_recipe_without_a_config_is_named_with_its_line(recipe, text, message):
    path = recipe(text)
    with pytest.raises(InputError) as caught:
        load_recipe(path)
    assert f"{path}{message}" in str(caught.value)


def test_recipe_with_a_wrong_type_is_named(recipe):
    # In a subprocess: tests check the types of constructors, users' programs do not.
    path = recipe("from make_jax.config import Config, TrainConfig\nconfig = Config(train=TrainConfig(steps='7'))\n")
    result = run_program(f"parse_settings(['--config', {path!r}])")
    assert result.returncode == 2
    assert "train.steps is '7', expected an integer" in result.stderr


def help_of(parse, *argv, capsys):
    with pytest.raises(SystemExit) as leaving:
        parse(list(argv))
    assert leaving.value.code == 0
    return capsys.readouterr().out


def test_help_prints_common_settings_with_units_and_the_config_option(capsys):
    text = help_of(parse_settings, "--help", capsys=capsys)
    parts = ("Trains a model ", "--config RECIPE", "--dry-run", "--profile FIRST:LAST", "--help-all")
    for part in (*parts, "--train.batch-size", "examples per step over all devices"):
        assert part in text
    assert all(
        f"\n{' ' * 30}{name} " in text for name in ("demo", "fashion", "fashion_pretrained", "pod", "shop", "study")
    )
    assert all(f"--{path.replace('_', '-')}" in text for path in COMMON)


def test_help_all_prints_every_setting_with_its_comment(capsys):
    text = help_of(parse_settings, "--help-all", capsys=capsys)
    for flag in flags(Config):
        assert flag in text
    assert "probability" in text and "--optim.beta2" in text


@pytest.mark.parametrize(
    ("parse", "argv"),
    [
        (parse_settings, ["--help"]),
        (parse_evaluation, ["--help"]),
        (parse_comparison, ["--help"]),
        (parse_conversion, ["--help"]),
        (parse_conversion, ["import", "--help"]),
        (parse_conversion, ["export", "--help"]),
    ],
)
def test_help_fits_two_screens(parse, argv, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    lines = help_of(parse, *argv, capsys=capsys).splitlines()
    assert sum(max(1, -(-len(line) // 100)) for line in lines) <= 60


def test_every_setting_has_a_comment_in_one_line():
    def sections(node):
        yield type(node)
        for each in dataclasses.fields(node):
            if dataclasses.is_dataclass(getattr(node, each.name)):
                yield from sections(getattr(node, each.name))

    for section in sections(Config()):
        plain = {each.name for each in dataclasses.fields(section) if not dataclasses.is_dataclass(each.type)}
        assert plain <= dict(field_comments(section)).keys(), section


def test_config_finds_a_recipe_by_its_name():
    names = {path.stem for path in recipe_folder().glob("*.py")}
    assert names == recipes().keys() >= {"demo", "fashion", "fashion_pretrained", "pod", "shop", "study"}
    assert parse_settings(["--config", "demo"]) == load_recipe(str(recipe_folder() / "demo.py"))


@pytest.mark.parametrize("argv", [["--config", "fashio"], ["--config"], ["--config", "nowhere.py"]])
def test_an_unknown_recipe_is_an_error_that_lists_the_recipes(argv):
    message = error_of(*argv)
    assert message.startswith("--config: ")
    assert all(f"{name} ({line.rstrip('.')})" in message for name, line in recipes().items())


def test_help_shows_the_values_of_the_recipe(recipe, capsys):
    with pytest.raises(SystemExit):
        parse_settings(["--config", recipe(), "--help"])
    assert "(default: 7)" in capsys.readouterr().out


def test_evaluation_options():
    assert parse_evaluation(["runs/a"]) == EvalOptions(model="runs/a")
    argv = ["--data.catalog", "c", "runs/a", "--split", "val", "--out", "o", "--checkpoint", "last", "--depth", "10"]
    expected = EvalOptions("runs/a", EvalData("c"), split="val", out="o", checkpoint="last", depth=10)
    assert parse_evaluation(argv) == expected


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        ([], ["MODEL", "folder of another model", "required"]),
        (["a", "--split", "tset"], ["--split", "tset", "val"]),
        (["a", "--pool", "mine"], ["--pool", "mine", "judged"]),
        (["a", "--data.catalogs", "x"], ["--data.catalogs", "--data.catalog"]),
        (["a", "b"], ["unexpected word 'b'"]),
        (["a", "--depth", "0"], ["--depth is 0, expected at least 1"]),
        (["a", "--depth", "9", "--rerank", "10"], ["--rerank is 10, expected 0 (none) to --depth 9"]),
    ],
)
def test_wrong_evaluation_options_are_named(argv, parts):
    with pytest.raises(InputError) as caught:
        parse_evaluation(argv)
    assert all(part in str(caught.value) for part in parts), caught.value


def run_program(statement):
    code = (
        "import sys\n"
        "from make_jax.cli.train_options import *\n"
        "from make_jax.errors import exit_cleanly\n"
        "def main():\n"
        f"    print({statement})\n"
        "    assert 'jax' not in sys.modules\n"
        "exit_cleanly(main)\n"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


def test_unknown_option_exits_with_2_and_one_line():
    result = run_program("parse_settings(['--trainn.steps', '3'])")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == (
        "error: unknown option --trainn.steps; did you mean --train.steps? (--help lists the options)\n"
    )


def test_parsing_imports_no_jax():
    result = run_program("parse_settings(['--train.steps', '300'])")
    assert result.returncode == 0, result.stderr


def test_conversion_takes_a_source_and_a_folder_and_where_to():
    assert parse_conversion(["import", "a/b", "out"]) == ImportOptions("a/b", "out")
    assert parse_conversion(["import", "a", "b", "--from", "torch"]) == ImportOptions("a", "b", "torch")
    assert parse_conversion(["export", "a", "b", "--to", "onnx"]) == ExportOptions("a", "b", "onnx")


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], "found nothing, expected: convert.py import SOURCE OUT"),
        (["improt", "a", "b"], "found 'improt'"),
        (["import", "a"], "OUT"),
        (["import", "a", "b", "--form", "x"], "unknown option --form"),
        (["import", "a", "b", "--from", "x"], "--from"),
        (["export", "a", "b"], "--to"),
        (["export", "a", "b", "--to", "tflite"], "tflite"),
    ],
)
def test_conversion_names_what_is_wrong(argv, expected):
    with pytest.raises(InputError) as caught:
        parse_conversion(argv)
    assert expected in str(caught.value)


def test_help_of_conversion_names_the_commands(capsys):
    for argv, expected in (
        (["--help"], "import SOURCE OUT"),
        (["import", "-h"], "import [-h] "),
        (["export", "-h"], "{torch,sentence-transformers,onnx,onnx-int8,stablehlo}"),
    ):
        with pytest.raises(SystemExit) as leaving:
            parse_conversion(argv)
        assert leaving.value.code == 0 and expected in capsys.readouterr().out
