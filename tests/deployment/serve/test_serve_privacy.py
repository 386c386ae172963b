"""What a server learns unless it is told otherwise, and what it says where a fleet is too small for that."""

from pathlib import Path

import pytest

from deployment.command import Enrolment, enroll
from deployment.enrolment_key import ENROLMENT
from deployment.serve.checks import check_start
from deployment.serve.privacy import Sums
from deployment.serve.settings import ServeSettings
from personalization.errors import UserError
from server.sampling import sample_size
from strategies.privacy.settings import PrivacySettings
from strategies.secure_aggregation.settings import SMALLEST_COHORT


def settings(fleet: Path = Path("/fleet"), **changes) -> ServeSettings:
    chosen = {"fleet": fleet, "state": Path("/state"), "model": "m", "host": "127.0.0.1", "port": 21460}
    return ServeSettings(**{**chosen, "superlink_port": 21461, "status": None, **changes})


@pytest.mark.parametrize(
    ("strategy", "mode"), [("precision-weighted-mean", "sum"), ("median", "cohorts"), ("mean", "cohorts")]
)
def test_sums_are_the_default_and_the_strategy_decides_how_many(strategy, mode):
    found = settings(strategy=strategy)
    run = found.server_settings()
    assert (found.secure_mode, run.secure_aggregation, found.public()["secure_aggregation"]) == (mode, mode, mode)
    assert (run.smallest_cohort, run.cohort_size) == (SMALLEST_COHORT, SMALLEST_COHORT)
    changed = settings(strategy=strategy, smallest_cohort=25).server_settings()
    assert (changed.smallest_cohort, changed.cohort_size) == (25, 25)


def test_a_strategy_that_places_devices_is_served_in_the_open_only_if_somebody_says_so():
    with pytest.raises(UserError, match="say so with --secure-aggregation off"):
        settings(strategy="clustered:groups=2")
    assert settings(strategy="clustered:groups=2", secure_aggregation="off").secure_mode == "off"


@pytest.mark.parametrize("smallest", [2, 0, 1 << 20])
def test_a_size_of_sums_that_protects_nobody_is_refused(smallest):
    with pytest.raises(UserError, match="smallest cohort: expected 3 to"):
        settings(smallest_cohort=smallest)


@pytest.mark.parametrize("fraction", [1.0, 0.5, 0.3, 0.07])
@pytest.mark.parametrize("smallest", [3, 10])
def test_a_round_waits_for_as_many_as_a_sum_takes_and_not_one_more(fraction, smallest):
    sums = Sums(settings(fraction=fraction, smallest_cohort=smallest), devices=1000)
    assert sample_size(sums.fewest, fraction) >= smallest > sample_size(sums.fewest - 1, fraction)
    assert sums.resolved().min_nodes == sums.fewest
    assert sums.resolved().server_settings().min_nodes == sums.fewest


def test_a_strategy_of_several_rows_waits_for_as_many_cohorts():
    chosen = {"strategy": "krum:attackers=2", "smallest_cohort": 4}
    rows = Sums(settings(**chosen), devices=1000).rows
    assert rows > 2
    assert Sums(settings(**chosen), devices=1000).fewest == 4 * rows


def test_a_fleet_too_small_for_a_sum_is_served_without_waiting_and_the_reason_is_said():
    sums = Sums(settings(), devices=SMALLEST_COHORT - 1)
    assert (sums.enough, sums.min_nodes) == (False, 1)
    first, noise, warning = sums.lines()
    assert noise == "differential privacy: none"
    assert f"the sum of {SMALLEST_COHORT} devices or more" in first
    assert f"{SMALLEST_COHORT - 1} devices enrolled" in warning
    assert "--smallest-cohort" in warning
    large = Sums(settings(), devices=SMALLEST_COHORT)
    assert (large.enough, len(large.lines())) == (True, 2)
    assert Sums(settings(min_nodes=4), devices=3).min_nodes == 4


def test_a_server_that_sees_each_device_says_so():
    sums = Sums(settings(secure_aggregation="off"), devices=1)
    assert (sums.enough, sums.min_nodes) == (True, 1)
    assert "sees the statistics of each device" in sums.lines()[0]


def test_a_fleet_enrolled_by_an_earlier_version_gets_one_line(tmp_path):
    fleet = tmp_path / "fleet"
    enroll(fleet, Enrolment(server="localhost:8443"))
    (fleet / ENROLMENT).unlink()
    with pytest.raises(UserError, match="fedsieve enroll FLEET") as raised:
        check_start(settings(fleet))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("secure", ["sum", "off"])
def test_the_noise_that_a_run_adds_is_said_at_the_start(secure):
    privacy = PrivacySettings(mode="central", epsilon=3.5, delta=1e-6, clip=0.3)
    found = Sums(settings(privacy=privacy, secure_aggregation=secure), devices=1000).lines()
    assert found[1] == "differential privacy: epsilon 3.5, delta 1e-06, central noise, of a device in one run"
