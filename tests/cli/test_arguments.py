"""What is typed: files without --config, options and commands that do not exist, values apart from their key."""

import argparse
import subprocess
import sys

import pytest
from commandline import tfinpaint

from tfinpaint import __version__
from tfinpaint.cli import arguments as command_line
from tfinpaint.cli.arguments import parse_arguments
from tfinpaint.cli.purposes import PURPOSES
from tfinpaint.errors import UserError


def parse(*arguments):
    parser = argparse.ArgumentParser(prog="tfinpaint pretrain")
    command_line.add_config_options(parser, "file")
    parser.add_argument("--workdir")
    parser.add_argument("--resume", action="store_true")
    return parse_arguments(parser, arguments)


def refused(*arguments):
    with pytest.raises(UserError) as refusal:
        parse(*arguments)
    return str(refusal.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ["--config", "./a.json", "--set", "seed=1"],
        ["--config=./a.json", "--set", "seed=1"],
        ["--config=", "./a.json", "--set", "seed=1"],  # as rmldnn's tutorials print it: --config= ./a.json
        ["./a.json", "--set", "seed=1"],
        ["--set", "seed=1", "./a.json"],
        ["--set", "seed=1", "--config=", "./a.json"],
    ],
)
def test_the_file_may_be_given_in_every_usual_way(arguments):
    parsed = parse(*arguments)
    assert (str(parsed.config), parsed.overrides) == ("a.json", ["seed=1"])


def test_without_a_file_there_is_none():
    assert parse("--resume", "--workdir", "run").config is None
    assert refused("--config=") == "--config is empty: write the file behind it, such as --config pretrain.yaml"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["--set", "num_epochs", "3"],
            "--set num_epochs 3: expected KEY=VALUE without spaces; write --set num_epochs=3",
        ),
        (["--set", "num_epochs", "=", "3"], "expected KEY=VALUE without spaces; write --set num_epochs=3"),
        (["--set", "num_epochs=", "3"], "expected KEY=VALUE without spaces; write --set num_epochs=3"),
        (["--set", "num_epochs", "=3"], "expected KEY=VALUE without spaces; write --set num_epochs=3"),
        (["num_epochs=3"], "num_epochs=3: expected an option; keys of the configuration are set by --set num_epochs=3"),
        (["b.yaml"], "b.yaml: unexpected; --config takes one file, and every other value belongs to an option"),
        (
            ["--epochs", "3"],
            "--epochs: there is no such option; keys of the configuration are set by --set num_epochs=3",
        ),
        (["--data", "photos"], "keys of the configuration are set by --set data.input_path=photos"),
        (["--optimizer", "SGD"], "keys of the configuration are set by --set optimizer.type=SGD"),
        (["--lr=1e-3"], "keys of the configuration are set by --set optimizer.learning_rate=1e-3"),
        (["--batch-size", "8"], "keys of the configuration are set by --set data.batch_size=8"),
        (["--resume", "--epochs"], "keys of the configuration are set by --set num_epochs=VALUE"),
        (["--wrokdir", "run"], "--wrokdir: there is no such option; did you mean --workdir?"),
        (["--resmue"], "--resmue: there is no such option; did you mean --resume?"),
        (["--frobnicate"], "--frobnicate: there is no such option; `tfinpaint pretrain --help` lists them"),
    ],
)
def test_what_is_no_argument_is_told_with_its_remedy(arguments, expected):
    assert expected in refused("--config", "a.yaml", *arguments)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["prepare", "photos", "data", "--verfiy"], "--verfiy: there is no such option; did you mean --verify?"),
        (
            ["prepare", "photos", "data", "--frob"],
            "--frob: there is no such option; `tfinpaint prepare --help` lists them",
        ),
        (
            ["compare", "--epochs", "3", "run"],
            "--epochs: there is no such option; `tfinpaint compare --help` lists them",
        ),
        (["prepare"], "SOURCE: missing; `tfinpaint prepare --help` lists the options"),
        (
            ["canary", "--ranks", "two"],
            "--ranks two: expected a whole number; `tfinpaint canary --help` lists the options",
        ),
        (
            ["classify", "--workdir"],
            "--workdir: a value is missing behind it; `tfinpaint classify --help` lists the options",
        ),
        (
            ["prepare", "photos", "data", "--test-fraction", "ten"],
            "--test-fraction ten: expected a number; `tfinpaint prepare --help` lists the options",
        ),
        (
            ["prepare", "photos", "data", "more"],
            "more: is one argument too many; `tfinpaint prepare --help` lists the options",
        ),
        (
            ["prepare", "photos", "data", "--overwrite"],
            "--overwrite: there is no such option; nothing is overwritten here; remove the folder DEST yourself, ",
        ),
        (["compare", "run", "--output", "c.html"], "--output: there is no such option; name the page by --report FILE"),
        (
            ["run", "runs/mine", "--set", "num_epochs=3"],
            "--set: there is no such option; FOLDER has its configurations; change the key in pretrain.yaml or ",
        ),
        (["run", "runs/mine", "--resume"], "--resume: there is no such option; the same command continues by itself"),
        (
            ["evaluate", "run", "--data", "photos", "--config", "c.yaml"],
            "--config: there is no such option; name the run folder, which has its configuration, without an option",
        ),
        (
            ["preview", "--images", "0"],
            "--images: 0: expected a whole number, 1 to 100; `tfinpaint preview --help` lists the options",
        ),
        (
            ["classify", "--resume", "--overwrite"],
            "--overwrite: not allowed with --resume; `tfinpaint classify --help` lists the options",
        ),
        (["pretrain"], "--config FILE is missing, such as --config configs/demo/pretrain.yaml"),
        (["preview"], "--config FILE is missing, such as --config configs/demo/pretrain.yaml"),
    ],
)
def test_every_command_tells_wrong_arguments_in_one_line(arguments, expected):
    done = tfinpaint(*arguments)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert done.stderr.startswith(f"error: {expected}")


