"""How a run goes on that has stopped at values that are not finite."""

from tfinpaint.runs.nonfinite import how_to_go_on


def test_resuming_is_advised_only_where_there_is_a_checkpoint(tmp_path):
    assert (
        how_to_go_on(None) == how_to_go_on(tmp_path) == how_to_go_on(tmp_path / "no") == "start again with --overwrite"
    )
    for name in ("model_checkpoint_2", "model_checkpoint_10"):
        (tmp_path / name).mkdir()
    assert how_to_go_on(tmp_path) == (
        "start again with --overwrite, or resume from model_checkpoint_10 with --resume --allow-change optimizer"
    )
