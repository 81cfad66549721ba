"""README.md of an exported network: what is known of it, and what its owner has to add."""

from __future__ import annotations

import json
from typing import Any

from experiments.export.subject import Subject
from lit_models.cost import count_macs, count_parameters


def model_card(subject: Subject, name: str) -> str:
    """A model card of the Hugging Face hub, made from the run."""
    card = subject.card
    channels, height, width = subject.images.shape[1:]
    rows = {
        "network": f"`{name}`",
        "parameters": f"{count_parameters(subject.net):,}",
        "multiply-adds per image": f"{count_macs(subject.net, (channels, height, width)):,}",
        "images": f"{channels} × {height} × {width}, prepared as `preprocess.json` says",
        "classes": ", ".join(subject.trained.class_names[:25]) + " …" * (len(subject.trained.class_names) > 25),
        "training data": _of(card, "data", "data_fingerprint", "train_images"),
        **_accuracies(card),
        "code": f"commit {card.get('commit') or 'unknown'}{' with changes' * bool(card.get('dirty'))}",
    }
    if "merge" in card:
        rows["largest change of a logit by the merge"] = f"{card['merge']:.1e}, on {len(subject.images)} images"
    lines = [
        "---",
        "license: other  # to be filled in",
        "library_name: timm",
        "pipeline_tag: image-classification",
        "tags: [image-classification, timm, fathom]",
        "---",
        "",
        f"# {name}",
        "",
        "| | |",
        "| --- | --- |",
        *(f"| {left} | {right.replace('|', '¦')} |" for left, right in rows.items()),
        "",
        "Licence: to be filled in by whoever publishes it; that of the training images may restrict it.",
        "",
        "```python",
        "from network import Network  # of this folder",
        "",
        'net = Network.from_pretrained(".").eval()',
        "```",
        "",
    ]
    if recipe := card.get("recipe"):
        lines += ["## Recipe", "", "```yaml", recipe.strip(), "```", ""]
    return "\n".join(lines)


def _accuracies(card: dict[str, Any]) -> dict[str, str]:
    """Top-1 with its 95% interval, where the number of images is known."""
    from scipy.stats import binomtest

    rows = {}
    for name, (share, images) in card.get("accuracies", {}).items():
        low, high = binomtest(round(share * images), images).proportion_ci(method="wilson")
        rows[name] = f"{share:.2%} of {images:,} images (95% interval {low:.2%} to {high:.2%})"
    return rows


def _of(card: dict[str, Any], *names: str) -> str:
    known = [f"{name} {json.dumps(card[name], ensure_ascii=False)}" for name in names if name in card]
    return ", ".join(known) or "unknown"
