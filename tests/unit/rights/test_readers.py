"""Users, groups and tokens; what a reader may see, and which packets he may take whole."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from gueststar.core.errors import AccessDenied, ConfigError
from gueststar.model.readers import ANONYMOUS, OPERATOR, Reader, Scope, Sight
from gueststar.model.rights import Program, Releases, RightsPolicy
from gueststar.services.gate import Gate, GateConfig
from gueststar.store.readers import ReaderStore, checked_groups, reader_named, reader_of
from gueststar.store.settings import Release, SurveySettings, write_settings

PUBLIC, PARTNERSHIP, PRIVATE, ENGINEERING = Program.PUBLIC, Program.PARTNERSHIP, Program.PRIVATE, Program.ENGINEERING
NIGHTS = (20251101, 20251115, 20251130)
SETTINGS = SurveySettings()
NOW = 61000.0

policies = st.builds(
    RightsPolicy,
    st.builds(
        Releases,
        st.fixed_dictionaries(
            {p: st.lists(st.tuples(st.sampled_from(NIGHTS), st.sampled_from((60990.0, 61000.0, 61010.0))), max_size=2)
             .map(tuple) for p in (PARTNERSHIP, PRIVATE)}
        ),
    ),
    st.booleans(),
)  # fmt: skip
readers = st.sets(st.sampled_from([PARTNERSHIP, PRIVATE])).map(Reader.of_programs)


@given(policy=policies, reader=readers, at=st.floats(60980.0, 61020.0), stream=st.sampled_from([PUBLIC, PARTNERSHIP, PRIVATE]))  # fmt: skip  # noqa: E501
def test_a_packet_leaves_only_to_whom_every_item_that_it_could_hold_may_be_shown(
    policy: RightsPolicy, reader: Reader, at: float, stream: Program
) -> None:
    sight = Sight(reader, policy, at)
    for night in NIGHTS:
        if not sight.packet_nights().allows(stream, day_obs=night):
            continue
        if stream in reader.programs or stream is PUBLIC:
            continue  # his own stream, as the policy builds its packets
        for item in (PUBLIC, PARTNERSHIP, PRIVATE):
            for when in (night, *[earlier for earlier in NIGHTS if earlier < night]):
                if policy.may_appear(item, in_stream=stream, item_day_obs=when, at_mjd_tai=at):
                    assert sight.may_see(item, day_obs=when)


@given(policy=policies, at=st.floats(60980.0, 61020.0))
def test_nobody_but_the_operator_sees_engineering_and_everybody_sees_no_more_than_a_partner(
    policy: RightsPolicy, at: float
) -> None:
    partner, everybody = Sight(Reader.of_programs([PARTNERSHIP]), policy, at), Sight(ANONYMOUS, policy, at)
    for night in NIGHTS:
        assert not partner.may_see(ENGINEERING, day_obs=night)
        assert Sight(OPERATOR, policy, at).may_see(ENGINEERING, day_obs=night)
        for program in (PUBLIC, PARTNERSHIP, PRIVATE):
            assert everybody.may_see(program, day_obs=night) <= partner.may_see(program, day_obs=night)
            taken = everybody.packet_nights().allows(program, day_obs=night)
            assert taken <= partner.packet_nights().allows(program, day_obs=night)
            assert taken <= everybody.may_see(program, day_obs=night)
    assert ENGINEERING not in Sight(OPERATOR, policy, at).packet_nights().last_night


def test_a_release_opens_packets_at_its_moment_and_where_items_are_shared_only_when_both_are_released() -> None:
    releases = Releases({PARTNERSHIP: ((20251115, 61000.0),)})

    def allowed(policy: RightsPolicy, at: float, night: int = 20251115) -> bool:
        return Sight(ANONYMOUS, policy, at).packet_nights().allows(PARTNERSHIP, day_obs=night)

    assert not allowed(RightsPolicy(releases), 60999.99)
    assert allowed(RightsPolicy(releases), 61000.0)
    assert not allowed(RightsPolicy(releases), 61000.0, 20251116)
    assert not allowed(RightsPolicy(releases, do_share_partnership_and_private=True), 61000.0)
    both = Releases({PARTNERSHIP: ((20251115, 61000.0),), PRIVATE: ((20251115, 61001.0),)})
    assert not allowed(RightsPolicy(both, do_share_partnership_and_private=True), 61000.0)
    assert allowed(RightsPolicy(both, do_share_partnership_and_private=True), 61001.0)


@pytest.fixture
def store(tmp_path: Path):
    write_settings(tmp_path / "survey.yaml", SETTINGS)
    made = ReaderStore.of(tmp_path, None)
    made.add("alice", ["partnership"])
    yield made
    made.close()


def test_a_token_opens_what_it_is_for_until_it_ends(store: ReaderStore) -> None:
    token = store.new_token("alice", scopes=[Scope.ALERTS], days=1.0)
    (known,) = store.tokens("alice")
    now = known.made_mjd_tai
    assert store.authenticate(token, scope=Scope.ALERTS, at_mjd_tai=now).name == "alice"
    with pytest.raises(AccessDenied, match="not good for label"):
        store.authenticate(token, scope=Scope.LABEL, at_mjd_tai=now)
    with pytest.raises(AccessDenied, match="not valid"):
        store.authenticate(token, scope=Scope.ALERTS, at_mjd_tai=now + 1.0)
    for wrong in (token[:-1] + ("A" if token[-1] != "A" else "B"), token.upper(), "", "gst_", token + "x", "é" * 40):
        with pytest.raises(AccessDenied, match="^the token is not valid$"):
            store.authenticate(wrong, scope=Scope.ALERTS, at_mjd_tai=now)
    store.revoke(known.id)
    with pytest.raises(AccessDenied, match="not valid"):
        store.authenticate(token, scope=Scope.ALERTS, at_mjd_tai=now)
    with pytest.raises(ConfigError, match="no token"):
        store.revoke(known.id)


def test_the_file_of_users_holds_no_token_and_is_closed_to_others(store: ReaderStore, tmp_path: Path) -> None:
    token = store.new_token("alice", scopes=[Scope.ALERTS], days=1.0)
    secret = token.split("_", 2)[2].encode()
    for path in tmp_path.glob("readers.sqlite3*"):
        assert secret not in path.read_bytes()
        assert path.stat().st_mode & 0o077 == 0
    with sqlite3.connect(tmp_path / "readers.sqlite3") as database:
        assert database.execute("select length(hash), length(salt) from reader_token").fetchone() == (32, 16)


def test_groups_count_at_once_and_what_survey_yaml_forgets_opens_nothing(store: ReaderStore, tmp_path: Path) -> None:
    assert reader_named(tmp_path, SETTINGS, "alice").programs == {PARTNERSHIP}
    store.set_groups("alice", ["private", "partnership"])
    assert reader_of(SETTINGS, store.user("alice")).programs == {PARTNERSHIP, PRIVATE}
    assert reader_of(SurveySettings(groups={}), store.user("alice")).programs == frozenset()
    store.set_groups("alice", [])
    assert reader_of(SETTINGS, store.user("alice")).programs == frozenset()
    with pytest.raises(ConfigError, match="no group partner: survey.yaml names partnership, private"):
        checked_groups(SETTINGS, ["partner"])
    for name in ("operator", "public", "A", "x", "al-ice", "../etc"):
        with pytest.raises(ConfigError, match="cannot be a user's name"):
            store.add(name, [])
    with pytest.raises(ConfigError, match="already"):
        store.add("alice", [])
    with pytest.raises(ConfigError, match="no user bob"):
        reader_named(tmp_path, SETTINGS, "bob")
    store.remove("alice")
    assert store.users() == store.tokens() == []


def test_the_gate_knows_everybody_and_holders_of_tokens(store: ReaderStore, tmp_path: Path) -> None:
    gate = Gate(tmp_path)
    assert gate.sight_of_header(None, Scope.ALERTS).reader == ANONYMOUS
    token = store.new_token("alice", scopes=[Scope.ALERTS], days=1.0)
    for _ in range(2):
        assert gate.sight_of_header(f"Bearer {token}", Scope.ALERTS).reader.programs == {PARTNERSHIP}
    with pytest.raises(HTTPException) as refused:
        gate.sight_of_header(f"Bearer {token}", Scope.LABEL)
    assert refused.value.status_code == 403
    for header in ("Basic YWxpY2U6cGFzcw==", "Bearer", "Bearer gst_0", token):
        with pytest.raises(HTTPException) as refused:
            gate.sight_of_header(header, Scope.ALERTS)
        assert refused.value.status_code == 401
        assert refused.value.headers == {"WWW-Authenticate": 'Bearer realm="gueststar"'}
    store.set_groups("alice", [])
    assert gate.sight_of_header(f"Bearer {token}", Scope.ALERTS).reader.programs == frozenset(), "at once"
    store.revoke(store.tokens("alice")[0].id)
    with pytest.raises(HTTPException, match="not valid"):
        gate.sight_of_header(f"Bearer {token}", Scope.ALERTS)
    gate.close()


def test_wrong_tokens_from_one_address_are_soon_not_looked_at_but_right_ones_go_on(
    store: ReaderStore, tmp_path: Path
) -> None:
    now = [0.0]
    gate = Gate(tmp_path, config=GateConfig(most_failures=3), monotonic=lambda: now[0])
    token = f"Bearer {store.new_token('alice', scopes=[Scope.ALERTS], days=1.0)}"
    gate.sight_of_header(token, Scope.ALERTS, address="1.2.3.4")
    statuses = []
    for _ in range(5):
        with pytest.raises(HTTPException) as refused:
            gate.sight_of_header("Bearer gst_" + "0" * 16 + "_" + "x" * 43, Scope.ALERTS, address="1.2.3.4")
        statuses.append(refused.value.status_code)
    assert statuses == [401, 401, 401, 429, 429]
    assert gate.sight_of_header(token, Scope.ALERTS, address="1.2.3.4").reader.name == "alice"
    now[0] = 61.0
    with pytest.raises(HTTPException) as refused:
        gate.sight_of_header("Bearer wrong", Scope.ALERTS, address="1.2.3.4")
    assert refused.value.status_code == 401
    gate.close()


def test_a_release_that_is_written_while_a_service_runs_counts_from_its_moment(tmp_path: Path) -> None:
    write_settings(tmp_path / "survey.yaml", SETTINGS)
    gate = Gate(tmp_path, clock=lambda: NOW)
    assert not gate.sight_of_header(None, Scope.ALERTS).packet_nights().allows(PARTNERSHIP, day_obs=20251101)
    release = Release(program="partnership", until_night=20251101, date="2025-11-01T00:00:00")
    write_settings(tmp_path / "survey.yaml", SETTINGS.model_copy(update={"releases": (release,)}))
    sight = gate.sight_of_header(None, Scope.ALERTS)
    assert sight.packet_nights().allows(PARTNERSHIP, day_obs=20251101)
    assert sight.may_see(PARTNERSHIP, day_obs=20251101)
    assert not sight.may_see(PARTNERSHIP, day_obs=20251102)
    gate.close()
