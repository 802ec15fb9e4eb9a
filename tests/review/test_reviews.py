"""Reviews: drawn with a known probability, kept for ever, and never in the place of what the judge said."""

import csv
import json
import random
from pathlib import Path

import pytest

import beam_ray
from beam_ray.errors import BadDefinition, Damaged, Unusable
from beam_ray.store.gc import collect
from tests.conftest import Lab
from tests.review.judged import judged_run, model, opened


@pytest.fixture
def store(lab: Lab) -> beam_ray.Store:
    """A store with a run of 40 tasks, of which the judge passes those with an even number and t1, t3, … t19."""
    judged_run(lab, 40, lambda number: number % 2 == 0 or number < 20)
    return opened(lab)


def sample(**how) -> beam_ray.ReviewSample:
    return beam_ray.ReviewSample(**how)


def test_the_same_draw_is_the_same_sample_and_a_larger_one_holds_it(store: beam_ray.Store) -> None:
    """Nothing of a queue is stored, so it must come out the same anywhere; another seed is another sample."""
    ten, twenty, other = (store.review_queue("replies", sample=sample(count=count, seed=seed)) for count, seed in ((10, 1), (20, 1), (10, 2)))
    names = [[item.address for item in queue.items] for queue in (ten, twenty, other)]

    assert names[0] == [item.address for item in store.review_queue("replies", "reply", criteria=["polite"], sample=sample(count=10, seed=1)).items]
    assert names[1][:10] == names[0] and len(set(names[1])) == 20
    assert set(names[2]) != set(names[0])
    assert {(item.how, item.seed, item.sample, item.population, item.probability) for item in ten.items} == {("random", 1, 10, 40, 0.25)}


def test_reruns_of_selected_tasks_are_not_drawn_from(store: beam_ray.Store, lab: Lab) -> None:
    """A rerun of what had failed is no random sample of anything; it is reviewed where it is named."""
    [run] = store.runs()
    again = lab.rerun(run.stored, ["t21", "t23"], run.workflow, model(lambda number: True))

    assert store.review_queue("replies").run_id == run.id
    assert store.review_queue("replies", run=again.run_id).run_id == again.run_id


def test_a_random_sample_is_a_fair_one(store: beam_ray.Store) -> None:
    """Over many seeds every output is drawn about equally often, whatever the judge said of it."""
    counts = dict.fromkeys((f"t{number}" for number in range(40)), 0)
    for seed in range(200):  # the sample is a function of the seed
        for item in store.review_queue("replies", sample=sample(count=10, seed=seed)).items:
            counts[item.address.split("/")[1]] += 1

    # 50 each on average; 4.5 standard deviations of a binomial of 200 draws
    assert max(abs(count - 50) for count in counts.values()) < 28


def test_a_balanced_sample_has_both_words_of_the_judge_with_their_chances(store: beam_ray.Store) -> None:
    """Of 40 outputs the judge failed 10: half of the sample are such, and each item has the chance that it had."""
    queue = store.review_queue("replies", sample=sample(how="balanced", count=12))

    assert [item.question("polite").judge_met for item in queue.items].count(False) == 6
    assert {(item.question("polite").judge_met, item.probability) for item in queue.items} == {(False, 6 / 10), (True, 6 / 30)}
    assert {item.question("polite").judge_met for item in queue.items[:2]} == {False, True}
    few = store.review_queue("replies", sample=sample(how="balanced", count=30))
    assert [item.question("polite").judge_met for item in few.items].count(False) == 10


def test_an_answer_is_kept_with_all_that_tells_what_it_is_worth(store: beam_ray.Store) -> None:
    """Who, when, which output and version of the criterion, how it was drawn, and what the judge had said."""
    queue = store.review_queue("replies", sample=sample(count=10, seed=3))
    item = queue.next("ann")
    assert item is not None
    made = store.record_review(item, {"polite": False}, reviewer="ann", comment="it swears")
    [row] = store.reviews("replies").to_pylist()

    question = item.question("polite")
    assert made.reviews == (row,)
    assert (row["reviewer"], row["met"], row["comment"], row["hidden"]) == ("ann", False, "it swears", True)
    assert (row["address"], row["output_digest"], row["node"], row["criterion"]) == (item.address, item.output_digest, "reply", "polite")
    assert (row["criterion_version"], row["judge_version"], row["judge"], row["judge_met"]) == (
        question.version,
        question.judge_version,
        "m",
        question.judge_met,
    )
    assert (row["drawn"], row["seed"], row["sample"], row["population"], row["probability"]) == ("random", 3, 10, 40, 0.25)
    assert row["text"] == "The reply is polite."
    assert queue.next("ann") == queue.items[1] and queue.next("bob") == queue.items[0]


