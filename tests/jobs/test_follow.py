"""How a job ended is read from the store, whatever Ray reports, or if Ray does not answer."""

import json
import os
from collections.abc import Callable
from concurrent import futures

import grpc
import pytest
from ray.core.generated.gcs_service_pb2 import CheckAliveReply
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceServicer, add_NodeInfoGcsServiceServicer_to_server

import beam_ray
from beam_ray.api.jobs import Job
from beam_ray.cli.submit import wait_for
from beam_ray.errors import Stopped, Unusable
from beam_ray.llm import ScriptedModel
from beam_ray.run.cluster_auth import ensure_token, require_cluster_token
from beam_ray.run.job_client import RayJobClient
from beam_ray.run.job_record import record_exit, record_run
from beam_ray.run.plan import Lineage, make_plan
from beam_ray.store.beginning import begin
from beam_ray.store.checksummed_json import seal
from beam_ray.store.runs import Run
from tests.conftest import Lab
from tests.endpoint import endpoint

FLOW = "workflow: w\nmodel: m\nnodes:\n  say: {llm: {prompt: '{{ task_query }}'}}\n"
QUICK = {"poll_s": 0.001, "settle_s": 0.05, "unreachable_s": 0.2}


class Told:
    """Jobs that say what they are told to say, look by look; an error is raised, and the last word stays."""

    def __init__(self, *states: str | OSError, log: Callable[[int], str] = lambda look: ""):
        self.states, self.text, self.looks = list(states), log, 0

    def state(self, submitted: str) -> str:
        self.looks += 1
        said = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if isinstance(said, OSError):
            raise said
        return said

    def log(self, submitted: str) -> str:
        return self.text(self.looks)


def driven(lab: Lab, monkeypatch: pytest.MonkeyPatch, **lineage: str) -> Run:
    """A run that the job 'j' began to drive."""
    models = {"m": ScriptedModel(str)}
    plan = make_plan(lab.workflow(FLOW), lab.tasks(["x"]), models, lineage=Lineage(**lineage))
    run = Run(lab.objects, begin(lab.objects, plan.record, plan.tasks).run_id)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps({"metadata": {"job_submission_id": "j"}}))
    record_run(lab.objects.uri, run.run_id)
    return run


def code(lab: Lab, cluster: Told, kind: str = "backtest") -> int:
    """The exit code of submit."""
    return wait_for(Job(beam_ray.open(lab.objects.uri), "j", kind, cluster), resume="the same command", **QUICK).exit_code


@pytest.mark.parametrize(("verdict", "ray"), [(0, "FAILED"), (4, "SUCCEEDED"), (4, "FAILED"), (5, "STOPPED"), (0, "GONE")])
def test_the_verdict_counts_and_not_the_status(lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], verdict: int, ray: str):
    """A job wrongly reported, or killed after its verdict, cannot change the exit code; Ray's word is a note."""
    driven(lab, monkeypatch, backtest="b-1")
    lab.objects.create("backtests/b-1/verdict.json", seal({"exit_code": verdict}))

    assert code(lab, Told("RUNNING", ray)) == verdict
    assert (f"note: Ray says {ray}" in capsys.readouterr().err) == ((verdict == 0) != (ray == "SUCCEEDED"))


@pytest.mark.parametrize(("verdict", "left"), [(0, 0), (4, 5), (5, 5)])
def test_a_search_ends_by_the_verdict_on_its_held_out_tasks(lab: Lab, monkeypatch: pytest.MonkeyPatch, verdict: int, left: int):
    """Its runs over the search tasks say nothing of that; whatever speaks against a draft is 5, as where the command was typed."""
    driven(lab, monkeypatch, backtest="optimise-w", mode="search")
    driven(lab, monkeypatch, backtest="optimise-w-1", mode="candidate")
    lab.objects.create("backtests/optimise-w-1/verdict.json", seal({"exit_code": verdict}))

    assert code(lab, Told("RUNNING", "FAILED"), "optimise") == left


