"""What a detector is given and what it returns, image by image."""

from __future__ import annotations

from torch import Tensor

Targets = list[dict[str, Tensor]]
"""Of each image: ``boxes`` (M, 4), as x1, y1, x2, y2 in pixels of the canvas, and ``labels`` int64 (M,), 0 … K − 1.
Where they have masks, ``masks`` uint8 (M, H, W) on the canvas, 1 in the object."""
Detections = list[dict[str, Tensor]]
"""Of each image, the best first: ``boxes`` (M, 4), ``scores`` (M,) in [0, 1] and ``labels`` int64 (M,); of a network
that finds masks, ``masks`` (M, 1, S, S) in [0, 1], each of which fills its box."""
Losses = dict[str, Tensor]
"""The parts of the loss by name; their sum is minimised."""
