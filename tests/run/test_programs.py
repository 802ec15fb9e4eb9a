"""Programs: what they are given, what becomes of their output and their faults, and that their calls are ours."""

import asyncio
import json
import os
import shutil
import time
from pathlib import Path

import pytest

import beam_ray
from beam_ray.errors import ModelUnavailable, OutOfQuota, Stopped, WrongSetting
from beam_ray.llm import Request, ScriptedModel
from beam_ray.run.assignment import Assignment
from beam_ray.run.plan import make_plan
from beam_ray.run.runner import Runner
from beam_ray.run.tool_imports import remedy
from beam_ray.store.beginning import begin
from beam_ray.store.runs import Run
from tests.conftest import Lab, drive_here
from tests.endpoint import endpoint

HERE = Path(__file__).with_name("programs")


@pytest.fixture
def project(lab: Lab, monkeypatch) -> Lab:
    """A lab whose folder is the working folder."""
    monkeypatch.chdir(lab.folder)
    lab.write("asking.py", (HERE / "asking.py").read_text(encoding="utf-8"))
    return lab


def workflow(program: str, **more: object) -> str:
    """A workflow with one command, which runs a Python program of the project."""
    node = {"command": ["python", program], "with": {"text": "{{ task_query }}"}, **more}
    return json.dumps({"workflow": "programs", "nodes": {"answer": node}})


def outputs(lab: Lab, run) -> dict[str, object]:
    """What each task's program gave: its output, or its error."""
    return {task: json.loads(row["output"]) if row["output"] else row["error"] for task, row in lab.steps(run, "answer").items()}


TWICE = """
    import json, sys
    from asking import ask

    given = json.load(sys.stdin)
    first = ask(given["text"])["content"]
    print("a line for the log", file=sys.stderr)
    print(json.dumps({"first": first, "second": ask(first)["content"]}))
"""


def echo(request: Request) -> str:
    """Says what it was told."""
    return f"<{request.messages[-1]['content']}>"


def test_a_commands_calls_are_its_steps(project: Lab):
    """Counted, priced and recorded with the node, task and attempt that made them, in the order in which they began."""
    project.write("app.py", TWICE)
    run = project.run(workflow("app.py", asks=["m"]), ["a", "b"], echo)
    step = project.steps(run, "answer")["t1"]
    calls = [(row["task_id"], row["node"], row["attempt"], row["number"], row["name"], row["source"]) for row in run.calls().to_pylist()]

    assert outputs(project, run) == {"t0": {"first": "<a>", "second": "<<a>>"}, "t1": {"first": "<b>", "second": "<<b>>"}}
    assert calls == [(task, "answer", 1, number, "m", "live") for task in ("t0", "t1") for number in (1, 2)]
    assert (step["turns"], step["calls"], step["tool_calls"]) == (2, 2, 0)
    assert step["input_tokens"] > 0


def test_an_unchanged_program_replays_without_a_call(project: Lab):
    """Executed again, it gets every answer from the recording, and gives the same output."""
    project.write("app.py", TWICE)
    origin = project.run(workflow("app.py", asks=["m"]), ["a", "b"], echo)
    project.write("app.py", TWICE + "    # another version\n")
    again = project.rerun(origin, ["t0", "t1"], project.workflow(workflow("app.py", asks=["m"])), refuse)
    step = project.steps(again, "answer")["t0"]

    assert outputs(project, again) == outputs(project, origin)
    assert (step["outcome"], step["calls"], step["calls_recorded"], step["diverged_at"]) == ("done", 0, 2, None)


def refuse(request: Request) -> str:
    """A model that must not be asked."""
    raise ModelUnavailable("it was asked")


