"""Training views of a whole batch: flip, zoom, shift and colour, drawn from one generator."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

ZOOM = 0.3
STRETCH = 0.1
COLOUR = 0.2
VISIBLE = 0.4
SMALLEST_PX = 2.0


def augment(
    pixels: Tensor, boxes: Tensor, labels: Tensor, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Images [B, 3, S, S] in [0, 1] and their boxes [B, G, 4] and labels [B, G].

    pixels [B, 3, S, S] uint8, boxes in xyxy pixels of these, labels with 0 for no object. A box of
    which less than two fifths stay in view loses its label. Takes 8 numbers an image from `rng`.
    """
    side = pixels.shape[-1]
    unit = torch.from_numpy(rng.random((len(pixels), 8))).float().to(pixels.device)
    spread = 2 * unit - 1
    sign = torch.where(unit[:, 0] < 0.5, -1.0, 1.0)
    zoom = (
        spread[:, 1:2] * ZOOM + spread[:, 2:3] * STRETCH * torch.tensor([[1.0, -1.0]]).to(unit)
    ).exp()
    room = (1 - 1 / zoom).abs()
    shift = spread[:, 3:5] * room  # of the centre, in half sides: zoomed views stay in the image

    theta = torch.zeros(len(pixels), 2, 3, device=pixels.device)
    theta[:, 0, 0] = sign / zoom[:, 0]
    theta[:, 1, 1] = 1 / zoom[:, 1]
    theta[:, :, 2] = shift
    grid = F.affine_grid(theta, [len(pixels), 3, side, side], align_corners=False)
    centred = pixels.float() / 255 - 0.5
    view = F.grid_sample(centred, grid, padding_mode="zeros", align_corners=False)
    contrast = (spread[:, 5] * COLOUR).exp()[:, None, None, None]
    bright = (spread[:, 6] * COLOUR)[:, None, None, None] / 2
    grey = view.mean(1, keepdim=True)
    colourful = (spread[:, 7] * COLOUR).exp()[:, None, None, None]
    images = ((grey + (view - grey) * colourful) * contrast + bright + 0.5).clamp(0, 1)

    moved, visible = _move(boxes / (side / 2) - 1, sign, zoom, shift)
    moved = (moved + 1) * (side / 2)
    large = ((moved[..., 2:] - moved[..., :2]) >= SMALLEST_PX).all(-1)
    return images, moved, torch.where(visible & large, labels, 0)


def _move(boxes: Tensor, sign: Tensor, zoom: Tensor, shift: Tensor) -> tuple[Tensor, Tensor]:
    """Boxes [B, G, 4] in [-1, 1], clipped to the view; [B, G] whether enough is visible."""
    corners = boxes.view(*boxes.shape[:2], 2, 2)
    corners = (corners - shift[:, None, None]) * zoom[:, None, None]
    x = corners[..., 0] * sign[:, None, None]
    x = torch.where(sign[:, None, None] < 0, x.flip(-1), x)
    corners = torch.stack([x, corners[..., 1]], -1)
    whole = (corners[:, :, 1] - corners[:, :, 0]).prod(-1)
    clipped = corners.clamp(-1, 1)
    inside = (clipped[:, :, 1] - clipped[:, :, 0]).prod(-1)
    return clipped.flatten(2), inside >= VISIBLE * whole
