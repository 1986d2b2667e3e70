"""Write the configurations of previews, and run the command in the process of the tests."""

from pathlib import Path

from conftest import write_config

from tfinpaint import preview


def write(folder: Path, data: Path, **changes: object) -> Path:
    return write_config(
        folder / "pretrain.yaml", "pretrain", data, **{"data__test_input_path": None, "seed": 7} | changes
    )


def succeed(capsys, config: Path, *arguments: object) -> list[str]:
    """The lines of a preview that must succeed; its picture is out.png beside the configuration."""
    output = config.with_name("out.png")
    code = preview.main(["--config", str(config), "--output", str(output), *map(str, arguments)])
    shown = capsys.readouterr()
    assert (code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert lines[-1] == f"Preview: {output}"
    return lines[:-1]


def refuse(capsys, config: Path, *arguments: object, lines: int = 1) -> str:
    """The lines of a preview that must fail cleanly."""
    assert preview.main(["--config", str(config), *map(str, arguments)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert all(line.startswith("error: ") for line in shown.err.splitlines())
    assert shown.err.count("\n") == lines, shown.err
    return shown.err