FAULTS = {
    "raises": ("raise SystemExit('no order in this text')", "ended with exit code 1; the end of its standard error:\nno order in this text"),
    "kills itself": ("import os; os.kill(os.getpid(), 11)", "was killed by SIGSEGV"),
    "prints no JSON": ("print('Hello'); import sys; print('debug', file=sys.stderr)", "its standard output is not JSON"),
    "prints nothing": ("pass", "it is empty; logs belong on standard error"),
    "prints a log first": ("print('starting'); print('{}')", "it begins with 'starting\\n{}'"),
    "prints NaN": ("print('NaN')", "is not JSON (NaN is not a JSON value)"),
    "prints too much": ("print('\"' + 'x' * 9_000_000 + '\"')", "its result has more than 8,000,000 bytes"),
    "prints its key": ("import os, sys; sys.exit('my key is ' + os.environ['OPENAI_API_KEY'])", "my key is [key]"),
    "reads nothing": ("import sys; sys.exit('not now')", "ended with exit code 1"),
    "has no time": ("import time; time.sleep(60)", "took longer than 1.5 s and was killed"),
}


def test_what_goes_wrong_in_a_program_is_said_with_the_end_of_its_standard_error(project: Lab):
    """Each fails its own row, and says what it did."""
    for name, (body, _) in FAULTS.items():
        project.write(f"{name}.py", body)
    project.write("app.py", "import json, runpy, sys\nrunpy.run_path(json.load(sys.stdin)['text'] + '.py')\n")
    found = outputs(project, project.run(workflow("app.py", asks=["m"], timeout_s=1.5), list(FAULTS), echo))
    missing = [(name, said, found[f"t{index}"]) for index, (name, (_, said)) in enumerate(FAULTS.items()) if said not in str(found[f"t{index}"])]

    assert missing == []


def test_a_program_is_limited_to_the_memory_of_its_node(project: Lab):
    """What takes more fails its own row."""
    project.write("app.py", "import json\nprint(json.dumps(len(bytearray(400_000_000))))\n")
    limited = outputs(project, project.run(workflow("app.py", resources={"memory": 150_000_000}), ["a"], echo))

    assert "MemoryError" in str(limited["t0"])
    assert outputs(project, project.run(workflow("app.py"), ["a"], echo)) == {"t0": 400_000_000}


def test_a_program_that_cannot_be_started_says_why(project: Lab):
    """As where a script has no interpreter."""
    project.write("app", "#!/no/such/interpreter\n").chmod(0o755)
    text = json.dumps({"workflow": "w", "nodes": {"answer": {"command": ["./app"]}}})

    assert outputs(project, project.run(text, ["a"], echo)) == {"t0": "./app cannot be started: No such file or directory"}


def test_a_program_is_killed_with_everything_that_it_started(project: Lab):
    """Also where it gave its result and left something running."""
    project.write("app.py", "import json, subprocess\nprint(json.dumps({'child': subprocess.Popen(['sleep', '300']).pid}))\n")
    found = outputs(project, project.run(workflow("app.py"), ["a"], echo))
    child = found["t0"]["child"]
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{child}") and time.monotonic() < deadline:
        time.sleep(0.05)

    assert not os.path.exists(f"/proc/{child}")


def test_a_program_sees_what_tools_see_and_a_key_only_if_it_asks(project: Lab, monkeypatch):
    """No secret of the runner, and no address of a model for a program that has none to ask."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-real")
    monkeypatch.setenv("BEAM_RAY_TOOL_REGION", "eu")
    project.write("app.py", "import json, os\nprint(json.dumps({'env': sorted(os.environ), 'cwd': os.getcwd()}))\n")
    found = [outputs(project, project.run(workflow("app.py", **more), ["a"], echo))["t0"] for more in ({}, {"asks": "m"})]

    assert {"PATH", "BEAM_RAY_TOOL_REGION"} <= set(found[0]["env"])
    assert {"OPENAI_API_KEY", "OPENAI_BASE_URL", "BEAM_RAY_TEST_SECRET"} & set(found[0]["env"]) == set()
    assert set(found[1]["env"]) - set(found[0]["env"]) == {"OPENAI_API_KEY", "OPENAI_BASE_URL", "BEAM_RAY_GATEWAY", "BEAM_RAY_GATEWAY_KEY"}
    assert found[0]["cwd"] == os.path.realpath(project.folder)


TOOLS = """
    import openai

    client = openai.AsyncOpenAI()
    seen = 0

    async def answer(text):
        global seen
        seen += 1
        print("a line for the log")
        reply = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}])
        return {"said": reply.choices[0].message.content, "seen": seen}
