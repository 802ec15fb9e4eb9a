"""Who may use the console, and what a page from elsewhere can do: nothing."""

import html
import http.client
import json
import re
import urllib.parse
from dataclasses import dataclass, field

import pytest

from beam_ray.console.options import ConsoleOptions
from beam_ray.console.security import allowed_hosts
from beam_ray.console.server import FORMS
from tests.console.conftest import Served, served
from tests.console.shop import Shop


@dataclass
class Client:
    """One browser without a window."""

    to: Served
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: str | None = None, **headers: str) -> "http.client.HTTPResponse":
        """The answer, read."""
        port = int(self.to.base.rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        sent = {"Host": f"127.0.0.1:{port}", **self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        connection.request(method, path, body, {name: value for name, value in sent.items() if value})
        answer = connection.getresponse()
        answer.text = answer.read().decode()  # type: ignore[attr-defined]
        connection.close()
        return answer


@pytest.fixture
def outside(console: Served) -> Client:
    """A client that knows no token."""
    return Client(console)


@pytest.fixture
def inside(console: Served) -> Client:
    """A client that has exchanged the token for a cookie."""
    return log_in(console)


def log_in(console: Served) -> Client:
    """See ``inside``."""
    answer = Client(console).ask("GET", console.address.removeprefix(console.base))
    cookie = str(answer.headers["Set-Cookie"])
    assert answer.status == 303
    assert "token" not in answer.headers["Location"]
    assert [word in cookie for word in ("HttpOnly", "SameSite=strict", f"beam_ray_console_{console.base.rpartition(':')[2]}=")] == [True] * 3
    return Client(console, {"Cookie": cookie.partition(";")[0]})


PATHS = ["/", "/tasks", "/tasks.json", "/runs", "/backtests", "/events", "/rerun?task=x/y", "/nothing", "/compare.md?a=1&b=2"]


@pytest.mark.parametrize("path", PATHS)
def test_without_the_cookie_nothing_is_shown(path: str, outside: Client):
    """Whatever is asked for, also what is not there."""
    answer = outside.ask("GET", path)

    assert answer.status == 403
    assert "order-" not in answer.text


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "localhost:1", "127.0.0.1.evil.example:8090", "evil.example:8090", ""])
def test_another_host_is_refused_by_name(host: str, inside: Client):
    """A page that gives its own name the address of this machine reads nothing, with the cookie or without; the refusal says what to do."""
    answer = inside.ask("GET", "/tasks", Host=host or "x")

    assert answer.status == 403
    assert "--allow-host" in answer.text


def test_a_wrong_token_and_a_guessed_cookie(outside: Client, console: Served):
    """Both are refused, and the cookie is not the token."""
    token = console.address.partition("token=")[2]
    name = f"beam_ray_console_{console.base.rpartition(':')[2]}"

    assert outside.ask("GET", "/?token=wrong").status == 403
    assert outside.ask("GET", "/tasks", Cookie=f"{name}={token}").status == 403
    assert outside.ask("GET", "/tasks", Cookie=f"{name}=").status == 403


@pytest.mark.parametrize("path", ["//evil.example/x", "/\\evil.example", "/%2F%2Fevil.example"])
def test_the_token_leads_nowhere_else(path: str, outside: Client, console: Served):
    """After the exchange the browser stays on the console."""
    answer = outside.ask("GET", f"{path}?token={console.address.partition('token=')[2]}")

    assert answer.status == 303
    assert re.match(r"/[^/\\]", answer.headers["Location"])


def form(client: Client, shop: Shop) -> dict[str, str]:
    """The fields of the form that starts a rerun."""
    page = client.ask("GET", f"/rerun?task={shop.run}/order-014").text
    return dict(re.findall(r'<input type="hidden" name="(form_token|key)" value="(\w+)">', page)) | {"task": f"{shop.run}/order-014", "using": "published"}


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": ""}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Cookie": ""}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/json"}, 415),
        ({"Content-Length": "2000000"}, 413),
        ({"form_token": "0" * 64}, 400),
        ({"form_token": ""}, 400),
        ({"key": "../../x"}, 400),
        ({"key": ""}, 400),
        ({"using": "/etc/passwd"}, 400),
        ({"task": "--allow-writes"}, 400),
        ({"task": "-x/y"}, 400),
    ],
    ids=lambda value: json.dumps(value)[:40] if isinstance(value, dict) else "",
)
def test_a_change_from_elsewhere_is_refused(change: dict[str, str], status: int, inside: Client, shop: Shop):
    """Each guard alone is enough, and nothing is started."""
    fields, before = form(inside, shop), len(shop.store.run_ids())
    headers = {"Origin": inside.to.base, "Sec-Fetch-Site": "same-origin", "Content-Type": FORM}
    for name, value in change.items():
        (fields if name in ("form_token", "key", "using", "task") else headers)[name] = value
    if "Content-Length" in headers:
        body = "x" * 10
    else:
        body = urllib.parse.urlencode(fields)
    answer = inside.ask("POST", "/rerun", body, **headers)

    assert answer.status == status, answer.text[-500:]
    assert len(shop.store.run_ids()) == before


