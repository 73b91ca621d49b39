"""Each formula of occupancy and of its instances on values worked out by hand."""

import numpy as np
import pytest
from truths import make_agent, make_forecast, make_truth

from wm_ros.evaluate import occupancy, panoptic
from wm_ros.evaluate.agents import Detections
from wm_ros.types import OUTPUT_GRID


def occupancy_of(forecast, truth):
    """Return the occupancy rates of one forecast."""
    occupied, scored = occupancy.truth_occupancy(truth)
    return occupancy.occupancy_scores(
        occupancy.count_occupancy(forecast.occupancy_agents, occupied, scored))


def test_iou_by_hand():
    # Truth: 2 x 1 m = 8 cells. Called: the same row pair shifted by 2 of 4 columns: 4 of 12.
    truth = make_truth([[1.0, 0.5, 0.0]], sizes=[[2.0, 1.0, 1.5]])
    codes = np.zeros((7, 200, 200), np.uint8)
    codes[:, 100:102, 102:106] = 254
    got = occupancy_of(make_forecast(occupancy=codes), truth)
    np.testing.assert_allclose(got['iou_near'], 100 * 4 / 12)
    np.testing.assert_allclose(got['iou_far'], 100 * 4 / 12)
    assert got['iou_far_to_2s'] == pytest.approx(100 * 4 / 12)


def test_near_leaves_out_what_lies_beyond_fifteen_metres():
    truth = make_truth([[1.0, 0.5, 0.0], [20.0, 0.5, 0.0]], sizes=[[2, 1, 1]] * 2)
    codes = np.zeros((7, 200, 200), np.uint8)
    codes[:, 100:102, 100:104] = 200
    got = occupancy_of(make_forecast(occupancy=codes), truth)
    np.testing.assert_allclose(got['iou_near'], 100.0)
    np.testing.assert_allclose(got['iou_far'], 50.0)


def test_half_is_occupied_and_unobserved_is_not():
    truth = make_truth([[1.0, 0.5, 0.0]], sizes=[[2.0, 1.0, 1.5]])
    for code, want in ((127, 100.0), (126, 0.0), (255, 0.0)):
        codes = np.zeros((7, 200, 200), np.uint8)
        codes[:, 100:102, 100:104] = code
        got = occupancy_of(make_forecast(occupancy=codes), truth)
        np.testing.assert_allclose(got['iou_near'], want)


def test_soft_iou_brier_and_ece_by_hand():
    # 8 occupied cells said with 0.5, everything else 0: sum p y = 4, sum p + y - p y = 4 + 8 - 4.
    truth = make_truth([[1.0, 0.5, 0.0]], sizes=[[2.0, 1.0, 1.5]])
    codes = np.zeros((7, 200, 200), np.uint8)
    codes[:, 100:102, 100:104] = 127
    got = occupancy_of(make_forecast(occupancy=codes), truth)
    np.testing.assert_allclose(got['soft_iou_near'], 0.5)
    assert got['brier'] == pytest.approx(8 * 0.25 / 40000)
    assert got['ece'] == pytest.approx(8 * 0.5 / 40000)
    assert got['pr_auc'] == pytest.approx(1.0)


def test_cells_under_hidden_agents_are_not_scored():
    truth = make_truth([[1.0, 0.5, 0.0], [5.0, 0.5, 0.0]], sizes=[[2, 1, 1]] * 2,
                       visible=[True, False])
    codes = np.zeros((7, 200, 200), np.uint8)
    codes[:, 100:102, 100:112] = 254  # both, and 8 free cells between them
    got = occupancy_of(make_forecast(occupancy=codes), truth)
    np.testing.assert_allclose(got['iou_near'], 100 * 8 / 16)


def test_a_step_with_an_unknown_pose_is_not_scored():
    futures = np.zeros((1, 6, 3))
    futures[0, 3:] = np.nan
    got = occupancy_of(make_forecast(), make_truth([[0, 0, 0]], futures=futures))
    assert got['iou_far'][3] == 0.0
    assert np.isnan(got['iou_far'][4:]).all()


def test_flow_error_by_hand():
    truth = make_truth([[1.0, 0.5, 0.0]], sizes=[[2, 1, 1]], velocities=[[4.0, 0.0]])
    flow = np.zeros((7, 2, 200, 200), np.float32)
    flow[:, 0] = -2.0
    flow[:, 1] = 1.5
    counts = occupancy.count_flow(flow, truth)
    np.testing.assert_allclose(counts['flow_error'] / counts['flow_cells'], 1.5)


