"""An operator that comes back after days catches up what its rules say, night by night."""

import time
from pathlib import Path

from gueststar.core.times import unix
from gueststar.operations.actions.contract import ActionContext, ActionResult
from gueststar.operations.operator.facts import night_of
from gueststar.store.ledger import ExposureState

from ._rehearsal import CAMERA, EVENING, ToldEngine, go_round, info, make_repo, operator_of, receive

RULES = """
rules:
  - {name: science, description: All., when: {exposure: {type: science}}, do: images}
  - {name: export, description: Files., when: {night_ends: {after: 1 h}}, do: export_candidates}
  - {name: coverage, description: Maps., when: {night_ends: {after: 30 min}}, do: coverage_maps}
  - {name: depot, description: Old files., when: {night_ends: {after: 2 h}}, do: clean_depot}
"""


def test_each_night_with_exposures_gets_its_products_in_its_turn_and_disks_are_looked_after_once(
    tmp_path: Path,
) -> None:
    ran: list[tuple[str, int]] = []

    def noting(name: str):
        def action(context: ActionContext) -> ActionResult:
            ran.append((name, context.night))
            return ActionResult("done", f"{name} of {context.night}")

        return action

    actions = {name: noting(name) for name in ("export_candidates", "coverage_maps", "clean_depot")}
    nights = [night_of(unix(EVENING + k), CAMERA) for k in range(6)]
    with make_repo(tmp_path / "survey", queue={"calibrations_quiet_s": 0.0, "patience_s": 0.0}) as repo:
        (repo.root / "rules.yaml").write_text(RULES)
        operator_of(repo, ToldEngine(), at=EVENING, actions=actions).start()
        for night in (0, 3, 4):
            number = receive(repo, info(night, night=night))
            repo.ledger.set_exposure_state(number, ExposureState.HELD, "done with")
        back = operator_of(repo, ToldEngine(), at=EVENING + 5.2, actions=actions)
        back.start()
        end = time.monotonic() + 60.0
        while (len(ran) < 7 or not back.is_idle) and time.monotonic() < end:
            go_round(back)
            time.sleep(0.005)
        back.standing.hurry()
        go_round(back)
    last, before = nights[4], [nights[0], nights[3]]
    assert sorted(ran[:3]) == sorted([("export_candidates", last), ("coverage_maps", last), ("clean_depot", last)])
    assert ran[3:] == [(name, night) for night in before for name in ("coverage_maps", "export_candidates")]
