"""What a store is refused for, in one line; and what is only a reason to ask again."""

import pytest
import stamina

from beam_ray.cli import main
from beam_ray.errors import Stopped, Unusable
from beam_ray.store import s3
from beam_ray.store.objects import NotThere
from beam_ray.store.opening import open_objects


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (404, "NoSuchBucket", "there is no such bucket; create it first"),
        (403, "AccessDenied", "access is refused (AccessDenied); check the AWS credentials and the bucket's policy"),
        (403, "InvalidAccessKeyId", "access is refused (InvalidAccessKeyId); check the AWS credentials and the bucket's policy"),
        (400, "ExpiredToken", "access is refused (ExpiredToken); check the AWS credentials and the bucket's policy"),
        (400, "InvalidBucketName", "the server cannot do what a store needs (InvalidBucketName); check the bucket's name and region, or use another store"),
        (501, "NotImplemented", "the server cannot do what a store needs (NotImplemented); check the bucket's name and region, or use another store"),
    ],
)
def test_what_asking_again_does_not_mend_is_one_line_and_exit_2(s3_proxy, s3_uri, capsys, status, code, said):
    """Such words of the server are passed on at once, with what to do."""
    s3_proxy.refuse = status, code
    with pytest.raises(SystemExit) as left:
        main(["tasks", "--store", s3_uri])

    assert (left.value.code, capsys.readouterr().err) == (2, f"{s3_uri}: {said}\n")


def test_a_token_that_expires_in_the_middle_stops_the_work_and_does_not_call_it_unbegun(s3_proxy, s3_uri):
    """Answers may have been paid for by then: the same command resumes."""
    store = open_objects(s3_uri)
    s3_proxy.refuse = 400, "ExpiredToken"
    with pytest.raises(Stopped, match=r"access is refused \(ExpiredToken\).*run the same command again"):
        store.create("a", b"1")


def test_an_s3_server_that_forgets_the_condition_is_refused_and_what_is_kept_there_is_not_harmed(s3_proxy, s3_uri):
    """Two writers could overwrite each other there; the store behind it stays as good as it was."""
    before = open_objects(s3_uri).read("store.json")
    s3_proxy.careless = True
    with pytest.raises(Unusable, match="does not honour put-if-absent"):
        open_objects(s3_uri)
    s3_proxy.careless = False

    assert open_objects(s3_uri).read("store.json") == before


def test_a_server_that_stays_away_ends_as_a_stop_with_the_place(s3_proxy, s3_uri, monkeypatch):
    """After long enough the command stops; nothing is lost by that."""
    store = open_objects(s3_uri)
    s3_proxy.refuse = 503, "SlowDown"
    monkeypatch.setattr(s3, "PATIENCE_S", 0.3)
    stamina.set_testing(False)
    with pytest.raises(Stopped, match=rf"{s3_uri}/a: .*SlowDown.*; when the store is back, run the same command again"):
        store.read("a")


def test_every_kind_of_fault_was_met_and_none_changed_a_result(s3_proxy, s3_uri):
    """Under 60 % faults each key keeps what its one winner wrote, and what is not there stays absent."""
    store = open_objects(s3_uri)
    s3_proxy.rate = 0.6
    won = {f"k{number}": (store.create(f"k{number}", b"first"), store.create(f"k{number}", b"second")) for number in range(40)}

    assert set(won.values()) == {(True, False)}
    assert {store.read(key) for key in won} == {b"first"}
    assert [key for key, _ in store.keys("k")] == sorted(won)
    with pytest.raises(NotThere):
        store.read("never")
    assert min(s3_proxy.done[word] for word in ("500", "503", "slow", "reset", "reply lost", "body cut", "409")) > 5


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_a_store_of_a_newer_format_is_refused_in_one_line(kind, tmp_path, request, capsys):
    """What a later version wrote is left alone: exit 2, and its store.json is as it was."""
    where = str(tmp_path / "store") if kind == "disk" else request.getfixturevalue("s3_uri")
    store = open_objects(where)
    store.put("store.json", b'{"format": 2}')
    with pytest.raises(SystemExit) as left:
        main(["tasks", "--store", where])

    assert (left.value.code, capsys.readouterr().err) == (2, f"{where} has store format 2; this version of beam_ray reads 1\n")
    assert store.read("store.json") == b'{"format": 2}'


def test_the_age_of_an_object_is_told_by_the_store(uri):
    """What was just written is seconds old, whatever our own clock says."""
    store = open_objects(uri)
    store.create("a", b"1")

    assert -2 <= store.age("a") < 60
    with pytest.raises(NotThere):
        store.age("b")
