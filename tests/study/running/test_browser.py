"""JupyterLab's server, and the notebooks in it in a real browser: `make test-lab`. Screenshots go to data/runs/lab."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlparse

import nbformat
import psutil
import pytest

from hrebasin.files import project_root
from hrebasin.study import records
from hrebasin.study.claims.verdicts import VERDICTS
from hrebasin.study.running.lab import environment

IN_BROWSER = pytest.mark.lab
ROOT = project_root()
SCREENSHOTS = ROOT / "data" / "runs" / "lab"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LOOPBACK = ("127.0.0.1", "::1", "localhost")
WAIT = 60_000  # ms, for JupyterLab and its kernel to start
MINUTES = 4  # for a notebook to run on a busy machine; what the notebooks promise is asserted below
# Runs first in every Python process of the server and writes down whom it calls outside of this machine.
AUDIT = """
import os, sys

def listen(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo"):
        address = arguments[0 if event == "socket.getaddrinfo" else 1]
        host = address[0] if isinstance(address, tuple) else address
        local = not isinstance(host, str) or host.startswith(("/", "127.")) or host in ("", "::1", "localhost")
        if not local:
            with open(os.environ["CALLS"], "a") as log:
                log.write(f"{event} {host}\\n")

sys.addaudithook(listen)
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of what the notebooks need, so that running them changes nothing here."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copy(ROOT / "pyproject.toml", folder)
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    (folder / "data").mkdir()
    for name in ("published", "cifar10-sample.nc"):
        (folder / "data" / name).symlink_to(ROOT / "data" / name)
    (folder / "audit").mkdir()
    (folder / "audit" / "sitecustomize.py").write_text(AUDIT)
    return folder


@pytest.fixture(scope="module")
def variables(project):
    """The environment of every process that is watched."""
    return os.environ | {"PYTHONPATH": str(project / "audit"), "CALLS": str(project / "calls")}


def calls(project):
    """Whom processes of the server have called outside of this machine."""
    return (project / "calls").read_text().splitlines() if (project / "calls").exists() else []


@pytest.fixture(scope="module")
def server(project, variables):
    """JupyterLab as `make lab` starts it; gives what it writes down of itself: address, token, process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "hrebasin.study.command", "lab", "--no-browser", f"--port={port}"]
    command += ["--allow-root"] if os.name == "posix" and os.geteuid() == 0 else []
    log = project / "server.log"
    with log.open("w") as stream:
        process = subprocess.Popen(command, cwd=project, env=variables, stdout=stream, stderr=stream)
    try:
        runtime = Path(environment(project / ".jupyter")["JUPYTER_DATA_DIR"], "runtime")
        for _ in range(WAIT // 100):
            if (found := list(runtime.glob("jpserver-*.json"))) and answers(port):  # written before it listens
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield json.loads(found[0].read_text())
    finally:
        process.terminate()
        process.wait(30)


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@pytest.fixture(scope="module")
def requests():
    """Addresses of all requests of the browser."""
    return []


@pytest.fixture(scope="module")
def page(server, requests):
    """A tab of Chromium, which can reach this machine only."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="make test-lab installs playwright")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium")
    options = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-background-networking"]
    options += ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("request", lambda request: requests.append(request.url))
        page.set_default_timeout(WAIT)
        yield page
        browser.close()


def ask(server, path, method="GET"):
    """The server's answer to a request with the token."""
    request = urllib.request.Request(f"{server['url']}{path}?token={server['token']}", method=method)
    with urllib.request.urlopen(request) as answer:
        text = answer.read()
    return json.loads(text) if text else None


def open_notebook(page, server, name):
    """Open a notebook with a kernel of its own; those of others end."""
    for session in ask(server, "api/sessions"):
        ask(server, f"api/sessions/{session['id']}", "DELETE")
    page.goto(f"{server['url']}lab/tree/notebooks/{name}.ipynb?reset&token={server['token']}")
    page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for()


def run_all(page):
    """Run All Cells from the menu; seconds until every cell has run."""
    start = time.perf_counter()
    page.locator(".lm-MenuBar-item", has_text="Run").first.click()
    page.locator('[data-command="runmenu:run-all"]').click()
    done = r"""() => [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].every(
        (prompt) => /\[\d+\]/.test(prompt.textContent))"""
    page.wait_for_function(done, timeout=MINUTES * 60_000)
    page.locator("#jp-main-statusbar").get_by_text("| Idle").wait_for()
    return time.perf_counter() - start


def saved(page, project, name):
    """The notebook as JupyterLab saves it."""
    path = project / "notebooks" / f"{name}.ipynb"
    before = path.stat().st_mtime_ns
    page.keyboard.press("Escape")
    page.keyboard.press("Control+s")
    for _ in range(100):
        if path.stat().st_mtime_ns != before:
            break
        page.wait_for_timeout(100)
    page.wait_for_timeout(300)
    return nbformat.read(path, as_version=4)


