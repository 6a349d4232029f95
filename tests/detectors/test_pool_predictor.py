"""Image files that come a batch at a time are predicted as those in memory."""

import io

import numpy as np
import pytest
from PIL import Image

from mgral_service.datasets.images import squeezed
from mgral_service.datasets.loading import ImageStore
from mgral_service.detectors.local import TaskDetector
from mgral_service.detectors.pool_predictor import PoolPredictor
from mgral_service.domain.errors import InvalidInput
from mgral_service.domain.specs import DetectorSpec
from mgral_service.metrics import METRICS
from tests.detectors.tiny import CLASSES, SIDE, squares

SPEC = DetectorSpec(size=SIDE, steps=40, batch=4)


def png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    """Twice as wide as it is trained."""
    content = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).resize((2 * SIDE, SIDE)).save(content, "png")
    return content.getvalue()


def test_files_are_predicted_as_the_task_detector_does() -> None:
    images, truth = squares(6)
    files = [png(pixels) for pixels in images.pixels]
    squeeze = np.stack([squeezed(Image.open(io.BytesIO(file)), SIDE) for file in files])
    store = ImageStore(images.ids, squeeze, images.sizes)
    detector = TaskDetector(SPEC, CLASSES, store, METRICS["ap50"](), seed=0)
    detector.fit(truth, lambda progress: None)
    wanted = detector.predict(images.ids, lambda progress: None)

    predictor = PoolPredictor(SPEC, CLASSES, detector.state())
    decoded = [predictor.decode(file, "file:///a.png") for file in files]
    got = predictor.predict(images.ids, decoded)
    assert got.ids == wanted.ids
    np.testing.assert_allclose(got.embeddings, wanted.embeddings, atol=1e-5)
    assert len(wanted.detections.image) > 0
    for name in ("image", "boxes", "labels", "scores", "probs"):
        ours, theirs = getattr(got.detections, name), getattr(wanted.detections, name)
        np.testing.assert_allclose(ours, theirs, atol=1e-3)
    with pytest.raises(InvalidInput, match=r"file:///a\.png: is not an image of a known format"):
        predictor.decode(b"no image", "file:///a.png")
