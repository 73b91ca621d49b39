"""From forecasts to a report, with predictors that know the truth."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from truths import make_agent, make_forecast, make_truth

from wm_ros.data.samples import Sample, unplanned
from wm_ros.evaluate import baselines, protocol
from wm_ros.evaluate.scores import DriveCounter, Scores
from wm_ros.evaluate.table import table
from wm_ros.types import CameraRig, FrameSet

STEP_NS = 100_000_000


def truth_at(i, seed):
    """Return two cars, one of which turns left at 5 m/s; the vehicle stands."""
    time_s = 0.1 * i
    heading = 0.3 * time_s
    x, y = 10 + 5 / 0.3 * np.sin(heading), 5 / 0.3 * (1 - np.cos(heading))
    later = heading + 0.15 * np.arange(1, 7)
    futures = np.zeros((2, 6, 3))
    futures[0, :, 0] = 10 + 5 / 0.3 * np.sin(later)
    futures[0, :, 1] = 5 / 0.3 * (1 - np.cos(later))
    futures[0, :, 2] = later
    futures[1] = (0, -10 - seed % 3, 0)
    return make_truth([[x, y, heading], [0, -10 - seed % 3, 0]], futures=futures,
                      velocities=[[5 * np.cos(heading), 5 * np.sin(heading)], [0, 0]],
                      stamp_ns=i * STEP_NS)


@dataclass
class FakeDrive:
    """A drive of `n` instants without pictures."""

    seed: int
    n: int = 31
    name: str = 'fake'
    rig: CameraRig = CameraRig(())

    def samples(self, every, first):
        for i in range(self.n):
            truth = truth_at(i, self.seed)
            scored = i >= first and (i - first) % every == 0
            yield Sample(FrameSet(i * STEP_NS, {}), truth.ego, truth if scored else None, None)


class Oracle:
    """A predictor that answers with the truth's futures in its third mode."""

    def __init__(self, seed, score=0.9, valid=True):
        self.seed, self.score, self.valid, self.sets = seed, score, valid, 0

    def reset(self, reason):
        self.sets = 0

    def encode(self, frames, ego):
        self.stamp_ns, self.sets = frames.stamp_ns, self.sets + 1

    def forecast(self, plan):
        truth = truth_at(self.stamp_ns // STEP_NS, self.seed)
        agents = []
        for i in range(2):
            paths = np.zeros((6, 6, 2)) + 100.0
            paths[2] = truth.futures[i, :, :2]
            agents.append(replace(
                make_agent(truth.poses[i, :2], self.score, truth.poses[i, 2], truth.velocities[i],
                           paths, [0.3, 0.3, 0.1, 0.1, 0.1, 0.1]), track_id=bytes([i] * 16)))
        return make_forecast(agents, stamp_ns=self.stamp_ns, valid=self.valid)


def new_counter():
    """Make a counter for a worker."""
    return DriveCounter(0.5)


def open_oracle(rig):
    """Open a predictor for a worker."""
    return Oracle(0)


def scores_of(predictors):
    """Score one drive a predictor."""
    counters = []
    for predictor in predictors:
        task = protocol.Task(FakeDrive, lambda rig: predictor, new_counter)  # noqa: B023
        counters += protocol.evaluate(task, [predictor.seed])
    return Scores(counters, [f'drive {predictor.seed}' for predictor in predictors])


def test_a_forecast_every_half_second_from_the_first_whole_window():
    stamps = [f.stamp_ns // STEP_NS for f, _ in protocol.forecasts(Oracle(0), FakeDrive(0))]
    assert stamps == [15, 20, 25, 30]


def test_a_drive_may_keep_its_plan_to_itself():
    class Noting(Oracle):
        plans = ()

        def forecast(self, plan):
            self.plans += (plan,)
            return super().forecast(plan)

    class Planned(FakeDrive):
        def samples(self, every, first):
            return (replace(sample, plan='given') for sample in super().samples(every, first))

    told, untold = Noting(0), Noting(0)
    assert [f.stamp_ns for f, _ in protocol.forecasts(told, Planned(0))] == [
        f.stamp_ns for f, _ in protocol.forecasts(untold, unplanned(Planned, 0))]
    assert set(told.plans) == {'given'} and set(untold.plans) == {None}
    assert (unplanned(Planned, 3).name, unplanned(Planned, 3).rig) == ('fake', CameraRig(()))


def test_a_right_path_among_six_is_found_and_none_among_one():
    report = scores_of([Oracle(0), Oracle(1)]).report()
    assert report['spa_top6'] == 100.0
    assert report['spa_top1'] == 0.0
    assert report['precision'] == report['recall'] == report['epa'] == 1.0
    assert report['ci']['spa_top6'] == [100.0, 100.0]
    assert (report['n_drives'], report['n_forecasts'], report['n_agents']) == (2, 8, 16)
    assert report['mix']['turning'] == 0.5
    assert report['mix']['standing'] == 0.5


def test_baselines_and_oracles_stand_beside_the_model():
    report = scores_of([Oracle(0), Oracle(1)]).report()
    # A circle of 16.7 m: straight on is 6 m off after 3 s; standing cars are right.
    assert report['baselines']['constant_velocity']['spa_top1'] == 50.0
    assert report['oracle_cv_spa'] == 50.0
    # The turn rate needs a forecast before: the first of four goes straight.
    assert report['baselines']['constant_turn_rate']['spa_top1'] == pytest.approx(87.5)
    assert report['oracles']['oracle_constant_turn_rate']['spa_top1'] == pytest.approx(87.5)
    assert report['baselines']['static']['iou_far']['0'] > 0
    lead = report['differences']['constant_velocity']
    assert lead['spa_top6']['3']['mean'] == pytest.approx(50.0)
    assert lead['spa_top6']['3']['excludes_zero']
    # After 1 s straight on is 0.7 m off.
    assert lead['spa_top6']['1']['mean'] == 0.0
    assert lead['spa_top6']['manoeuvring_3']['mean'] == 100.0
    assert lead['spa_top1']['3']['mean'] == -50.0


def test_invalid_forecasts_are_counted_and_find_nothing():
    report = scores_of([Oracle(0, valid=False)]).report()
    assert report['n_invalid'] == 4
    assert report['recall'] == 0.0
    assert report['precision'] is None
    assert report['covariance_coverage']['50']['3'] is None


def test_the_worst_drive_comes_first():
    rows = scores_of([Oracle(0), Oracle(1, score=0.1)]).report()['drives']
    assert [(row['drive'], row['spa_top6'], row['n_agents']) for row in rows] == [
        ('drive 1', 0.0, 8), ('drive 0', 100.0, 8)]


def test_the_report_is_json_with_the_promised_keys():
    report = scores_of([Oracle(0)]).report()
    again = json.loads(json.dumps(report, allow_nan=False))
    assert again == report
    for key in ('vpq', 'spa_top6', 'spa_top1', 'spa_top6_50m', 'spa_top6_moving', 'precision',
                'recall', 'epa', 'oracle_cv_spa', 'min_ade_6', 'min_fde_6', 'miss_rate_6',
                'iou_near', 'iou_far', 'soft_iou', 'brier', 'ece', 'covariance_coverage', 'ci',
                'n_drives', 'n_agents'):
        assert key in report
    assert list(report['iou_far']) == ['0', '0.5', '1', '1.5', '2', '2.5', '3']


def test_curves_and_intervals_have_the_shape_of_what_they_are_of():
    report = scores_of([Oracle(0), Oracle(1)]).report()
    curve = report['curves']['precision_recall']
    assert (curve['threshold'], curve['recall'], curve['precision']) == ([0.9], [1.0], [1.0])
    assert report['ci']['iou_near'].keys() == report['iou_near'].keys()
    assert report['ci']['spa_top6_by_range']['10-20']['all'] == [100.0, 100.0]
    assert report['ci']['spa_top6_by_range']['30-40']['all'] == [None, None]
    assert report['ci']['covariance_coverage']['90']['3'] == [
        report['covariance_coverage']['90']['3']] * 2
    assert (report['n_tracks'], report['n_agents_by_group']['car']) == (4, 16)


def test_two_models_are_compared_over_the_same_drives():
    good, bad = scores_of([Oracle(0), Oracle(1)]), scores_of([Oracle(0), Oracle(1, score=0.1)])
    found = good.against(bad)
    # The other one finds nothing in the second of two equal drives.
    assert (found['spa_top6']['this'], found['spa_top6']['other']) == (100.0, 50.0)
    assert found['spa_top6']['difference'] == 50.0
    # A draw may hold the first drive alone, or the second.
    assert (found['spa_top6']['low'], found['spa_top6']['high']) == (0.0, 100.0)
    assert not found['spa_top6']['excludes_zero']
    assert found['recall']['ratio'] == 2.0
    assert found['precision']['difference'] == 0.0
    same = good.against(good)
    assert all(row['difference'] in (0.0, None) and not row['excludes_zero']
               for row in same.values())
    # A draw in which the other has nothing has no ratio, so the interval of all has none.
    nothing = good.against(scores_of([Oracle(0, score=0.1), Oracle(1, score=0.1)]))['epa']
    assert nothing['difference'] == 1.0 and nothing['ratio_low'] is nothing['ratio_high'] is None
    with pytest.raises(ValueError, match='2 and 1 drives that are not the same'):
        good.against(scores_of([Oracle(0)]))


def test_two_processes_count_what_one_counts():
    task = protocol.Task(FakeDrive, open_oracle, new_counter)
    done = []
    one = Scores(protocol.evaluate(task, [0, 3])).report()
    two = Scores(protocol.evaluate(task, [0, 3], workers=2,
                                   progress=lambda n, of: done.append((n, of)))).report()
    assert one == two
    assert done == [(1, 2), (2, 2)]


def test_the_table_fits_a_terminal_and_shows_the_headline():
    text = table(scores_of([Oracle(0), Oracle(1)]).report())
    assert max(map(len, text.splitlines())) <= 110
    lines = text.splitlines()
    headline = next(line for line in lines if line.startswith('SPA top-6, 30 m'))
    assert headline.split()[4:] == ['100.0', '[100.0,', '100.0]', '50.0', '50.0', '87.5']
    after = lines[lines.index('  over oracle constant velocity') + 2]
    assert after.split()[-3:] == ['100.0', '[100.0,', '100.0]*']


def test_a_truth_of_another_stamp_is_refused():
    with pytest.raises(ValueError, match='a forecast of 5 ns'):
        DriveCounter(0.5).add(make_forecast(stamp_ns=5), make_truth([[0, 0, 0]]))


def test_an_invalid_forecast_says_nothing_of_flow():
    truth = make_truth([[5, 0, 0]], velocities=[[6.0, 0]])
    told = make_forecast(valid=False)
    errors = []
    for flow in (told.flow, told.flow + 9.0):
        counter = DriveCounter(0.5)
        counter.add(replace(told, flow=flow), truth)
        errors.append(Scores([counter]).report()['flow_epe_m'])
    assert errors[0] == errors[1] and set(errors[0].values()) == {3.0}     # all of it, both times


def test_nothing_to_score_is_refused():
    with pytest.raises(ValueError, match='at least one drive, got none'):
        protocol.evaluate(protocol.Task(FakeDrive, open_oracle, new_counter), [])
    with pytest.raises(ValueError, match='got none'):
        Scores([DriveCounter(0.5)])


def test_turn_rates_start_anew_with_each_drive():
    turns = baselines.TurnRates()
    turns.update(0, [1], np.array([0.0]), 0.0)
    turns.reset()
    assert turns.update(STEP_NS, [1], np.array([0.2]), 0.0)[0] == 0.0
