"""The drawings of docs/metrics.md."""

from __future__ import annotations

import numpy as np

from pipelines.prediction.box_iou import box_iou
from tests.documentation.svg import Drawing


def draw_mask_iou() -> Drawing:
    """Intersection and union of a predicted mask and a target mask."""
    drawing = Drawing(460, 190, "A predicted mask P and a target mask T overlap: IoU is P ∩ T divided by P ∪ T")
    drawing.ellipse(105, 90, 75, 55, "target")
    drawing.ellipse(155, 105, 75, 55, "predicted")
    drawing.text(52, 80, "T", "bold")
    drawing.text(200, 120, "P", "bold")
    drawing.text(112, 103, "P ∩ T", "bold")
    drawing.text(262, 62, "IoU  =  P ∩ T  ÷  P ∪ T", "bold")
    drawing.rect(262, 84, 22, 14, "target", 2)
    drawing.text(294, 96, "target mask T", "soft")
    drawing.rect(262, 110, 22, 14, "predicted", 2)
    drawing.text(294, 122, "predicted mask P", "soft")
    drawing.text(262, 148, "P ∪ T: all pixels of either", "soft")
    return drawing


def draw_grefcoco_outcomes() -> Drawing:
    """The four outcomes of gRefCOCO, and what each adds."""
    drawing = Drawing(480, 384, "gRefCOCO: what each of the four outcomes adds to gIoU and cIoU")
    columns = (("predicted empty", 110), ("not predicted empty", 300))
    for title, x in columns:
        drawing.text(x + 80, 26, title, "bold", "middle")
    drawing.text(54, 104, "no target", "bold", "middle")
    drawing.text(54, 274, "target", "bold", "middle")
    cells = (
        (110, 38, False, False, "IoU 1", "I + 0, U + 0"),
        (300, 38, False, True, "IoU 0", "I + 0, U + P"),
        (110, 208, True, False, "IoU 0", "I + 0, U + P ∪ T"),
        (300, 208, True, True, "IoU P∩T ÷ P∪T", "I + P∩T, U + P∪T"),
    )
    for x, y, has_target, predicts, iou, sums in cells:
        drawing.rect(x, y, 160, 100, "frame")
        if has_target:
            drawing.ellipse(x + 66, y + 50, 42, 32, "target")
        if predicts:
            drawing.ellipse(x + 94, y + 54, 42, 30, "predicted")
        else:
            drawing.text(x + 80, y + 55, "“no target”", "bold", "middle")
        drawing.text(x + 80, y + 120, iou, "bold", "middle")
        drawing.text(x + 80, y + 140, sums, "soft", "middle")
    drawing.text(240, 372, "gIoU: mean of IoU.   cIoU: sum of I ÷ sum of U.", "soft", "middle")
    return drawing


def draw_box_matching() -> Drawing:
    """Boxes matched one to one; one predicted box is left over."""
    drawing = Drawing(
        480, 246, "Predicted and target boxes are matched one to one; one predicted box too many: F1 is below 1"
    )
    drawing.rect(20, 20, 270, 200, "frame")
    targets = np.array([[40, 50, 120, 130], [170, 40, 250, 120]], dtype=float)
    predictions = np.array([[50, 58, 134, 136], [162, 46, 246, 124], [150, 150, 234, 210]], dtype=float)
    for boxes, kind in ((targets, "outline-target"), (predictions, "outline-predicted")):
        for x0, y0, x1, y1 in boxes.tolist():
            drawing.rect(x0, y0, x1 - x0, y1 - y0, kind, 1)
    for pair, (x0, y0, x1, y1) in enumerate(targets.tolist()):
        iou = box_iou(predictions, targets)[pair, pair]
        drawing.text((x0 + x1) / 2, (y0 + y1) / 2 + 5, f"IoU {iou:.2f}", "soft", "middle")
    drawing.text(192, 186, "no partner", "soft", "middle")
    drawing.rect(312, 34, 22, 14, "outline-target", 1)
    drawing.text(344, 46, "2 target boxes", "soft")
    drawing.rect(312, 60, 22, 14, "outline-predicted", 1)
    drawing.text(344, 72, "3 predicted boxes", "soft")
    drawing.text(312, 112, "TP 2, FP 1, FN 0", "bold")
    drawing.text(312, 138, "F1 = 2·2 ÷ (2·2 + 1)", "soft")
    drawing.text(312, 160, "= 0.8: not right", "soft")
    drawing.text(312, 196, "F1score: share of", "soft")
    drawing.text(312, 214, "expressions with F1 = 1", "soft")
    return drawing


def draw_rrefcoco_ref() -> Drawing:
    """One ref of R-RefCOCO: two positive and three negative sentences."""
    drawing = Drawing(
        500, 300, "A ref of R-RefCOCO: positive sentences give intersections and unions, negative ones false pixels"
    )
    drawing.text(16, 28, "positive sentences", "bold")
    drawing.text(16, 148, "negative sentences", "bold")
    for column in range(2):
        x = 16 + 100 * column
        drawing.rect(x, 40, 88, 70, "frame")
        drawing.ellipse(x + 40, 75, 26, 22, "target")
        drawing.ellipse(x + 48 - 4 * column, 78, 24, 20, "predicted")
        drawing.text(x + 44, 126, f"I{'₁₂'[column]}, U{'₁₂'[column]}", "soft", "middle")
    for column, predicts in enumerate((False, True, False)):
        x = 16 + 100 * column
        drawing.rect(x, 160, 88, 70, "frame")
        if predicts:
            drawing.ellipse(x + 40, 198, 24, 18, "predicted")
        else:
            drawing.text(x + 44, 199, "“none”", "bold", "middle")
        drawing.text(x + 44, 246, "false pixels P" if predicts else "right", "soft", "middle")
    drawing.text(322, 76, "mIoU: mean of", "soft")
    drawing.text(322, 96, "I₁ ÷ U₁ and I₂ ÷ U₂", "soft")
    drawing.text(322, 186, "mRR: 2 of 3 right", "soft")
    drawing.text(16, 282, "rIoU = (I₁ + I₂) ÷ (U₁ + U₂ + P)", "bold")
    return drawing


DRAWINGS = {
    "mask-iou.svg": draw_mask_iou,
    "grefcoco-outcomes.svg": draw_grefcoco_outcomes,
    "box-matching.svg": draw_box_matching,
    "rrefcoco-ref.svg": draw_rrefcoco_ref,
}