"""


def test_an_async_tool_that_asks_runs_in_a_process_of_its_own(project: Lab):
    """With a client made when its module is imported, as many programs have; nothing of one attempt is left in another."""
    project.write("tools/app.py", TOOLS)
    text = """
    workflow: w
    nodes: {answer: {tool: "tools.app:answer", with: {text: "{{ task_query }}"}, asks: m}}
    """
    run = project.run(text, ["a", "b"], echo)

    assert outputs(project, run) == {"t0": {"said": "<a>", "seen": 1}, "t1": {"said": "<b>", "seen": 1}}
    assert run.calls().num_rows == 2


def test_a_run_that_stops_ends_its_programs_and_goes_on_from_their_last_answer(project: Lab):
    """The row stays open; what was answered before is not asked again."""
    project.write("app.py", TWICE)
    asked: list[str] = []

    def answer(request: Request) -> str:
        asked.append(str(request.messages[-1]["content"]))
        if len(asked) == 2:
            raise OutOfQuota("no money")
        return echo(request)

    models = {"m": ScriptedModel(answer)}
    plan = make_plan(project.workflow(workflow("app.py", asks=["m"])), project.tasks(["a"]), models)
    record = begin(project.objects, plan.record, plan.tasks)
    with pytest.raises(OutOfQuota):
        asyncio.run(drive_here(project.objects, record, models))
    asyncio.run(drive_here(project.objects, record, models))
    run = Run(project.objects, record.run_id)
    step = project.steps(run, "answer")["t0"]

    assert outputs(project, run) == {"t0": {"first": "<a>", "second": "<<a>>"}}
    assert asked == ["a", "<a>", "<a>"]
    assert (step["calls"], step["outcome"]) == (2, "done")


def test_another_attempt_is_another_sample(project: Lab):
    """It asks anew, and its calls are kept apart."""
    project.write("app.py", TWICE)
    evaluate = {"criteria": [{"check": "'!' in answer.first"}]}
    text = workflow("app.py", asks=["m"], evaluate=evaluate, auto_rerun={"max": 1})
    run = project.run(text, ["a"], lambda request: f"{request.messages[-1]['content']}{'!' * (request.attempt - 1)}")

    assert outputs(project, run) == {"t0": {"first": "a!", "second": "a!!"}}
    assert [(row["attempt"], row["number"]) for row in run.calls().to_pylist()] == [(1, 1), (1, 2), (2, 1), (2, 2)]


@pytest.mark.skipif(not shutil.which("node"), reason="node is not installed")
def test_a_javascript_program_asks_with_fetch(project: Lab):
    """A command may be in any language."""
    project.write("agent.mjs", AGENT_JS)
    text = json.dumps({"workflow": "w", "nodes": {"answer": {"command": ["node", "agent.mjs"], "asks": "m", "with": {"text": "{{ task_query }}"}}}})

    assert outputs(project, project.run(text, ["a"], echo)) == {"t0": {"said": "<a>", "status": 404}}


AGENT_JS = """
    let text = '';
    for await (const piece of process.stdin) text += piece;
    const ask = (model) => fetch(`${process.env.OPENAI_BASE_URL}/chat/completions`, {
      method: 'POST',
      headers: {'Content-Type': 'application/json', Authorization: `Bearer ${process.env.OPENAI_API_KEY}`},
      body: JSON.stringify({model, messages: [{role: 'user', content: JSON.parse(text).text}]}),
    });
    const reply = await (await ask('m')).json();
    console.error('done');
    console.log(JSON.stringify({said: reply.choices[0].message.content, status: (await ask('gpt-9')).status}));
