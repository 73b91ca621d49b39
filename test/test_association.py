"""Ids that stay with their road users, the same every time."""

import numpy as np

from wm_ros.association import NS, Associator
from wm_ros.geometry import relative_pose

CAR, PEDESTRIAN = np.eye(8)[0], np.eye(8)[6]


def step(associator, seconds, xy, velocity=None, classes=None, odom=(0.0, 0.0, 0.0), ask=False):
    xy = np.array(xy, dtype=float).reshape(-1, 2)
    velocity = np.zeros_like(xy) if velocity is None else np.array(velocity, dtype=float)
    classes = np.tile(CAR, (len(xy), 1)) if classes is None else np.array(classes)
    call = associator.match if ask else associator.update
    return call(round(seconds * NS), None if odom is None else np.array(odom), xy, velocity,
                classes)


def test_two_that_cross_keep_their_ids():
    associator = Associator()
    ids = [step(associator, 0.1 * i, [[10 + i, 0.5], [30 - i, -0.5]], [[10, 0], [-10, 0]])
           for i in range(20)]
    assert len({tuple(pair) for pair in ids}) == 1
    assert ids[0][0] != ids[0][1]


def test_order_of_rows_does_not_move_ids():
    associator = Associator()
    first = step(associator, 0.0, [[10, 0], [20, 0], [30, 0]])
    again = step(associator, 0.1, [[30, 0], [10, 0], [20, 0]])
    assert again == [first[2], first[0], first[1]]


def test_a_parked_car_keeps_its_id_while_the_ego_vehicle_moves():
    # 30 m/s: in base_link the parked car moves by 3 m a frame, in odom not at all.
    associator = Associator()
    ids, places = set(), []
    for i in range(10):
        odom = np.array([3.0 * i, 1.0, 0.3])
        places.append(relative_pose(odom, np.array([25.0, 8.0, 0.0]))[:2])
        ids.add(step(associator, 0.1 * i, [places[-1]], odom=odom)[0])
    assert len(ids) == 1
    np.testing.assert_allclose(np.hypot(*np.diff(places, axis=0).T), 3.0)
    without = Associator()
    assert len({step(without, 0.1 * i, [place], odom=None)[0]
                for i, place in enumerate(places)}) == 10


def test_a_short_loss_keeps_the_id_and_a_long_one_does_not():
    associator = Associator()
    (car,) = step(associator, 0.0, [[10, 0]], [[10, 0]])
    assert step(associator, 0.5, []) == []
    assert step(associator, 0.9, [[19, 0]], [[10, 0]]) == [car]
    assert step(associator, 2.0, [[30, 0]], [[10, 0]], ask=True) != [car]
    assert step(associator, 2.0, [[30, 0]], [[10, 0]]) != [car]


def test_far_is_another_one():
    associator = Associator()
    (car,) = step(associator, 0.0, [[10, 0]])
    assert step(associator, 0.1, [[12.5, 0]]) != [car]      # 2.5 m for a car that stood


def test_class_decides_between_near_ones():
    associator = Associator()
    car, walker = step(associator, 0.0, [[10, 0], [10, 1.5]], classes=[CAR, PEDESTRIAN])
    # Both moved towards the middle: the nearest by place alone would be a tie.
    assert step(associator, 0.1, [[10, 0.75], [10, 0.76]],
                classes=[PEDESTRIAN, CAR]) == [walker, car]


def test_the_same_input_gives_the_same_ids():
    rng = np.random.default_rng(4)
    runs = []
    for _ in range(2):
        associator, rng = Associator(), np.random.default_rng(4)
        runs.append([step(associator, 0.1 * i, rng.uniform(-40, 40, (12, 2)))
                     for i in range(10)])
    assert runs[0] == runs[1]
    everyone = {track_id for ids in runs[0] for track_id in ids}
    assert all(len(track_id) == 16 for track_id in everyone) and len(everyone) > 50


def test_asking_changes_nothing():
    plain, asked = Associator(), Associator()
    for i in range(5):
        wanted = step(plain, 0.1 * i, [[10 + i, 0], [-5, 3]], [[10, 0], [0, 0]])
        assert step(asked, 0.1 * i, [[10 + i, 0], [-5, 3]], [[10, 0], [0, 0]]) == wanted
        # A what-if plan of the same stamp, with one agent more.
        also = step(asked, 0.1 * i, [[10 + i, 0], [-5, 3], [0, 40]], ask=True)
        assert also[:2] == wanted and also[2] not in wanted
        # A second forecast of the same stamp.
        assert step(asked, 0.1 * i, [[10 + i, 0], [-5, 3]], [[10, 0], [0, 0]]) == wanted


def test_a_new_start_begins_anew():
    associator = Associator()
    first = step(associator, 1.0, [[10, 0]])
    step(associator, 1.1, [[10, 0], [20, 0]])
    associator.reset()
    assert step(associator, 1.0, [[10, 0]]) == first
    associator.reset()
    assert step(associator, 5.0, [[10, 0]]) != first


def test_ids_are_uuids_of_version_8():
    (track_id,) = step(Associator(), 0.0, [[0, 0]])
    assert track_id[6] >> 4 == 8 and track_id[8] >> 6 == 0b10