def test_the_near_extent_is_sixty_cells_around_the_vehicle():
    rows, cols = occupancy.extent(30.0)
    assert (rows.start, rows.stop, cols.start, cols.stop) == (70, 130, 70, 130)
    assert OUTPUT_GRID.x_min_m + rows.start * OUTPUT_GRID.cell_m == -15.0


def panoptic_of(predicted, true, scored=None):
    """Return sum of IoU, TP, FP, FN in the far extent."""
    scored = np.ones(predicted.shape, bool) if scored is None else scored
    return panoptic.count_panoptic(predicted, true, scored)['panoptic'][1].tolist()


def test_panoptic_counts_by_hand():
    true = np.zeros((7, 200, 200), np.int32)
    true[:, 100:102, 100:104] = 1                      # 8 cells
    true[:, 50:52, 100:104] = 2                        # missed
    predicted = np.zeros_like(true)
    predicted[:, 100:102, 100:103] = 7                 # 6 of 8: IoU 0.75
    predicted[:, 10:12, 10:12] = 8                     # invented
    assert panoptic_of(predicted, true) == [7 * 0.75, 7, 7, 7]
    counts = panoptic.count_panoptic(predicted, true, np.ones(true.shape, bool))
    assert panoptic.panoptic_scores(counts)['vpq_far'] == pytest.approx(100 * 0.75 / 2)


def test_a_changed_number_is_wrong_once():
    true = np.zeros((7, 200, 200), np.int32)
    true[:, 100:102, 100:104] = 1
    predicted = true * 5
    predicted[3:] = true[3:] * 6
    # Six steps are right; at the fourth it is both missed and invented.
    assert panoptic_of(predicted, true) == [6, 6, 1, 1]


def test_half_an_overlap_is_not_enough_and_unscored_cells_belong_to_nothing():
    true = np.zeros((7, 200, 200), np.int32)
    true[:, 100:102, 100:104] = 1
    predicted = np.zeros_like(true)
    predicted[:, 100:102, 100:102] = 1
    assert panoptic_of(predicted, true) == [0, 0, 7, 7]
    scored = np.ones(true.shape, bool)
    scored[:, :, 102:] = False
    scored[6] = False
    assert panoptic_of(predicted, true, scored) == [6, 6, 0, 0]


def test_instances_follow_the_flow():
    # Two cars side by side drive on at 14 m/s: 7 m a step, more than their length.
    truth = make_truth([[0, 3, 0], [0, -3, 0]], velocities=[[14, 0], [14, 0]])
    detections = Detections.of(make_forecast([make_agent((0, 3)), make_agent((0, -3))]))
    true = panoptic.instances_of_truth(truth)
    flow = np.zeros((7, 2, 200, 200))
    flow[:, 0] = -7.0
    codes = np.where(true > 0, 254, 0).astype(np.uint8)
    ids = panoptic.instances_of_flow(codes, flow, detections)
    np.testing.assert_array_equal(ids, true)
    # Without flow they appear out of nothing, under new numbers, at every step.
    lost = panoptic.instances_of_flow(codes, 0 * flow, detections)
    assert len(np.unique(lost[6][lost[6] > 0])) == 2
    overlap, right, invented, missed = panoptic_of(lost, true)
    assert (right, invented, missed) == (2, 12, 12)


def test_cells_far_from_any_box_are_instances_of_their_own():
    codes = np.zeros((7, 200, 200), np.uint8)
    codes[0, 100:102, 100:104] = 254
    codes[0, 150:152, 100:104] = 254
    codes[0, 170:172, 100:104] = 254
    ids = panoptic.instances_of_flow(codes, np.zeros((7, 2, 200, 200)),
                                     Detections.of(make_forecast([make_agent((1, 0.5))])))
    assert [int(ids[0, r, 101]) for r in (100, 150, 170)] == [1, 2, 3]


def test_boxes_are_instances():
    truth = make_truth([[0, 3, 0], [0, -3, 0]], velocities=[[8, 0], [8, 0]])
    detections = Detections.of(make_forecast([make_agent((0, 3)), make_agent((0, -3))]))
    boxes = panoptic.instances_of_boxes(detections, truth.futures)
    np.testing.assert_array_equal(boxes, panoptic.instances_of_truth(truth))
