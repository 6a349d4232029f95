"""Cached features: the same views for everyone, each with its mirror image, boxes that follow."""

from itertools import islice

import pytest
import torch
from torch import Tensor

from mgral_service.detectors.batches import Batch
from mgral_service.detectors.feature_cache import FeatureCache
from mgral_service.detectors.nets.ssdlite import SsdLite
from mgral_service.domain.boxes import Annotations
from mgral_service.domain.errors import InvalidInput
from tests.detectors.tiny import CLASSES, SIDE, squares

IMAGES, TRUTH = squares(20)
LABELLED, POOL = TRUTH.ids[:8], TRUTH.ids[8:]
TRAIN = TRUTH.subset(LABELLED)
VIEWS = 3


class Watched(SsdLite):
    """Remembers every image it computed features of."""

    def __init__(self) -> None:
        super().__init__(len(CLASSES), SIDE, freeze=True)
        self.images = torch.zeros(0, 3, SIDE, SIDE)

    def features(self, images: Tensor) -> tuple[Tensor, ...]:
        self.images = torch.cat([self.images, images])
        return super().features(images)


@pytest.fixture
def net() -> Watched:
    return Watched()


def cache_of(net: SsdLite) -> FeatureCache:
    return FeatureCache(net, IMAGES, VIEWS)


def equal(first: tuple[Tensor, ...], second: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(*levels) for levels in zip(first, second, strict=True))


def images_of(levels: tuple[Tensor, ...], net: Watched) -> Tensor:
    """[B, 3, S, S] the remembered images whose features these are."""
    images = net.images
    with torch.no_grad():
        features = net.features(images)[0].flatten(1)
    net.images = images
    return images[torch.cdist(levels[0].flatten(1), features).argmin(1)]


def test_an_image_has_the_same_views_whatever_asks_first_and_in_another_cache(net: Watched) -> None:
    first, second = cache_of(net), cache_of(net)
    ids = (*LABELLED[:2], POOL[0])
    views = {image_id: first.views(image_id) for image_id in ids}
    second.plain(ids)
    for image_id in reversed(ids):
        assert equal(views[image_id], second.views(image_id))
    assert len(views[ids[0]][0]) == 2 * VIEWS
    assert not torch.equal(*views[ids[0]][0][:2])


def test_features_give_way_to_others_and_are_the_same_when_computed_again(
    net: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, small = cache_of(net), cache_of(net)
    ids = (*POOL[:4], POOL[2], POOL[0])
    expected = [whole.views(image_id) for image_id in ids]
    two = 2 * sum(level.nbytes for level in expected[0])
    monkeypatch.setattr("mgral_service.detectors.feature_cache.CAPACITY", two)
    computed = []
    for image_id, features in zip(ids, expected, strict=True):
        before = len(net.images)
        assert equal(small.views(image_id), features)
        computed.append(len(net.images) > before)
    assert computed == [True] * 4 + [False, True]
    small.plain(POOL)  # more than it holds
    assert equal(small.plain(POOL[:2]), whole.plain(POOL[:2]))


def test_labelled_images_are_drawn_and_seen_alike_whatever_batch_is_attached(net: Watched) -> None:
    cache = cache_of(net)
    batches = cache.draw_batches(TRAIN, POOL[:3], 4, seed=5)
    others = cache.draw_batches(TRAIN, POOL[4:9], 4, seed=5)
    for batch, other in islice(zip(batches, others, strict=True), 6):
        pairs = zip(batch.with_mirrored(), other.with_mirrored(), strict=True)
        for level, other_level in pairs:
            assert torch.equal(level[:2], other_level[:2])  # two of four have labels
            assert torch.equal(level[4:6], other_level[4:6])
            assert not torch.equal(level[2:4], other_level[2:4])
        assert batch.targets.equal(other.targets)


def test_a_batch_and_its_mirror_image_are_features_of_a_view_and_of_that_view_flipped(
    net: Watched,
) -> None:
    both = next(cache_of(net).draw_batches(TRAIN, POOL, 8, seed=1)).with_mirrored()
    assert [len(level) for level in both] == [16] * 3
    images = images_of(tuple(level[:8] for level in both), net)
    with torch.no_grad():
        flipped = net.features(images.flip(-1))
    for level, expected in zip(both, flipped, strict=True):
        torch.testing.assert_close(level[8:], expected, atol=0.03, rtol=1e-3)


def square_in(image: Tensor) -> Tensor:
    """xyxy of the pixels [3, S, S] that differ from the ground around the square."""
    grey = image.mean(0)
    rows, columns = ((grey - grey.median()).abs() > 0.15).nonzero(as_tuple=True)
    edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    return torch.tensor([float(edge) for edge in edges])


def test_boxes_lie_where_the_drawn_view_shows_the_object(net: Watched) -> None:
    batches: list[Batch] = list(islice(cache_of(net).draw_batches(TRAIN, (), 8, seed=2), 3))
    compared = 0
    for batch in batches:
        assert isinstance(batch.inputs, tuple)
        images = images_of(batch.inputs, net)
        for image, boxes, labels in zip(
            images, batch.targets.boxes, batch.targets.labels, strict=True
        ):
            if labels[0] > 0:
                torch.testing.assert_close(boxes[0], square_in(image), atol=1.5, rtol=0)
                compared += 1
    assert compared > 12  # of 24, mirrored and not


def test_annotations_that_change_change_the_targets(net: Watched) -> None:
    cache = cache_of(net)
    before = next(cache.draw_batches(TRAIN, (), 8, seed=0)).targets
    relabelled = Annotations(TRAIN.ids, TRAIN.image, TRAIN.boxes, 1 - TRAIN.labels, TRAIN.ignore)
    after = next(cache.draw_batches(relabelled, (), 8, seed=0)).targets
    assert torch.equal(after.boxes, before.boxes)
    assert torch.equal(after.labels, torch.where(before.labels > 0, 3 - before.labels, 0))


def test_plain_features_are_those_of_the_images_as_they_are(net: Watched) -> None:
    ids = (POOL[2], LABELLED[0])
    pixels = torch.from_numpy(IMAGES.pixels[IMAGES.rows(ids)]).float() / 255
    with torch.no_grad():
        expected = net.features(pixels)
    for level, features in zip(cache_of(net).plain(ids), expected, strict=True):
        torch.testing.assert_close(level, features, atol=0.03, rtol=1e-3)


def test_plain_features_are_computed_once(net: Watched) -> None:
    cache = cache_of(net)
    cache.plain(POOL[:3])
    cache.plain(POOL[1:5])
    assert len(net.images) == 5


def test_a_batch_of_features_has_no_images(net: Watched) -> None:
    batch = next(cache_of(net).draw_batches(TRAIN, (), 2, seed=0))
    with pytest.raises(TypeError, match="features"):
        _ = batch.images


def test_without_labelled_images_there_is_nothing_to_train_on(net: Watched) -> None:
    with pytest.raises(InvalidInput, match="labelled"):
        next(cache_of(net).draw_batches(Annotations.empty(), POOL, 4, seed=0))