def outputs(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def photograph(page, name):
    """The whole notebook as one picture, in a window that is high enough for it."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}-window.png")
    height = page.evaluate("() => document.querySelector('.jp-WindowedPanel-outer').scrollHeight")
    page.set_viewport_size({"width": 1280, "height": min(height + 150, 12_000)})
    page.evaluate("() => { document.querySelector('.jp-WindowedPanel-outer').scrollTop = 0 }")
    page.wait_for_timeout(1500)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")
    page.set_viewport_size({"width": 1280, "height": 900})


def pictures(page):
    return page.locator(".jp-RenderedImage img").evaluate_all("(images) => images.map((image) => image.src)")


def column(page, heading):
    """The column of a table that has exactly this heading."""
    return page.locator("th").filter(has_text=re.compile(rf"^\s*{re.escape(heading)}\s*$"))


# ---- the server


def test_requests_without_the_token_are_refused(server):
    for query in ("", "?token=", f"?token={server['token'][:-1]}"):
        for path in ("api/contents", "api/kernels", "api/contents/pyproject.toml"):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{server['url']}{path}{query}")
            assert refused.value.code == 403, path
            refused.value.close()
        with urllib.request.urlopen(f"{server['url']}files/pyproject.toml{query}") as answer:
            assert urlparse(answer.url).path == "/login"
    assert ask(server, "api/contents")["type"] == "directory"
    assert len(server["token"]) >= 32


def test_it_listens_on_this_machine_only(server):
    listening = [c.laddr for c in psutil.Process(server["pid"]).net_connections() if c.status == "LISTEN"]
    assert server["port"] in [address.port for address in listening]
    assert {address.ip for address in listening} <= set(LOOPBACK)


def test_its_only_kernel_is_the_python_that_has_the_library(server):
    assert list(ask(server, "api/kernelspecs")["kernelspecs"]) == ["python3"]


def test_it_does_not_start_without_a_token(project, variables):
    command = [sys.executable, "-m", "hrebasin.study.command", "lab", "--no-browser", "--allow-root"]
    command += ["--IdentityProvider.token="]
    ended = subprocess.run(command, cwd=project, env=variables, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert "error: the token is switched off" in ended.stderr


# ---- the notebooks


@IN_BROWSER
def test_the_tour_runs_in_two_minutes_and_shows_its_figures(page, server, project):
    open_notebook(page, server, "00_tour")
    seconds = run_all(page)
    notebook = saved(page, project, "00_tour")
    photograph(page, "00_tour")
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert len(pictures(page)) == 5
    cells = page.locator("td").all_text_contents()
    ledger = records.read(ROOT / "data" / "published" / "augmented" / "ledger.nc", stage="ledger")
    given = [verdict for verdict in ledger.verdict.values if verdict in VERDICTS]
    assert [cell.strip() for cell in cells if cell.strip() in VERDICTS] == given
    print(f"00_tour: {seconds:.0f} s", file=sys.stderr)
    if not os.environ.get("HREBASIN_BUSY"):
        assert seconds < 120


@IN_BROWSER
def test_the_explorer_follows_its_slider(page, server, project):
    open_notebook(page, server, "10_explore")
    run_all(page)
    page.locator(".jp-RenderedImage img").first.wait_for()
    [before], heading = pictures(page), column(page, "robust at 0.01 (%)")
    assert heading.count() == 1
    photograph(page, "10_explore")
    page.locator(".widget-slider .noUi-handle").first.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    column(page, "robust at 0.013 (%)").wait_for()
    [after] = pictures(page)
    assert after != before
    assert heading.count() == 0
    page.locator(".widget-dropdown select").first.select_option("DeepFool, minimal norm")
    page.wait_for_function(
        "(old) => { const now = document.querySelector('.jp-RenderedImage img'); return now && now.src !== old }",
        arg=after,
    )
    photograph(page, "10_explore-moved")
    assert outputs(saved(page, project, "10_explore")) == []  # to look at a notebook changes no file of the checkout


@IN_BROWSER
def test_own_networks_are_merged_attacked_and_measured_with_an_own_method(page, server, project):
    open_notebook(page, server, "11_your_networks")
    run_all(page)
    notebook = saved(page, project, "11_your_networks")
    photograph(page, "11_your_networks")
    assert not [output for output in outputs(notebook) if output.output_type == "error"]
    assert len(pictures(page)) == 4
    assert column(page, "median, matched to the first of 4").count() == 1


@IN_BROWSER
def test_a_copy_that_papermill_executed_opens_as_it_was_left(page, server, project, variables):
    notebook, target = ROOT / "notebooks" / "10_explore.ipynb", project / "notebooks" / "executed.ipynb"
    command = [sys.executable, "-m", "papermill", "-k", "python3", str(notebook), str(target), "-p", "epsilon", "0.005"]
    subprocess.run(command, cwd=project, env=variables, check=True, capture_output=True)
    open_notebook(page, server, "executed")
    page.locator(".jp-RenderedImage img").first.wait_for()
    column(page, "robust at 0.005 (%)").wait_for()
    photograph(page, "executed")
    assert page.locator(".jp-Dialog").count() == 0
    assert page.get_by_text("Error displaying widget").or_(page.get_by_text("Loading widget")).count() == 0
    assert page.get_by_text("epsilon = 0.005").count() == 1


# ---- the end: nothing has left this machine


@IN_BROWSER
def test_no_request_left_this_machine(page, server, requests, project, variables):
    assert len(requests) > 100
    strangers = {urlparse(url).hostname for url in requests} - {None} - set(LOOPBACK)
    assert strangers == set()
    assert calls(project) == []
    # what writes calls down does so
    probe = "import socket; s = socket.socket(); s.settimeout(0.01); s.connect(('192.0.2.1', 9))"
    subprocess.run([sys.executable, "-c", probe], env=variables, capture_output=True)
    assert calls(project) == ["socket.connect 192.0.2.1"]
