"""The promise of a store: created whole, once, by one winner. On a disk and on a real S3 server."""

import threading

import pytest

from beam_ray.errors import Unusable
from beam_ray.store import disk, opening
from beam_ray.store.disk import Disk
from beam_ray.store.objects import NotThere
from beam_ray.store.opening import open_objects
from tests.store.proxy import Proxy


def test_only_the_first_create_counts(uri):
    """A second create of the same key reports that it lost, and changes nothing."""
    store = open_objects(uri)

    assert [store.create("a/b", b"one"), store.create("a/b", b"two")] == [True, False]
    assert store.read("a/b") == b"one"


def test_of_many_writers_one_wins_and_every_other_knows_it(uri):
    """The winner's bytes are the ones that are read."""
    store = open_objects(uri)
    for round_ in range(10):
        won: list[int] = []
        gate = threading.Barrier(4)

        def write(number: int, key: str = f"race/{round_}", won: list[int] = won, gate: threading.Barrier = gate) -> None:
            gate.wait()
            if store.create(key, b"%d" % number):
                won.append(number)

        threads = [threading.Thread(target=write, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert [store.read(f"race/{round_}")] == [b"%d" % number for number in won]


def test_keys_and_folders_are_listed_in_order(uri):
    """Listing is by prefix, sorted, with sizes."""
    store = open_objects(uri)
    for key in ["runs/b/x", "runs/a/y", "runs/a/x", "other"]:
        store.create(key, b"12")

    assert list(store.keys("runs/a/")) == [("runs/a/x", 2), ("runs/a/y", 2)]
    assert store.folders("runs") == ["a", "b"]


def test_a_range_of_an_object_is_read(uri):
    """From a place on, or from the end; a range that reaches beyond the object ends with it."""
    store = open_objects(uri)
    store.create("a", b"0123456789")

    assert store.read_range("a", 2, 3) == b"234"
    assert store.read_range("a", 8, 5) == b"89"
    assert store.read_range("a", -4, 4) == b"6789"
    assert store.read_range("a", -40, 40) == b"0123456789"
    with pytest.raises(NotThere):
        store.read_range("b", 0, 1)


@pytest.mark.parametrize("lacks", ["", "POST"])
def test_many_objects_are_deleted_by_one_request_where_the_server_has_it(lacks: str, s3_uri: str, s3_proxy: Proxy):
    """And by one each where it has not; others stay."""
    store = open_objects(s3_uri)
    for number in range(9):
        store.create(f"a/{number}", b"1")
    s3_proxy.lacks, before = lacks, s3_proxy.done.total()
    for numbers in (range(4), range(4, 8)):
        store.delete_all(f"a/{number}" for number in numbers)
    asked = s3_proxy.done.total() - before

    assert asked == (8 if lacks else 2)
    assert [key for key, _ in store.keys("a/")] == ["a/8"]


def test_what_is_not_there_is_said_to_be_not_there(uri):
    """Absence has a name, and deleting it is no fault."""
    store = open_objects(uri)
    store.delete("never")

    with pytest.raises(NotThere):
        store.read("never")


def test_a_store_that_ignores_put_if_absent_is_refused(tmp_path, monkeypatch):
    """Two writers could overwrite each other there."""

    class Careless(Disk):
        def create(self, key: str, body: bytes) -> bool:
            self.put(key, body)
            return True

    monkeypatch.setattr(opening, "Disk", Careless)

    with pytest.raises(Unusable, match="does not honour put-if-absent"):
        open_objects(str(tmp_path / "store"))


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/x"])
def test_no_key_leads_out_of_the_store(tmp_path, key):
    """Names come from people."""
    store = open_objects(str(tmp_path / "store"))

    with pytest.raises(Unusable, match="is outside the store"):
        store.create(key, b"")


def test_a_wrong_key_is_said_in_one_line(s3_uri, monkeypatch):
    """What is wrong with the credentials can be mended."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(Unusable, match="access is refused"):
        open_objects(s3_uri)


def test_a_folder_that_a_dead_writer_left_empty_is_not_listed(tmp_path):
    """It died between making the folder and writing into it: no command shall take it for a run."""
    objects = open_objects(str(tmp_path / "store"))
    objects.create("runs/there/run.json", b"{}")
    (tmp_path / "store" / "runs" / "empty").mkdir()
    (tmp_path / "store" / "runs" / "begun").mkdir()
    (tmp_path / "store" / "runs" / "begun" / f"{disk.TEMPORARY}1-x").write_bytes(b"{")

    assert objects.folders("runs") == ["there"]