def test_a_review_changes_nothing_that_the_judge_said(store: beam_ray.Store) -> None:
    """The run's rows are those that they were."""
    [run] = store.runs()
    before = run.steps().to_pylist()
    for item in store.review_queue("replies", sample=sample(count=5)).items:
        store.record_review(item, {"polite": not item.question("polite").judge_met}, reviewer="ann")

    assert run.steps().to_pylist() == before


def test_a_second_answer_counts_and_the_first_one_stays(store: beam_ray.Store) -> None:
    """The table only grows; the same answer again is not written."""
    item = store.review_queue("replies").items[0]
    for met in (True, False, False):
        store.record_review(item, {"polite": met}, reviewer="ann")

    assert store.reviews("replies")["met"].to_pylist() == [True, False]


@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_a_sample_can_be_answered_in_a_file(store: beam_ray.Store, tmp_path: Path, ending: str) -> None:
    """The file does not show the judge's word; its answers have the sample's chances, and importing it again adds nothing."""
    queue = store.review_queue("replies", sample=sample(count=8, seed=5))
    path = queue.write(tmp_path / f"reviews{ending}")
    assert "judge_met" not in path.read_text(encoding="utf-8")
    said = {item.address: met for item, met in zip(queue.items, ("yes", "no", "?", "", "Y", "N", "", "true"), strict=True)}
    answer_file(path, said)
    made = store.import_reviews(path, reviewer="ann")
    again = store.import_reviews(path, reviewer="ann")

    assert [(row["address"], row["met"]) for row in made.reviews] == [
        (item.address, met) for item, met in zip(queue.items, (True, False, None, "skipped", True, False, "skipped", True), strict=True) if met != "skipped"
    ]
    assert {(row["drawn"], row["probability"], row["hidden"]) for row in made.reviews} == {("random", 0.2, True)}
    assert (again.reviews, again.unchanged) == ((), 6)
    assert len(queue.open("ann")) == 2


def answer_file(path: Path, said: dict[str, str]) -> None:
    """Write the answers into the file, as a person would."""
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        path.write_text("".join(json.dumps({**row, "met": said[row["address"]]}) + "\n" for row in rows), encoding="utf-8")
        return
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "met": said[row["address"]]} for row in rows)


