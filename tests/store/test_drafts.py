"""Revisions of drafts on a disk and on a real S3 server, with faults: each number has one text, and what was saved is there."""

import threading

from beam_ray.errors import Unusable
from beam_ray.store.drafts import Revision, newest_drafts, read_draft, save_revision
from beam_ray.store.opening import open_objects

ROUNDS = 4


def test_of_two_who_save_the_same_revision_one_wins(uri: str) -> None:
    """
    In every round one of two writers is told, and the text that is read is the other's.
    """
    objects = open_objects(uri)
    lost: dict[str, str] = {}

    def save(number: int, text: str) -> None:
        try:
            save_revision(objects, Revision("w", "d", number, text, saved_by=text))
        except Unusable as error:
            lost[text] = str(error)

    for number in range(1, ROUNDS + 1):
        writers = [threading.Thread(target=save, args=(number, f"{who}{number}")) for who in "ab"]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(60)

    assert len(lost) == ROUNDS and all("in the meantime by" in said for said in lost.values())
    kept = [read_draft(objects, "w", "d", number).text for number in range(1, ROUNDS + 1)]
    assert {*kept}.isdisjoint(lost) and len({*kept, *lost}) == 2 * ROUNDS
    assert [(each.reference, each.text) for each in newest_drafts(objects)] == [(f"w@d:{ROUNDS}", kept[-1])]