"""


def test_a_program_that_is_not_installed_is_said_before_the_first_row(project: Lab):
    """On the machine that would start it, and by check."""
    text = json.dumps({"workflow": "w", "nodes": {"answer": {"command": ["no-such-agent"], "version": "1"}}})
    checked = beam_ray.open(project.objects.uri).check(str(project.write("w.yaml", text)))
    plan = make_plan(checked.workflow, project.tasks(["a"]), {})
    record = begin(project.objects, plan.record, plan.tasks)
    [missing] = asyncio.run(Runner(Assignment(project.objects.uri, record.run_id, {}, "here", 32)).missing_modules())

    assert remedy(checked.workflow, missing, local=True) == (
        "workflow w, node answer: the program 'no-such-agent' is not installed here (PATH has no such program)"
    )
    assert [str(warning) for warning in checked.warnings] == [f"warning: {remedy(checked.workflow, missing, local=True)}"]


def test_check_says_that_programs_wait_for_no_batch(project: Lab):
    """A process that waits for a day is none that anybody wants."""
    models = {"m": beam_ray.ModelSettings(base_url="http://127.0.0.1:1/v1", model="x", lane="batch")}
    project.write("app.py", TWICE)
    checked = beam_ray.open(project.objects.uri, models=models).check(str(project.write("w.yaml", workflow("app.py", asks=["m"]))))

    assert [str(warning) for warning in checked.warnings] == [
        "programs: nodes.answer.asks: note: node 'answer' asks 'm' interactively, at the full price, because a program cannot wait for a batch"
    ]


def test_an_interrupted_run_ends_its_programs_at_once(project: Lab):
    """Their steps stay open, and what they were answered is in the store."""
    project.write("app.py", TWICE.replace("print(json.dumps", "import time; time.sleep(60)\n    print(json.dumps"))
    models = {"m": ScriptedModel(echo)}
    plan = make_plan(project.workflow(workflow("app.py", asks=["m"])), project.tasks(["a"]), models)
    record = begin(project.objects, plan.record, plan.tasks)

    async def interrupted() -> float:
        runner = Runner(Assignment(project.objects.uri, record.run_id, models, "here", 32))
        step = asyncio.create_task(runner.step(0, "answer"))
        while len(spooled := [row for table in runner.run.spooled() for row in table.to_pylist()]) < 1 or len(spooled[-1]["call_rows"]) < 1:
            await asyncio.sleep(0.1)
        began = time.monotonic()
        await runner.drain("interrupted")
        with pytest.raises(Stopped, match="interrupted"):
            await step
        await runner.stop()
        return time.monotonic() - began

    assert asyncio.run(interrupted()) < 20
    assert not Run(project.objects, record.run_id).parts()


def test_an_endpoint_without_the_api_that_a_library_chose_stops_the_run(project: Lab):
    """As it would refuse every row; the error says what may be meant."""
    project.write("app.py", "import openai\nopenai.OpenAI().responses.create(model='m', input='x')\n")
    with endpoint(lambda body: (404, {}, {"error": {"message": "Not found"}})) as served:
        models = {"m": beam_ray.ModelSettings(base_url=served.url, model="x")}
        plan = make_plan(project.workflow(workflow("app.py", asks=["m"])), project.tasks(["a"]), models)
        with pytest.raises(WrongSetting, match="where the endpoint has none, let it use chat completions"):
            asyncio.run(drive_here(project.objects, begin(project.objects, plan.record, plan.tasks), models))


def test_a_program_that_leaves_its_recording_fails_where_it_must_not(project: Lab):
    """``on_miss: fail`` makes a rerun a test of the program alone: no model is asked."""
    project.write("app.py", TWICE)
    origin = project.run(workflow("app.py", asks=["m"], on_miss="fail"), ["a"], echo)
    project.write("app.py", TWICE.replace("ask(first)", "ask(first + '?')"))
    again = project.rerun(origin, ["t0"], project.workflow(workflow("app.py", asks=["m"], on_miss="fail")), refuse)

    assert outputs(project, again) == {"t0": "call 2 left the recording, which has no answer of 'm' to it; on_miss is fail"}
