"""The list of bad images: whole, counted over the ranks, kept where a run is resumed, limited."""

import logging

import pytest

from tfinpaint.data.failures import Failures
from tfinpaint.distributed.world import World
from tfinpaint.errors import UserError
from tfinpaint.layout import BAD_IMAGES
from tfinpaint.runs import bad_images
from tfinpaint.runs.bad_images import BadImageCounter, begin_bad_images
from tfinpaint.system.paths import display_path


class BesideAnother(World):
    """Rank 0 of two; what the other one tells at the end of each epoch is given."""

    def __init__(self, *told):
        super().__init__()
        self.told = iter(told)

    def all_gather(self, value):
        return [value, next(self.told)]


def listed(folder):
    text = (folder / BAD_IMAGES).read_text(encoding="utf-8", errors="surrogateescape")
    return [line.split("\t") for line in text.splitlines()]


def test_many_bad_images_are_all_listed_and_the_first_are_named(tmp_path, caplog):
    bad = [(f"/x/{number:02}\t\n.png", "empty") for number in range(25)]
    bad_images.report_checked(World(), tmp_path, bad, 25)
    assert not list(tmp_path.iterdir())  # the run may still be refused
    begin_bad_images(tmp_path, resumed=False, checked=bad)
    assert len(listed(tmp_path)) == 25
    assert listed(tmp_path)[24] == ["checked", "/x/24  .png", "empty"]  # no tab, no line end
    assert len(caplog.messages) == 22
    assert caplog.messages[20:] == [
        "... and 5 more",
        f"25 images cannot be read and are left out (data.max_bad_images allows 25), listed in {display_path(tmp_path / BAD_IMAGES)}",
    ]
    bad_images.report_checked(World(), tmp_path, bad[:1], bad_images.ANY_NUMBER)
    assert (
        caplog.messages[-1]
        == f"1 image cannot be read and is left out, listed in {display_path(tmp_path / BAD_IMAGES)}"
    )
    with pytest.raises(UserError) as caught:
        bad_images.report_checked(World(), tmp_path, bad[:21], 20)
    first, *named, last = str(caught.value).replace("\t\n", "").splitlines()
    assert first == (
        f"21 unusable images, data.max_bad_images allows 20; repair or remove them (listed in {display_path(tmp_path / BAD_IMAGES)}):"
    )
    assert (len(named), last) == (20, "... and 1 more")
    assert len(listed(tmp_path)) == 21
    (tmp_path / "config.resolved.yaml").touch()  # of a run, whose list is kept
    with pytest.raises(UserError, match=r"\(listed in .*/bad_images_refused\.txt\):"):
        bad_images.report_checked(World(), tmp_path, bad, 20)
    assert len(listed(tmp_path)) == 21
    assert len((tmp_path / "bad_images_refused.txt").read_text().splitlines()) == 25
    begin_bad_images(tmp_path, resumed=False, checked=[])
    assert [path.name for path in tmp_path.iterdir()] == ["config.resolved.yaml"]


def test_what_goes_bad_on_any_rank_is_counted_and_listed_once(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    failures = Failures(limit=5, before=2)
    watch = BadImageCounter(BesideAnother([], [["/x/b", "empty"]], [], [["/x/d", "empty"]]), tmp_path, failures)
    watch(1, None, None)
    assert not (tmp_path / BAD_IMAGES).exists()
    failures.found[7] = ("/x/a", "truncated")
    watch(2, None, None)
    assert caplog.messages == [
        f"2 images failed during training (2 before; limit 5) and were replaced, listed in {display_path(tmp_path / BAD_IMAGES)}"
    ]
    assert failures.before == 3  # the other rank's counts where this one reads
    failures.found[9] = ("/x/c", "truncated")
    watch(3, None, None)
    assert listed(tmp_path) == [
        ["epoch 2", "/x/a", "truncated"], ["epoch 2", "/x/b", "empty"], ["epoch 3", "/x/c", "truncated"],
    ]  # fmt: skip
    assert not failures.exceed_limit
    with pytest.raises(UserError) as caught:
        watch(4, None, None)
    assert str(caught.value).splitlines() == [
        "4 images failed during training (2 before); data.max_bad_images allows 5; repair or remove "
        f"them (listed in {display_path(tmp_path / BAD_IMAGES)}):",
        "/x/d: empty",
    ]
    assert listed(tmp_path)[3:] == [["epoch 4", "/x/d", "empty"]]


def test_a_resumed_run_remembers_what_went_bad_in_training_and_lists_it_once(tmp_path):
    odd = "/x/\udcff.png"  # a name that is no UTF-8
    begin_bad_images(tmp_path, resumed=False, checked=[("/x/a", "empty")])
    failures = Failures(limit=9, before=1, found={3: (odd, "empty")})
    BadImageCounter(World(), tmp_path, failures)(2)
    begin_bad_images(tmp_path, resumed=True, checked=[])
    assert listed(tmp_path) == [["epoch 2", odd, "empty"]]
    failures.found[5] = ("/x/c", "empty")
    BadImageCounter(World(), tmp_path, failures)(4)
    assert listed(tmp_path) == [["epoch 2", odd, "empty"], ["epoch 4", "/x/c", "empty"]]
    begin_bad_images(tmp_path, resumed=True, checked=[("/x/d", "empty")])
    assert listed(tmp_path)[2:] == [["checked", "/x/d", "empty"]]
    begin_bad_images(tmp_path, resumed=False, checked=[])
    assert not (tmp_path / BAD_IMAGES).exists()
