"""The classifier head of networks that end in a map: mean over the pixels, dropout, linear layer."""

from __future__ import annotations

from torch import Tensor, nn


class PooledHead(nn.Module):
    """A base class of networks with a linear classifier ``fc``, and maybe ``dropout`` before it."""

    num_features: int
    """Channels of the last map."""
    dropout: nn.Dropout
    fc: nn.Module

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, num_features, H', W') -> logits (N, num_classes), or with ``pre_logits`` what the classifier gets."""
        x = x.mean((2, 3))
        if hasattr(self, "dropout"):
            x = self.dropout(x)
        return x if pre_logits else self.fc(x)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.fc

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a new one of ``num_classes`` classes; 0 removes it."""
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