def test_a_search_without_a_verdict_ends_by_its_last_word(lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Nothing looked better, so nothing was held against the held-out tasks: 5 comes from the job itself, and no backtest is named."""
    driven(lab, monkeypatch, backtest="optimise-w", mode="search")
    record_exit(lab.objects, "j", "optimise", 5)

    assert code(lab, Told("FAILED"), "optimise") == 5
    assert "backtest" not in capsys.readouterr().out


def test_a_finished_run_is_0_although_its_job_was_killed(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    """The manifest is the proof."""
    driven(lab, monkeypatch).finish([], {})

    assert code(lab, Told("FAILED"), "run") == 0


def test_a_job_without_a_result_is_stopped(lab: Lab, monkeypatch: pytest.MonkeyPatch):
    """Even if Ray reports success: exit code 3, and the command that resumes."""
    driven(lab, monkeypatch)
    with pytest.raises(Stopped, match="left no result in .*; Ray says SUCCEEDED") as stopped:
        code(lab, Told("RUNNING", "SUCCEEDED"), "run")

    assert stopped.value.exit_code == 3
    assert stopped.value.resume == "the same command"


def test_lost_looks_cost_nothing(lab: Lab, capsys: pytest.CaptureFixture[str]):
    """If sockets drop and the dashboard restarts, the wait continues, and every line of the log is shown once."""
    lost = OSError("connection reset")

    def log(look: int) -> str:
        if look in (2, 3):
            raise lost
        if look == 6:
            record_exit(lab.objects, "j", "backtest", 5)
        return "".join(f"line {number}\n" for number in range(min(look, 8)))

    told = Told("PENDING", lost, "RUNNING", lost, lost, "RUNNING", "RUNNING", "FAILED", log=log)

    assert code(lab, told) == 5
    assert capsys.readouterr().err == "".join(f"line {number}\n" for number in range(8))


def test_a_job_that_ray_believes_to_run_for_ever_ends_with_its_last_word(lab: Lab, capsys: pytest.CaptureFixture[str]):
    """Stuck in RUNNING: the store knows better."""
    record_exit(lab.objects, "j", "rerun", 0)

    assert code(lab, Told("RUNNING"), "rerun") == 0
    assert "note: Ray says RUNNING" in capsys.readouterr().err


def test_a_cluster_that_never_answers_again_is_given_up(lab: Lab):
    """When its time-out is over, submit stops; the same command resumes."""
    with pytest.raises(Stopped, match="Ray says nothing"):
        code(lab, Told(OSError("no route")))


def test_open_clusters_are_refused_unless_one_insists(monkeypatch: pytest.MonkeyPatch):
    """A dashboard or a head that answers without a token is 2, in one line, before anything is sent to it."""
    monkeypatch.delenv("BEAM_RAY_OPEN_CLUSTER", raising=False)

    class Open(NodeInfoGcsServiceServicer):
        def CheckAlive(self, request: object, context: object) -> object:
            return CheckAliveReply()

    server = grpc.server(futures.ThreadPoolExecutor(1))
    add_NodeInfoGcsServiceServicer_to_server(Open(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with pytest.raises(Unusable, match="requires no token") as refused:
            require_cluster_token(f"127.0.0.1:{port}")
        monkeypatch.setenv("BEAM_RAY_OPEN_CLUSTER", "1")
        require_cluster_token(f"127.0.0.1:{port}")
    finally:
        server.stop(None).wait()
    monkeypatch.delenv("BEAM_RAY_OPEN_CLUSTER")
    with endpoint(lambda body: "") as dashboard, pytest.raises(Unusable, match="requires no token"):
        RayJobClient(dashboard.url.removesuffix("/v1"))

    assert refused.value.exit_code == 2
    assert "\n" not in str(refused.value)


def test_the_token_that_we_make_is_in_no_file(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """A new local cluster has a token of its own, made once, which its processes inherit; a home is not needed."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", "")  # so that what is made here is forgotten at the end
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    ensure_token()
    first = os.environ["RAY_AUTH_TOKEN"]
    ensure_token()

    assert len(first) == 64
    assert os.environ["RAY_AUTH_TOKEN"] == first
    assert list(tmp_path.iterdir()) == []


def test_an_existing_token_is_kept(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """The token file of the user's clusters is used for a local one too."""
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    (tmp_path / "token").write_text("canary")
    ensure_token()

    assert "RAY_AUTH_TOKEN" not in os.environ
