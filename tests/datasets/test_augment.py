"""Boxes follow their pixels, and every number comes from the generator."""

import numpy as np
import torch

from mgral_service.datasets.augment import augment


def square(side: int, box: tuple[int, int, int, int]) -> torch.Tensor:
    pixels = torch.full((1, 3, side, side), 128, dtype=torch.uint8)
    x1, y1, x2, y2 = box
    pixels[:, :, y1:y2, x1:x2] = 255
    return pixels


def test_the_box_lies_on_the_square_in_every_view() -> None:
    box = (30, 40, 62, 60)
    pixels, boxes = square(128, box), torch.tensor([[box]]).float()
    rng = np.random.default_rng(0)
    for _ in range(40):
        images, moved, labels = augment(pixels, boxes, torch.ones(1, 1, dtype=torch.int64), rng)
        if labels.item() == 0:
            continue
        grey = images[0].mean(0)
        ys, xs = (grey > (grey.max() + grey.median()) / 2).nonzero(as_tuple=True)
        bright = torch.stack([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]).float()
        assert (moved[0, 0] - bright).abs().max() < 2.0


def test_the_same_generator_state_gives_the_same_view_and_takes_eight_numbers_an_image() -> None:
    pixels, boxes = square(32, (4, 4, 20, 20)), torch.tensor([[[4.0, 4, 20, 20]]])
    labels = torch.ones(1, 1, dtype=torch.int64)
    rng, same = np.random.default_rng(3), np.random.default_rng(3)
    first, second = augment(pixels, boxes, labels, rng), augment(pixels, boxes, labels, same)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    counted = np.random.default_rng(3)
    counted.random(8)
    assert rng.random() == counted.random()


def test_images_stay_in_range_and_padding_stays_padding() -> None:
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    images, boxes, labels = augment(
        pixels, torch.zeros(4, 3, 4), torch.zeros(4, 3, dtype=torch.int64), np.random.default_rng(0)
    )
    assert images.shape == (4, 3, 32, 32)
    assert float(images.min()) >= 0
    assert float(images.max()) <= 1
    assert not labels.any()
    assert torch.isfinite(boxes).all()