@pytest.mark.parametrize("header", [{"Cookie": "beam_ray_console_{port}=\xe9"}, {"Origin": "http://["}], ids=["cookie", "origin"])
def test_headers_that_no_browser_sends_are_refused(header: dict[str, str], inside: Client):
    """As any other wrong one; the console has no fault over it."""
    port = inside.to.base.rpartition(":")[2]
    wrong = {name: value.replace("{port}", port) for name, value in header.items()}

    assert inside.ask("POST", "/rerun", "key=a1", **({"Origin": inside.to.base, "Content-Type": FORM} | wrong)).status == 403


LONG = "9" * 5_000


@pytest.mark.parametrize(
    "path",
    [
        "/flows/purchase-orders?version={long}",
        "/tasks?version={long}",
        "/tasks?version=" + "9" * 30,
        "/tasks/{run}/order-001?trial={long}",
        "/download?task={run}/order-001&attachment={long}",
        "/review?workflow=purchase-orders&count={long}",
        "/backtests/new?workflow=purchase-orders&trials={long}",
    ],
)
def test_a_number_that_is_too_long_is_refused(path: str, inside: Client, shop: Shop):
    """In one line, and not as a fault of the console."""
    assert inside.ask("GET", path.format(long=LONG, run=shop.run)).status == 400


def test_no_address_reads_a_workflow_from_a_file(inside: Client, shop: Shop):
    """Neither one beside the store nor one elsewhere on the machine, whatever is asked of it."""
    file = str(shop.folder / "purchase-orders.yaml")
    found = {path: inside.ask("GET", path).status for path in ("/flows/purchase-orders.yaml", "/health/purchase-orders.yaml")}
    coverage = json.loads(inside.ask("GET", f"/libraries/regressions/coverage.json?{urllib.parse.urlencode({'workflow': file})}").text)
    form = inside.ask("GET", f"/backtests/new?{urllib.parse.urlencode({'workflow': file})}").text

    assert found == {"/flows/purchase-orders.yaml": 404, "/health/purchase-orders.yaml": 404}
    assert "reads none from files" in coverage["refused"]
    assert "nodes.extract.llm.prompt" not in form


@pytest.mark.parametrize("method", ["PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"])
def test_other_methods_are_refused(method: str, inside: Client):
    """There is GET, HEAD and POST."""
    assert inside.ask(method, "/tasks").status == 405


def filled(path: str, shop: Shop) -> str:
    """A form's address in the shop."""
    known = {"run": shop.run, "backtest": shop.backtest, "workflow": "purchase-orders", "name": "purchase-orders"}
    return re.sub(r"\{(\w+)(?::path)?\}", lambda found: known.get(found[1], "x"), path)


GUARDS: dict[str, tuple[dict[str, str], int]] = {
    "no token": ({"Cookie": ""}, 403),
    "wrong token": ({"Cookie": "beam_ray_console_1=x"}, 403),
    "wrong host": ({"Host": "evil.example"}, 403),
    "other origin": ({"Origin": "http://evil.example"}, 403),
    "no origin": ({"Origin": ""}, 403),
    "cross-site": ({"Sec-Fetch-Site": "cross-site"}, 403),
    "same-site": ({"Sec-Fetch-Site": "same-site"}, 403),
    "as JSON": ({"Content-Type": "application/json"}, 415),
    "without the form's token": ({}, 400),
}
"""What is wrong with a request, and its answer. All forms have to refuse each of them."""


def contents(shop: Shop) -> dict[str, int]:
    """The files of the store with their sizes."""
    return {str(path): path.stat().st_size for path in (shop.folder / "store").rglob("*") if path.is_file()}


@pytest.mark.parametrize("path", [path for path, *_ in FORMS])
def test_no_form_can_be_sent_from_elsewhere(path: str, inside: Client, shop: Shop):
    """Each form refuses each of GUARDS, for one reason alone, and changes nothing; a GET of its address changes nothing either."""
    before, found = contents(shop), {}
    good = {"Origin": inside.to.base, "Sec-Fetch-Site": "same-origin", "Content-Type": FORM}
    for name, (wrong, _) in GUARDS.items():
        found[name] = inside.ask("POST", filled(path, shop), "key=a1&task=x%2Fy", **(good | wrong)).status
    got = inside.ask("GET", filled(path, shop)).status

    assert found == {name: status for name, (_, status) in GUARDS.items()}
    assert got in (200, 303, 400, 404, 405)
    assert contents(shop) == before


