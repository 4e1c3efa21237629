"""Plug-ins that run tests again, each in the manner of one that people use."""

RERUN = '''
from _pytest.runner import runtestprotocol


def pytest_runtest_protocol(item, nextitem):
    """As pytest-rerunfailures: every attempt is reported, a repeated one with its own outcome."""
    for number in (1, 2, 3):
        item.execution_count = number
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        is_last = number == 3 or not any(report.failed for report in reports)
        for report in reports:
            if report.failed and not is_last:
                report.outcome = "rerun"
            item.ihook.pytest_runtest_logreport(report=report)
        if is_last:
            return True
'''
UNTOLD = '''
from _pytest.runner import runtestprotocol


def pytest_runtest_protocol(item, nextitem):
    """As flaky: of a repeated attempt the call is not reported."""
    for number in (1, 2, 3):
        reports = runtestprotocol(item, nextitem=nextitem, log=False)
        is_last = number == 3 or not any(report.failed for report in reports)
        for report in reports:
            if is_last or report.when != "call":
                item.ihook.pytest_runtest_logreport(report=report)
        if is_last:
            return True
'''
INSIDE = '''
import pytest


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item, call):
    """As pytest-retry: the test is repeated while the report of its call is made."""
    report = yield
    for number in (2, 3):
        if call.when != "call" or call.excinfo is None:
            break
        other = pytest.Class.from_parent(item.session, name="Other")
        item.ihook.pytest_runtest_teardown(item=item, nextitem=other)
        if number == 2:
            report.outcome = "retried"
            item.ihook.pytest_runtest_logreport(report=report)
        item._initrequest()
        pytest.CallInfo.from_call(lambda: item.ihook.pytest_runtest_setup(item=item), "setup")
        call = pytest.CallInfo.from_call(lambda: item.ihook.pytest_runtest_call(item=item), "call")
        again = pytest.TestReport.from_item_and_call(item, call)
        report.outcome, report.longrepr = again.outcome, again.longrepr
    return report
'''
WAYS = {"rerun": RERUN, "untold": UNTOLD, "inside": INSIDE}

EXPLAINERS = '''

def first_time(request):
    """Say whether a test runs for the first time, in whichever process."""
    from pathlib import Path

    mark = Path("seen-" + request.node.name.split("[")[0])
    is_first = not mark.exists()
    mark.write_text("")
    return is_first


@pytest.fixture
def explainer_steady():
    return Explain(lambda m, p, r, g: p[:, 0].clone())


@pytest.fixture
def explainer_moody(request, explainer_steady):
    if first_time(request):
        raise KeyError("not today")
    return explainer_steady


@pytest.fixture
def explainer_lid(request, explainer_steady):
    is_first = first_time(request)
    yield explainer_steady
    if is_first:
        raise RuntimeError("the lid fell off")


@pytest.fixture
def explainer_mortal(request, explainer_steady):
    if first_time(request):
        import os, signal
        return Explain(lambda m, p, r, g: os.kill(os.getpid(), signal.SIGKILL))
    return explainer_steady


@pytest.fixture
def explainer_frail(explainer_mortal):  # under a name of its own, so with maps of its own
    return explainer_mortal
'''

HEAD = "fxeval: 1\nsuite: again\ndefaults: {seed: 7}\nchecks:\n"
CHECK = """\
  - id: {id}
    kind: faithfulness.deletion_insertion
    steps: 2
    fills: [mean]
    controls: [random_blobs]
    models: [tiny]
    explainers: [{explainer}]
    pairs: [{{use: memory, n: 32}}]
    limits: [{{metric: insertion_auc, at_least: {limit}}}]
"""
FOOT = "report: {formats: [html, json, markdown]}\n"


def suite(**explainers):
    """Return a suite with a check for each explainer; ``never`` has a limit that nothing meets."""
    return (
        HEAD
        + "".join(
            CHECK.format(id=id, explainer=explainer, limit=0.9999 if id == "never" else -0.9)
            for id, explainer in explainers.items()
        )
        + FOOT
    )
