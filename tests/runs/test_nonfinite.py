"""How a run continues that has stopped at values that are not finite."""

from tfinpaint.config.schema import Config
from tfinpaint.runs.nonfinite import how_to_continue


def config(**checkpoints: object) -> Config:
    return Config.model_validate(
        {
            "workdir": "runs/mine",
            "checkpoints": checkpoints,
            "data": {"input_path": "images", "transforms": [{"resize": [32, 32]}]},
            "optimizer": {"type": "Adam", "learning_rate": 1e-3},
        }
    )


def test_resuming_is_advised_only_where_there_is_a_checkpoint(tmp_path):
    for save in (None, tmp_path, tmp_path / "no"):
        assert how_to_continue("classify", config(save=save)) == "start again with --overwrite"
    for name in ("model_checkpoint_2", "model_checkpoint_10"):
        (tmp_path / name).mkdir()
    assert how_to_continue("classify", config(save=tmp_path)) == (
        "start again with --overwrite, or resume from model_checkpoint_10, such as with: tfinpaint classify --resume "
        "--workdir runs/mine --set optimizer.learning_rate=0.0001 --allow-change optimizer"
    )
