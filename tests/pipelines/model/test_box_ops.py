import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.model.box_ops import box_cxcywh_to_xyxy, decode_boxes, generalized_box_iou

unit = st.floats(0, 1, width=32)


def test_corners_are_half_a_size_from_the_center():
    assert box_cxcywh_to_xyxy(torch.tensor([0.5, 0.25, 0.5, 0.125])).tolist() == [0.25, 0.1875, 0.75, 0.3125]


@settings(deadline=None)
@given(unit, unit)
def test_a_box_without_offset_lies_on_its_reference_point(x: float, y: float):
    reference = torch.tensor([[x, y]])
    box = decode_boxes(torch.tensor([[0.0, 0.0, -2.0, 0.0]]), reference)
    expected = torch.cat((reference.clamp(1e-3, 1 - 1e-3), torch.tensor([[-2.0, 0.0]]).sigmoid()), dim=1)
    torch.testing.assert_close(box, expected, rtol=0, atol=2e-6)


def test_a_reference_point_outside_of_the_image_counts_as_its_border():
    inside, outside = torch.tensor([[1.0, 0.0]]), torch.tensor([[1.9, -0.5]])
    deltas = torch.tensor([[0.3, -0.2, 0.0, 0.0]])
    assert torch.equal(decode_boxes(deltas, inside), decode_boxes(deltas, outside))
    # The logit of such a reference is ln(1 / 0.001).
    torch.testing.assert_close(
        decode_boxes(deltas, outside)[0, 0].logit(), torch.tensor(0.3 + 6.907755), rtol=0, atol=1e-3
    )


def test_generalized_iou_of_boxes_apart_counts_the_gap():
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [2.0, 0.0, 3.0, 1.0], [0.0, 0.0, 1.0, 2.0]])
    found = generalized_box_iou(boxes[:, None], boxes)
    # Hull of the first two: 3, of which 1 is not covered. First and third: half overlap, no gap.
    torch.testing.assert_close(found[0], torch.tensor([1.0, -1 / 3, 0.5]), rtol=0, atol=1e-5)
    torch.testing.assert_close(found, found.T)


def test_boxes_without_area_have_finite_gradients():
    flat = torch.full((1, 4), 0.5, requires_grad=True)
    generalized_box_iou(flat, torch.full((1, 4), 0.5)).sum().backward()
    assert flat.grad.isfinite().all()
