"""How a command ends that has failed."""

from tfinpaint.cli.command import run_command
from tfinpaint.errors import UserError


def test_the_names_in_an_error_cannot_change_the_terminal(capsys):
    def command() -> None:
        raise UserError("a/e\x1b[31mred.png: no such file\nb.png: no such file")

    assert run_command(command) == 2
    assert capsys.readouterr().err == "error: a/e?[31mred.png: no such file\nerror: b.png: no such file\n"
