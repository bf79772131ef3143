"""Where decisions are made in a running primary."""

from pathlib import Path

from reconciler.desk import open_desk
from reconciler.primary import open_primary
from tests.delivering import Place

OWN = 'version: 1\nrepositories: {{own: {{url: "{url}"}}}}\n'


async def test_a_decision_is_judged_by_one_look_at_each_repository(tmp_path: Path) -> None:
    place = Place.make(tmp_path)
    seen = place.spec.commit({"trueup.yaml": OWN.format(url=place.spec.url)})
    async with open_primary(place.settings) as primary:
        desk = await open_desk(primary, "Ada <ada@example.org>")
        assert desk.situation.spec_commit == seen
        # What comes later is for the next one: nothing is asked again for what is known.
        later = place.spec.commit({"trueup.yaml": "version: 1\n"})
        assert (await desk.repositories.refresh(place.spec.url)).heads["main"] == seen
        again = await open_desk(primary, "Ada <ada@example.org>")
        assert again.situation.spec_commit == later
