"""Nothing that leaves for a reader holds a mark of what he may not see; the same search finds every mark at home."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from gueststar.core.errors import AccessDenied, DataError
from gueststar.model.readers import ANONYMOUS, Scope
from gueststar.model.rights import Program
from gueststar.services.alerts import open_alert_app
from gueststar.services.gate import Gate
from gueststar.services.labelling import labelling_app
from gueststar.services.labelling_desk import LabellingDesk
from gueststar.store.alerts.log import AlertLog
from gueststar.store.labels import LabelStore
from gueststar.store.products import DataId
from gueststar.store.readers import ReaderStore
from gueststar.store.repo import SurveyRepo
from gueststar.store.visible import open_as
from tests.unit.rights.canaries import contents, found_in
from tests.unit.rights.conftest import DETECTOR, OWN_PLACE, SHARED_PLACE, TAKEN, MarkedSurvey, make_marked, served

PUBLIC, PARTNERSHIP, PRIVATE, ENGINEERING = Program.PUBLIC, Program.PARTNERSHIP, Program.PRIVATE, Program.ENGINEERING
NOT_HIS = {"anonymous": (PARTNERSHIP, PRIVATE, ENGINEERING), "carol": (PARTNERSHIP, ENGINEERING)}


@dataclass(frozen=True)
class Asked:
    """What is asked for in turn: numbers and names of one survey, that may be asked of another too."""

    candids: tuple[int, ...]
    stories: tuple[int, ...]
    names: tuple[str, ...]
    visits: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, survey: MarkedSurvey) -> Asked:
        entries = AlertLog(survey.root).entries(programs=tuple(Program))
        return cls(
            tuple(entry.candid for entry in entries),
            tuple({entry.program: entry.candid for entry in entries}.values()),
            tuple(sorted({entry.object_name for entry in entries})),
            tuple(tuple(visits) for visits in survey.visits.values()),
        )


def everything_for(survey: MarkedSurvey, reader: str, out: Path, asked: Asked) -> list[bytes]:
    """Run every command that asks for a reader; return all that it said and wrote."""
    root, eyes = survey.root, ("--as", reader)
    said: list[bytes] = []

    def run(*words: object) -> None:
        answer = survey.run(*words, *eyes)[1]
        for word in words[2:]:  # a refusal repeats what was asked for
            answer = answer.replace(str(word).encode(), b"what was asked for")
        said.append(answer.replace(str(root).encode(), b"ROOT").replace(str(out).encode(), b"OUT"))

    run("alerts", "list", root)
    for candid in asked.candids:
        run("alerts", "show", root, candid)
    for candid in asked.stories:
        run("why", root, candid)
    for name in asked.names:
        run("why", root, name)
        run("forced", root, "--object", name)
    run("alerts", "export", root, out / "alerts.tar")
    run("alerts", "search", root, "--format", "json", "--columns", "all")
    run("alerts", "search", root, "--where", "magpsf < 99", "--count")
    run("alerts", "search", root, "--cone", *OWN_PLACE, 5)
    run("filter", "test", root, "magpsf < 99", "--page", out / "filter.html")
    for k, (ra, dec) in enumerate((SHARED_PLACE, OWN_PLACE)):
        run("lightcurve", root, f"{ra},{dec}", "-o", out / f"curve{k}.parquet")
        run("forced", root, f"{ra},{dec}", "-o", out / f"forced{k}.parquet")
        run("forced", root, f"{ra},{dec}", "--on", "difference", "-o", out / f"differences{k}.parquet")
        run("why", root, f"{ra},{dec}")
    for visits in asked.visits:
        for visit in visits:
            run("why", root, visit)
        run("streaks", "show", root, visits[0] * 7)
    for name in ("exposure_0.1.fits", "secret_exposure.fits", "partners_image.fits", "test_exposure.fits"):
        run("why", root, name)
    run("streaks", "list", root, "--json")
    run("reference", root, "0.0,20.0")
    run("night", "list", root)
    for night in (20251121, 20251122, 20251124):
        run("night", "report", root, "--night", night, "--json", out / f"{night}.json")
    run("night", "report", root, "--night", 20251124, "--html", out / "night.html")
    for product in ("science_image", "source", "forced_source"):
        run("products", root, product, "--json")
    return said + [path.read_bytes() for path in sorted(out.iterdir())]


@pytest.fixture(scope="module")
def left(marked: MarkedSurvey, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    """Everything that left, by reader."""
    asked = Asked.of(marked)
    return {reader: everything_for(marked, reader, tmp_path_factory.mktemp(reader), asked) for reader in NOT_HIS}


@pytest.mark.parametrize("reader", list(NOT_HIS))
def test_nothing_that_leaves_for_a_reader_tells_of_what_he_may_not_see(
    marked: MarkedSurvey, left: dict[str, list[bytes]], reader: str
) -> None:
    assert found_in(left[reader], marked.closed(*NOT_HIS[reader])) == set()


def test_the_same_search_finds_every_mark_in_what_leaves_for_those_who_may(
    marked: MarkedSurvey, left: dict[str, list[bytes]]
) -> None:
    mine = marked.closed(PRIVATE)
    assert found_in(left["carol"], mine) == mine.keys()


def test_everybody_gets_to_the_byte_what_a_survey_would_give_that_never_took_closed_exposures(
    marked: MarkedSurvey, left: dict[str, list[bytes]], tmp_path: Path
) -> None:
    open_ones = tuple(taken for taken in TAKEN if taken[1] is PUBLIC)
    without, out = make_marked(tmp_path / "survey", open_ones), tmp_path / "out"
    out.mkdir()
    names = {marked.public_name[5:].encode(): b"letters", without.public_name[5:].encode(): b"letters"}
    told = (everything_for(without, "anonymous", out, Asked.of(marked)), left["anonymous"])
    for one, other in zip(*told, strict=True):
        assert _opened(one, names) == _opened(other, names)


def _opened(blob: bytes, names: dict[bytes, bytes]) -> list[bytes]:
    """Return a file with what is packed in it; of names of objects all but the seven letters."""
    parts = list(contents(blob))
    parts = parts[1:] if len(parts) > 1 else parts  # packed bytes hold the names too
    for name, mark in names.items():
        parts = [part.replace(name, mark) for part in parts if part[:4] != b"Obj\x01"]
    return parts


def test_everybody_gets_what_is_public(marked: MarkedSurvey, left: dict[str, list[bytes]]) -> None:
    public: dict[str, str | int | float] = {f"visit {visit}": visit for visit in marked.visits[PUBLIC]}
    public |= {"flux": 50_000.0, "name": marked.public_name, "object": "field 7"}
    for reader in NOT_HIS:
        assert found_in(left[reader], public) == public.keys()


def test_a_question_for_what_is_hidden_is_answered_as_one_for_what_never_was(marked: MarkedSurvey) -> None:
    hidden, never = marked.visits[PRIVATE][0], 12345678901
    for words in (("why", marked.root), ("alerts", "show", marked.root), ("streaks", "show", marked.root)):
        answers = [marked.run(*words, number, "--as", "alice") for number in (hidden, never)]
        assert answers[0][0] == answers[1][0] != 0
        assert answers[0][1].replace(str(hidden).encode(), b"N") == answers[1][1].replace(str(never).encode(), b"N")


def test_the_labelling_page_shows_a_reader_his_detections_only(marked: MarkedSurvey) -> None:
    said: dict[str, list[bytes]] = {}
    for reader in ("anonymous", "carol"):
        with open_as(marked.root, reader) as survey:
            desk = LabellingDesk(survey, LabelStore.of(marked.root, None), person=reader)
            with served(labelling_app(desk, key="k")) as client:
                client.get("/", params={"key": "k"})
                said[reader] = _walk(client)
    visits = {name: v for name, v in marked.closed(PRIVATE).items() if "visit" in name}
    assert found_in(said["carol"], visits) == visits.keys()
    assert found_in(said["anonymous"], marked.closed(*NOT_HIS["anonymous"])) == set()


def test_a_program_labels_with_a_token_what_its_user_may_see_and_in_his_name(marked: MarkedSurvey) -> None:
    users = ReaderStore.of(marked.root, None)
    label, alerts = (users.new_token("alice", scopes=[scope], days=1.0) for scope in (Scope.LABEL, Scope.ALERTS))
    users.close()
    gate, labels = Gate(marked.root), LabelStore.of(marked.root, None)
    with SurveyRepo.open(marked.root) as repo:
        desk = LabellingDesk(repo, labels, person="operator")
        with served(labelling_app(desk, key="k", gate=gate)) as client:
            eyes = {"Authorization": f"Bearer {label}"}
            seen = client.get("/next", headers=eyes).json()
            answer = client.post(f"/detections/{seen['id']}/label", json={"kind": 11}, headers=eyes)
            assert answer.json()["labelled"] == 1
            hidden = min(_ids_on(desk) - _ids_of(marked, "alice"))
            assert client.get(f"/detections/{hidden}", headers=eyes).status_code == 404
            assert client.post(f"/detections/{hidden}/label", json={"kind": 11}, headers=eyes).status_code == 404
            assert client.get("/next", headers={"Authorization": f"Bearer {alerts}"}).status_code == 403
            assert client.get("/next").status_code == 401
    gate.close()
    stored = labels.current()
    assert [(str(key), one.person) for key, one in stored.items()] == [(seen["id"], "alice")]
    labels.retract_last("alice")


def _ids_of(marked: MarkedSurvey, reader: str) -> set[int]:
    with open_as(marked.root, reader) as survey:
        return _ids_on(LabellingDesk(survey, LabelStore.of(marked.root, None), person=reader))


def _ids_on(desk: LabellingDesk) -> set[int]:
    return {int(key) for night in desk.queue.nights() for key in desk.queue.of_night(night).dia_source_id}


def test_the_alert_service_gives_a_packet_to_whom_it_may_and_to_others_as_one_that_never_was(
    marked: MarkedSurvey,
) -> None:
    users = ReaderStore.of(marked.root, None)
    tokens = {name: users.new_token(name, scopes=[Scope.ALERTS], days=1.0) for name in ("alice", "carol")}
    users.close()
    entries = AlertLog(marked.root).entries(programs=tuple(Program))
    paths = ("{}.avro", "{}.json", "{}/cutouts/science.fits", "{}/cutouts/difference.fits.gz", "{}/cutouts/science.png")
    said: dict[str, list[bytes]] = {name: [] for name in ("anonymous", *tokens)}
    with served(open_alert_app(marked.root)) as client:
        for name in said:
            eyes = {"Authorization": f"Bearer {tokens[name]}"} if name in tokens else {}
            for candid in (*(entry.candid for entry in entries), 12345):
                for path in paths:
                    answer = client.get("/alerts/" + path.format(candid), headers=eyes)
                    assert answer.status_code in (200, 404)
                    if answer.status_code == 404:
                        assert answer.json() == {"error": f"no alert {candid}"}, "hidden or not there: the same"
                    else:
                        said[name] += [answer.content, repr(answer.headers).encode()]
        wrong = client.get(f"/alerts/{entries[0].candid}.avro", headers={"Authorization": "Bearer gst_nonsense"})
        assert (wrong.status_code, wrong.json()) == (401, {"error": "the token is not valid"})
        assert wrong.headers["WWW-Authenticate"].startswith("Bearer")
    assert found_in(said["anonymous"], marked.closed(*NOT_HIS["anonymous"])) == set()
    assert found_in(said["alice"], marked.closed(PRIVATE, ENGINEERING)) == set()
    assert found_in(said["carol"], marked.closed(PARTNERSHIP, ENGINEERING)) == set()
    told = {"pixel", "investigator", "candid 0"}
    for name, program in (("alice", PARTNERSHIP), ("carol", PRIVATE)):
        mine = {key: value for key, value in marked.closed(program).items() if key.split(" ", 1)[1] in told}
        assert found_in(said[name], mine) == mine.keys(), "the same search finds them where they may be"


def test_the_desk_answers_alike_for_what_is_hidden_and_what_never_was(marked: MarkedSurvey) -> None:
    with open_as(marked.root, "carol") as mine, open_as(marked.root, ANONYMOUS) as everybodys:
        labels = LabelStore.of(marked.root, None)
        desks = [LabellingDesk(survey, labels, person="ada") for survey in (mine, everybodys)]
        hidden, desk = min(_ids_on(desks[0]) - _ids_on(desks[1])), desks[1]
        for asked in (hidden, 12345):
            with pytest.raises(DataError, match=f"^detection {asked} has no cut-outs on this desk$"):
                desk.facts(asked)


def _walk(client: httpx.Client) -> list[bytes]:
    skipped: list[str] = []
    said = [client.get("/").content]
    while (answer := client.get("/next", params={"skipped": ",".join(skipped)})).json()["id"] is not None:
        skipped.append(answer.json()["id"])
        said += [answer.content, client.get(f"/detections/{skipped[-1]}/cutouts.png").content]
    return [*said, client.get("/page", params={"label": "any", "order": "high"}).content]


def test_a_survey_that_was_opened_for_a_reader_gives_no_hidden_product_and_takes_none(marked: MarkedSurvey) -> None:
    with SurveyRepo.open(marked.root) as repo, open_as(marked.root, ANONYMOUS) as seen:
        hidden = DataId(visit=marked.visits[PRIVATE][0], detector=DETECTOR)
        shown = DataId(visit=marked.visits[PUBLIC][0], detector=DETECTOR)
        for product in ("science_image", "source", "dia_source", "candidate_cutouts", "streak"):
            ref = repo.find_one(product, hidden)
            assert ref is not None
            assert seen.find_one(product, hidden) is None
            with pytest.raises(DataError, match="there is no"):
                seen.read(ref)
            with pytest.raises(DataError, match="there is no"):
                seen.path(product, hidden)
            assert seen.exists(product, shown)
        for change in (seen.put, seen.stage, seen.commit, seen.sweep, seen.certify, seen.ingest_raw):
            with pytest.raises(AccessDenied, match="cannot change"):
                change("source", shown, None)
        with pytest.raises(AccessDenied, match="cannot change"):
            seen.ledger.submit("science", {})
        assert seen.ledger.events() == []
        assert {row.info.program for row in seen.ledger.exposures()} == {PUBLIC}
        assert {job.exposure_id for job in seen.ledger.jobs()} == set(marked.visits[PUBLIC])
