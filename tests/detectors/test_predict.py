"""From raw boxes to detections in original pixels."""

from collections.abc import Sequence

import numpy as np
import torch
from torchvision.ops import nms

from mgral_service.datasets.loading import ImageStore
from mgral_service.detectors.net import RawOutput
from mgral_service.detectors.nets.ssdlite import SsdLite
from mgral_service.detectors.predict import LOOSE, Suppression, predict, suppress
from tests.detectors.tiny import SIDE, squares

IDS = ("a", "b", "c")


def random_boxes(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    low = torch.rand(3, 60, 2, generator=draw) * 40
    boxes = torch.cat([low, low + 20], 2)
    return boxes, (3 * torch.randn(3, 60, 4, generator=draw)).softmax(-1)


def test_suppression_equals_torchvisions_image_by_image_and_class_by_class() -> None:
    boxes, probs = random_boxes(0)
    best = suppress(boxes, probs, Suppression(score=0.05, candidates=10_000, most=10_000), IDS)
    for image in range(3):
        for label in range(3):
            score = probs[image, :, label + 1]
            rows = (score >= 0.05).nonzero()[:, 0]
            rows = rows[nms(boxes[image, rows], score[rows], 0.45)]
            ours = (best.image == image) & (best.labels == label)
            np.testing.assert_array_equal(best.boxes[ours], boxes[image, rows])
            np.testing.assert_array_equal(best.scores[ours], score[rows])
            np.testing.assert_allclose(best.probs[ours], probs[image, rows], rtol=1e-6)


def test_the_best_of_each_image_stay() -> None:
    boxes, probs = random_boxes(1)
    everything = suppress(
        boxes, probs, Suppression(score=0.01, candidates=10_000, most=10_000), IDS
    )
    few = suppress(boxes, probs, Suppression(score=0.01, candidates=10_000, most=5), IDS)
    for image in range(3):
        best = np.sort(everything.scores[everything.image == image])[::-1][:5]
        np.testing.assert_array_equal(few.scores[few.image == image], best)


class Certain(SsdLite):
    """Sees class 1 at one anchor of every image and nothing elsewhere."""

    def predict(self, features: tuple[torch.Tensor, ...]) -> RawOutput:
        raw = super().predict(features)
        logits = torch.zeros_like(raw.logits)
        logits[..., 0] = 20.0
        logits[:, 700 % len(self.anchors), 2] = 40.0
        return RawOutput(logits, torch.zeros_like(raw.deltas), raw.pooled)


def test_detections_come_in_pixels_of_the_originals_and_rows_in_the_order_asked_for() -> None:
    images, _ = squares(40)
    net = Certain(2, SIDE, freeze=True).eval()
    ids = tuple(reversed(images.ids))
    predictions = predict(net, images, ids, LOOSE)
    detections = predictions.detections
    assert predictions.ids == detections.ids == ids
    assert predictions.embeddings.shape == (40, 256)
    assert predictions.embeddings.dtype == np.float64
    assert detections.image.tolist() == list(range(40))
    assert set(detections.labels.tolist()) == {1}
    anchor = net.anchors[700 % len(net.anchors)].clamp(0, SIDE).double().numpy()
    np.testing.assert_allclose(detections.boxes[0], anchor * [2, 1, 2, 1])
    np.testing.assert_allclose(detections.probs.sum(1), 1.0, atol=1e-6)


def test_an_image_is_seen_alike_alone_and_in_company() -> None:
    images, _ = squares(6)
    net = SsdLite(2, SIDE, freeze=True).eval()
    together = predict(net, images, images.ids, LOOSE)
    alone = predict(net, images, images.ids[3:4], LOOSE)
    np.testing.assert_allclose(alone.embeddings[0], together.embeddings[3], rtol=1e-4, atol=1e-6)


def test_no_images_no_rows() -> None:
    images, _ = squares(1)
    predictions = predict(SsdLite(2, SIDE, freeze=True).eval(), images, (), LOOSE)
    assert predictions.embeddings.shape == (0, 256)
    assert predictions.detections.probs.shape == (0, 3)
    empty = ImageStore((), images.pixels[:0], images.sizes[:0])
    assert predict(SsdLite(2, SIDE, True).eval(), empty, (), LOOSE).ids == ()


def test_cached_features_give_what_the_images_give() -> None:
    images, _ = squares(40)
    net = SsdLite(2, SIDE, freeze=True).eval()
    asked: list[int] = []

    def features(ids: Sequence[str]) -> tuple[torch.Tensor, ...]:
        asked.append(len(ids))
        return net.features(torch.from_numpy(images.pixels[images.rows(ids)]).float() / 255)

    cached = predict(net, images, images.ids, LOOSE, features=features)
    expected = predict(net, images, images.ids, LOOSE)
    assert asked == [32, 8]
    np.testing.assert_array_equal(cached.embeddings, expected.embeddings)
    np.testing.assert_array_equal(cached.detections.boxes, expected.detections.boxes)


def test_probabilities_of_sigmoids_are_brought_to_one() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10]]])
    best = suppress(boxes, torch.tensor([[[0.1, 0.9, 0.6]]]), Suppression(), IDS[:1])
    np.testing.assert_allclose(best.scores, [0.9, 0.6], rtol=1e-6)
    np.testing.assert_allclose(best.probs, np.array([[0.1, 0.9, 0.6]] * 2) / 1.6, rtol=1e-6)


def test_half_precision_changes_little_and_comes_out_whole() -> None:
    images, _ = squares(4)
    net = SsdLite(2, SIDE, freeze=True).eval()
    whole, half = (
        predict(net, images, images.ids, LOOSE, precision=precision)
        for precision in ("fp32", "bf16")
    )
    assert half.embeddings.dtype == np.float64
    assert not np.array_equal(half.embeddings, whole.embeddings)
    assert np.corrcoef(half.embeddings.ravel(), whole.embeddings.ravel())[0, 1] > 0.98