def test_what_was_not_in_the_sample_is_not_taken_for_random(store: beam_ray.Store, tmp_path: Path) -> None:
    """A row that only says that it was drawn at random counts as chosen."""
    queue = store.review_queue("replies", sample=sample(count=8, seed=5))
    drawn = {item.address for item in queue.items}
    other = next(f"{queue.run_id}/t{number}/reply" for number in range(40) if f"{queue.run_id}/t{number}/reply" not in drawn)
    row = {"address": other, "criterion": "polite", "met": True, "drawn": "random", "seed": 5, "count": 8, "criteria": ["polite"]}
    (tmp_path / "r.jsonl").write_text(json.dumps(row), encoding="utf-8")

    [made] = store.import_reviews(tmp_path / "r.jsonl").reviews

    assert (made["drawn"], made["probability"]) == ("chosen", None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"met": "perhaps"}, "r.jsonl:1:{met}: 'met' must be yes, no, ? (cannot tell) or empty, not 'perhaps'"),
        ({"criterion": "kind"}, "there is no criterion 'kind'"),
        ({"criterion": ""}, "the row has an answer but no criterion"),
        ({"address": "261129-000000/t1/reply"}, "there is no run '261129-000000'"),
        ({"address": "{run}/t99/reply"}, "has no output of 'reply' for task 't99'"),
        ({"address": "{run}/t1"}, "names no step"),
        ({"address": "{run}/t1/nothing"}, "has no node 'nothing'"),
        ({"drawn": "random"}, "a random sample must say its seed, count and criteria"),
        ({"drawn": "somehow"}, "'drawn' must be random,"),
        ({"opinion": 1}, "a review has no column 'opinion'"),
        ({"output_digest": "0"}, "is another one now than when this file was written"),
        ({"comment": "x" * 10_001}, "the comment has 10,001 characters"),
    ],
)
def test_a_malformed_row_is_named_with_its_place_and_nothing_is_kept(store: beam_ray.Store, tmp_path: Path, change: dict, said: str) -> None:
    """One line that says where and what; the rows beside it are not recorded either."""
    [run] = store.runs()
    sound = {"address": f"{run.id}/t1/reply", "criterion": "polite", "met": True}
    changed = {key: value.format(run=run.id) if isinstance(value, str) else value for key, value in change.items()}
    line = json.dumps({**sound, **changed})
    (tmp_path / "r.jsonl").write_text(f"{line}\n{json.dumps(sound)}\n", encoding="utf-8")
    expected = said.replace("{met}", str(line.find('"met"') + 1))

    with pytest.raises(BadDefinition) as caught:
        store.import_reviews(str(tmp_path / "r.jsonl"))

    assert expected in str(caught.value) and "r.jsonl:1" in str(caught.value)
    assert store.reviews("replies").num_rows == 0


def test_what_cannot_be_drawn_is_refused(store: beam_ray.Store) -> None:
    """Each refusal is one line that says what there is instead."""
    for words, said in (
        ({"workflow": "reply"}, "there is no finished run of a workflow named 'reply'\n  workflows with runs: replies"),
        ({"workflow": "replies", "node": "say"}, "has no node 'say'\n  it has: reply"),
        ({"workflow": "replies", "criteria": ["kind"]}, "no criterion of 'replies' is decided by a judge"),
        ({"workflow": "replies", "node": "reply", "criteria": ["kind"]}, "there is no criterion 'kind'\n  criteria: polite, reply_text"),
        ({"workflow": "replies", "sample": sample(count=0)}, "must be at least 1"),
        ({"workflow": "replies", "sample": sample(how="chosen")}, "a chosen sample names its tasks"),
        ({"workflow": "replies", "sample": sample(how="chosen", tasks=("t99",))}, "has no output of 'reply' for task 't99'"),
    ):
        with pytest.raises(Unusable) as caught:
            store.review_queue(**words)
        assert said in str(caught.value)


def test_a_damaged_file_of_reviews_is_named_and_the_others_are_read(store: beam_ray.Store, lab: Lab) -> None:
    """A flipped bit costs the reviews of one file, with a remedy; no other file is touched."""
    items = store.review_queue("replies").items
    for item in items[:2]:
        store.record_review(item, {"polite": True}, reviewer="ann")
    [first, _] = sorted(Path(lab.objects.uri).glob("reviews/replies/*.parquet"))
    body = bytearray(first.read_bytes())
    body[random.Random(1).randrange(len(body))] ^= 4
    first.write_bytes(body)

    later = opened(lab)

    with pytest.raises(Damaged, match=rf"reviews/replies/{first.name} is damaged[\s\S]*restore it from a copy"):
        later.reviews("replies")
    first.unlink()
    assert later.reviews("replies")["address"].to_pylist() == [items[1].address]


def test_gc_lists_no_reviews(store: beam_ray.Store) -> None:
    """What people said is never garbage, nor is the run that they said it of."""
    store.record_review(store.review_queue("replies").items[0], {"polite": True}, reviewer="ann")

    assert collect(store.objects, abandoned=True, older_than_s=0) == []


def test_reviewing_twice_at_the_same_time_loses_nothing(store: beam_ray.Store) -> None:
    """Each answer is a file of its own, created if absent."""
    items = store.review_queue("replies", sample=sample(count=20)).items
    for reviewer in ("ann", "bob"):
        for item in items:
            store.record_review(item, {"polite": True}, reviewer=reviewer)

    assert store.reviews().num_rows == 40