def test_a_file_in_front_is_no_value():
    assert refused("a.yaml", "--epochs", "3").endswith("--set num_epochs=3")
    assert refused("a.yaml", "--set", "num_epochs", "3").endswith("write --set num_epochs=3")


def test_two_files_without_an_option_are_refused():
    assert refused("a.yaml", "b.yaml") == "a.yaml: unexpected; a single file is the configuration, as after --config"


def test_commands_that_do_not_exist_and_the_version():
    for typed, meant in (
        ("pretrian", "pretrain"),
        ("clasify", "classify"),
        ("train", "pretrain"),
        ("Doctor", "doctor"),
    ):
        done = tfinpaint(typed)
        assert done.returncode == 2
        assert done.stderr == f"error: there is no command {typed}; did you mean tfinpaint {meant}?\n"
    assert tfinpaint("--versoin").stderr == "error: there is no option --versoin; did you mean tfinpaint --version?\n"
    done = tfinpaint("frobnicate")
    assert "frobnicate: no such command; there are demo, init, run, prepare, preview, pretrain," in done.stderr
    assert "no command in front of it" in tfinpaint("--config", "a.yaml").stderr
    assert tfinpaint("help", "prepare").stdout == tfinpaint("prepare", "--help").stdout
    for option in ("--version", "-V"):
        assert tfinpaint(option).stdout == f"tfinpaint {__version__}\n"
    assert (tfinpaint("--help").returncode, tfinpaint().returncode) == (0, 2)


def test_no_command_imports_tensorflow_to_show_its_help():
    code = (
        "import sys\n"
        "from tfinpaint.__main__ import main\n"
        "for command in sys.argv[1:]:\n"
        "    sys.argv = ['tfinpaint', command, '--help']\n"
        "    try:\n"
        "        code = main()\n"
        "    except SystemExit as ended:\n"
        "        code = ended.code\n"
        "    print(command, code, {'tensorflow', 'keras', 'horovod'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *PURPOSES], capture_output=True, text=True, check=True)
    shown = [line for line in done.stdout.splitlines() if line.endswith(" set()")]
    assert shown == [f"{command} 0 set()" for command in PURPOSES], done.stderr


def test_a_whole_number_has_its_limits():
    read = command_line.whole_number(2, 5)
    assert [read("2"), read("5"), command_line.whole_number(1)("70")] == [2, 5, 70]
    for text in ("1", "6", "-3", "3.0", "", "two"):
        with pytest.raises(argparse.ArgumentTypeError, match=rf"^{text}: expected a whole number, 2 to 5$"):
            read(text)
    with pytest.raises(argparse.ArgumentTypeError, match=r"^0: expected a whole number, 1 or more$"):
        command_line.whole_number(1)("0")
