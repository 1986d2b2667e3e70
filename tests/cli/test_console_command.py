"""The command `tfinpaint` itself: its list of commands, and rmldnn's applications that it has not."""

import pytest
from commandline import refuse, tfinpaint

from tfinpaint.errors import UserError
from tfinpaint.report.comparison import write_comparison


@pytest.mark.parametrize("app", ["gan", "obj", "pde"])
def test_the_seed_tools_other_applications_are_refused(app):
    error = refuse("pretrain", f"--app={app}", "--config", "none.json")
    assert error == (
        f"error: --app={app} is an application of rmldnn that is not supported; supported are inpainting and image to "
        "image (tfinpaint.pretrain) and classification (tfinpaint.classify)\n"
    )


def test_the_console_command_lists_its_commands(tmp_path):
    shown = tfinpaint("--help")
    assert shown.returncode == 0
    for name in ("prepare", "preview", "pretrain", "predict", "classify", "compare", "canary"):
        assert f"\n  {name}" in shown.stdout
    assert tfinpaint("nonsense").returncode == 2
    with pytest.raises(UserError, match="holds no finished run"):
        write_comparison([tmp_path], tmp_path / "r.html")