def test_a_console_that_is_only_read_has_no_routes_that_change(shop: Shop):
    """Whatever form is sent, with everything right about it."""
    with served(shop.folder, "--read-only") as only:
        client = log_in(only)
        fields = urllib.parse.urlencode({"form_token": "x", "key": "a1", "task": f"{shop.run}/order-014", "using": "published"})
        answers = {path: client.ask("POST", filled(path, shop), fields, Origin=only.base, Content_Type=FORM).status for path, *_ in FORMS}

    assert set(answers.values()) <= {404, 405}, answers


@pytest.mark.parametrize("path", ["/", "/tasks", "/static/console.css", "/nothing", "/tasks.json"])
def test_every_answer_has_the_headers(path: str, inside: Client):
    """Nothing from elsewhere, nothing inline, no frame, no guessing of types, no referrer."""
    headers = inside.ask("GET", path).headers

    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin"
    assert "uvicorn" not in str(headers.get("server", ""))


@pytest.mark.parametrize("path", ["/static/../options.py", "/static/%2e%2e/options.py", "/static//etc/passwd", "/static/..%2foptions.py"])
def test_no_file_beside_the_static_ones(path: str, inside: Client):
    """Whatever the path is made of."""
    assert inside.ask("GET", path).status in (400, 404)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("colour=red", "knows no"),
        ("sort=colour", "cannot be sorted"),
        ("version=x", "neither a number"),
        ("limit=7", "50, 100, 200"),
        ("where=score+%3C", "where"),
    ],
)
def test_a_query_that_means_nothing_is_refused_with_what_there_is(query: str, words: str, inside: Client):
    """A misspelled filter never shows everything."""
    answer = inside.ask("GET", f"/tasks.json?{query}")

    assert answer.status == 400
    assert words in json.loads(answer.text)["error"]


@pytest.mark.parametrize(
    "path", ["/tasks?q=%00", "/flows/%00/versions", f"/tasks?version={'9' * 5000}", f"/tasks?version={'9' * 20}", "/backtests/new?repeat=%00"]
)
def test_what_no_text_and_no_number_can_be_is_answered(path: str, inside: Client):
    """NUL characters, and numbers that Python or a column cannot hold, are no faults of the server."""
    assert inside.ask("GET", path).status < 500


def test_a_cookie_that_is_not_ascii_opens_nothing(outside: Client, console: Served):
    """It is refused like any other."""
    assert outside.ask("GET", "/tasks", Cookie=f"beam_ray_console_{console.base.rpartition(':')[2]}=\xe9").status == 403


def test_a_condition_that_runs_for_long_is_refused(inside: Client):
    """The work that one task may cause is not done for every task."""
    slow = urllib.parse.quote("range(99999) | map('upper') | map('lower') | map('title') | unique | list | length > 0")
    answer = inside.ask("GET", f"/tasks.json?where={slow}")

    assert answer.status == 400
    assert "takes too long" in json.loads(answer.text)["error"]


@pytest.mark.parametrize("path", ["/libraries/regressions/coverage?workflow=", "/review/agreement?workflow="])
def test_a_command_to_copy_holds_what_a_link_says_as_one_word(path: str, inside: Client):
    """Whoever follows somebody's link and copies the command of the page runs no other one."""
    copied = re.findall(r'data-copy="([^"]*)"', inside.ask("GET", path + urllib.parse.quote("$(touch x) --store=y")).text)
    named = [line for line in map(html.unescape, copied) if "touch" in line]

    assert named
    assert [line for line in named if "'$(touch x) --store=y'" not in line] == []


def test_json_that_is_nested_too_deeply_is_refused(inside: Client, shop: Shop):
    """A pasted expected outcome, or changed variables, of a hundred thousand brackets is no fault of the server."""
    deep, headers = '{"a": ' + "[" * 100_000, {"Origin": inside.to.base, "Content_Type": FORM}
    fields = form(inside, shop)
    rerun = inside.ask("POST", "/rerun", urllib.parse.urlencode({**fields, "variables": deep}), **headers)
    edit = inside.ask("POST", "/libraries/regressions/edit", urllib.parse.urlencode({**fields, "task": "order-025", "expected": deep}), **headers)

    assert (rerun.status, edit.status) == (400, 400)


def test_no_link_of_a_refusal_leads_to_another_host(inside: Client):
    """Also where the address begins with two slashes."""
    answer = inside.ask("GET", "//evil.example/x")

    assert answer.status == 404
    assert 'href="//' not in answer.text


def test_hosts():
    """On loopback its names with the port; behind a proxy also the proxy's name, with or without one."""
    near, far = allowed_hosts(ConsoleOptions(port=9)), allowed_hosts(ConsoleOptions(host="0.0.0.0", port=9, allow_hosts=("beam.example", "x.example:443")))

    assert near == {"127.0.0.1:9", "localhost:9", "[::1]:9"}
    assert far == {"0.0.0.0:9", "beam.example", "beam.example:9", "x.example:443"}
