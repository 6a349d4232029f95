"""Kept features: the same views for everyone, each with its mirror image, boxes that follow."""

from itertools import islice

import pytest
import torch
from torch import Tensor

from mgral_service.detectors.bank import FeatureBank
from mgral_service.detectors.batches import Batch
from mgral_service.detectors.ssdlite import SsdLite
from mgral_service.domain.errors import InvalidInput
from tests.detectors.tiny import CLASSES, SIDE, squares

IMAGES, TRUTH = squares(20)
LABELLED, POOL = TRUTH.ids[:8], TRUTH.ids[8:]
VIEWS = 3


class Watched(SsdLite):
    """Remembers every image it made features of."""

    def __init__(self) -> None:
        super().__init__(len(CLASSES), SIDE, freeze=True)
        self.met = torch.zeros(0, 3, SIDE, SIDE)

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        self.met = torch.cat([self.met, images])
        return super().features(images)


@pytest.fixture
def net() -> Watched:
    return Watched()


def bank_of(net: SsdLite) -> FeatureBank:
    return FeatureBank(net, IMAGES, TRUTH.subset(LABELLED), VIEWS)


def equal(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(*levels) for levels in zip(one, other, strict=True))


def images_of(levels: tuple[Tensor, ...], net: Watched) -> Tensor:
    """[B, 3, S, S] the images met whose features these are."""
    met = net.met
    with torch.no_grad():
        known = net.features(met)[0].flatten(1)
    net.met = met
    return met[torch.cdist(levels[0].flatten(1), known).argmin(1)]


def test_an_image_has_the_same_views_whatever_asks_first_and_in_another_bank(net: Watched) -> None:
    one, other = bank_of(net), bank_of(net)
    ids = (*LABELLED[:2], POOL[0])
    looks = {name: one.looks(name) for name in ids}
    other.plain(ids)
    for name in reversed(ids):
        assert equal(looks[name].features, other.looks(name).features)
        assert equal(looks[name].mirrored, other.looks(name).mirrored)
    assert torch.equal(one.targets(ids[0]).boxes, other.targets(ids[0]).boxes)
    assert len(looks[ids[0]].features[0]) == VIEWS
    assert not torch.equal(*looks[ids[0]].features[0][:2])


def test_features_make_room_for_others_and_are_the_same_when_made_again(
    net: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, small = bank_of(net), bank_of(net)
    first = whole.looks(POOL[0])
    monkeypatch.setattr("mgral_service.detectors.bank.ROOM", 2 * first.bytes)
    for name in (*POOL[:4], POOL[2]):
        assert equal(small.looks(name).features, whole.looks(name).features)
    assert list(small._looks) == [POOL[3], POOL[2]]  # the one used last goes last
    assert equal(small.looks(POOL[0]).features, first.features)
    assert small._bytes == 2 * first.bytes


def test_labelled_images_are_drawn_and_seen_alike_whatever_batch_is_attached(net: Watched) -> None:
    bank = bank_of(net)
    one = bank.draw_batches(LABELLED, POOL[:3], 4, seed=5)
    other = bank.draw_batches(LABELLED, POOL[4:9], 4, seed=5)
    for first, second in islice(zip(one, other, strict=True), 6):
        for mine, its in zip(first.both(), second.both(), strict=True):
            assert torch.equal(mine[:2], its[:2])  # two of four have labels
            assert torch.equal(mine[4:6], its[4:6])
            assert not torch.equal(mine[2:4], its[2:4])
        assert torch.equal(first.targets.boxes, second.targets.boxes)
        assert torch.equal(first.targets.labels, second.targets.labels)


def test_a_batch_and_its_mirror_image_are_features_of_a_view_and_of_that_view_flipped(
    net: Watched,
) -> None:
    batch = next(bank_of(net).draw_batches(LABELLED, POOL, 8, seed=1))
    both = batch.both()
    assert [len(level) for level in both] == [16] * 3
    images = images_of(tuple(level[:8] for level in both), net)
    with torch.no_grad():
        flipped = net.features(images.flip(-1))
    for level, wanted in zip(both, flipped, strict=True):
        torch.testing.assert_close(level[8:], wanted, atol=0.03, rtol=1e-3)


def square_in(image: Tensor) -> Tensor:
    """xyxy of the pixels [3, S, S] that differ from the ground around the square."""
    grey = image.mean(0)
    rows, columns = ((grey - grey.median()).abs() > 0.15).nonzero(as_tuple=True)
    edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return torch.tensor([float(edge) for edge in edges])


def test_boxes_lie_where_the_drawn_view_shows_the_object(net: Watched) -> None:
    batches: list[Batch] = list(islice(bank_of(net).draw_batches(LABELLED, (), 8, seed=2), 3))
    compared = 0
    for batch in batches:
        assert isinstance(batch.seen, tuple)
        images = images_of(batch.seen, net)
        for image, boxes, labels in zip(
            images, batch.targets.boxes, batch.targets.labels, strict=True
        ):
            if labels[0] > 0:
                torch.testing.assert_close(boxes[0], square_in(image), atol=1.5, rtol=0)
                compared += 1
    assert compared > 12  # of 24, mirrored and not


def test_plain_features_are_those_of_the_images_as_they_are(net: Watched) -> None:
    ids = (POOL[2], LABELLED[0])
    pixels = torch.from_numpy(IMAGES.pixels[IMAGES.rows(ids)]).float() / 255
    with torch.no_grad():
        wanted = net.features(pixels)
    for level, one in zip(bank_of(net).plain(ids), wanted, strict=True):
        torch.testing.assert_close(level, one, atol=0.03, rtol=1e-3)


def test_plain_features_are_made_once(net: Watched) -> None:
    bank = bank_of(net)
    bank.plain(POOL[:3])
    bank.plain(POOL[1:5])
    assert len(net.met) == 5


def test_a_batch_of_features_has_no_images(net: Watched) -> None:
    batch = next(bank_of(net).draw_batches(LABELLED, (), 2, seed=0))
    with pytest.raises(TypeError, match="features"):
        _ = batch.images


def test_without_labelled_images_there_is_nothing_to_train_on(net: Watched) -> None:
    with pytest.raises(InvalidInput, match="labelled"):
        next(bank_of(net).draw_batches((), POOL, 4, seed=0))
