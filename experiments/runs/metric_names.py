"""Columns of ``metrics.csv`` as people say them."""

PARTS = {"train": "training", "val": "validation", "test": "test"}
SAID = {
    "activation_lambda": "λ",
    "lr": "learning rate",
    "top1": "top-1",
    "top5": "top-5",
    "map": "mAP",
    "miou": "mIoU",
    "ap": "AP",
    "mask_ap": "mask AP",
    "iou": "IoU",
    # torchvision's names for the parts of a detector's loss
    "loss_classifier": "loss of the classes",
    "classification": "loss of the classes",
    "loss_box_reg": "loss of the boxes",
    "bbox_regression": "loss of the boxes",
    "loss_objectness": "loss of the proposals' objectness",
    "loss_rpn_box_reg": "loss of the proposals' boxes",
}


def metric_name(column: str) -> str:
    """``val/top1`` is ``validation top-1``, and ``test/ap/cat`` is ``test AP of cat``."""
    part, slash, name = column.partition("/")
    kind, _, of = (name if slash else part).partition("/")
    said = SAID.get(kind, kind.replace("_", " ")) + (f" of {of}" if of else "")
    return f"{PARTS.get(part, part.replace('_', ' '))} {said}" if slash else said
