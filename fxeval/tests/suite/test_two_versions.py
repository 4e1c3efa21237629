"""Whether two versions are asked the same, and what happens where they are not."""

import re
from pathlib import Path

import pytest

from fxeval.errors import SuiteError
from fxeval.suite.two_versions import Place, metrics_asked, settle

SUITE = """\
fxeval: 1
suite: small
models: [tiny]
explainers: [occlusion]
pairs: [memory]
checks:
  - {id: one, kind: sanity.two_sided, limits: [{metric: repeat, at_least: 0.5}]}
  - {id: two, kind: sanity.two_sided, limits: [{metric: repeat, at_least: 0.4}]}
"""


@pytest.fixture
def places(tmp_path):
    """Two equal versions, which start in a folder of theirs."""
    found = {}
    for name in ("base", "head"):
        root = tmp_path / name / "check out"
        found[name] = Place(root, root / "evaluation")
        write(found[name], "suites/small.yaml", SUITE)
    return found


def write(place, name, text):
    path = place.start / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def content(place, name):
    return (place.start / name).read_text()


def refused(places, named=(), decider=None):
    with pytest.raises(SuiteError) as caught:
        settle(places, named, decider)
    return str(caught.value)


def test_equal_suites_are_settled(places):
    assert settle(places, [], None) == (["suites/small.yaml"], [])


def test_layout_and_comments_are_no_difference(places):
    write(
        places["head"], "suites/small.yaml", "# a comment\n" + SUITE.replace("[tiny]", "[ tiny ]")
    )
    assert settle(places, [], None) == (["suites/small.yaml"], [])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("models: [tiny]", "models: [tiny, other]", "key 'models'"),
        ("suite: small", "suite: small\ndefaults: {seed: 3}", "key 'defaults' (only in head)"),
        ("at_least: 0.5", "at_least: 0.1", "check 'one' (limits)"),
        ("id: two, kind: sanity.two_sided", "id: two, kind: sanity.two_sided, redraws: 2",
         "check 'two' (redraws)"),
        ("id: two", "id: three", "check 'two' (only in base), check 'three' (only in head)"),
    ],
)  # fmt: skip
def test_a_suite_that_differs_is_refused_and_what_differs_is_named(places, old, new, said):
    write(places["head"], "suites/small.yaml", SUITE.replace(old, new))
    assert refused(places).startswith(
        f"suites/small.yaml: base and head differ in {said}. Both sides must be asked the same"
    )


def test_another_order_of_the_checks_is_a_difference(places):
    head, one, two = SUITE.partition("  - {id: one")[0], *SUITE.splitlines()[-2:]
    write(places["head"], "suites/small.yaml", f"{head}{two}\n{one}\n")
    assert "base and head differ in the order of the checks" in refused(places)


def test_many_differences_are_counted(places):
    more = "".join(f"  - {{id: c{i}, kind: x}}\n" for i in range(9))
    write(places["head"], "suites/small.yaml", SUITE + more)
    assert "check 'c5' (only in head), 3 more. Both" in refused(places)


@pytest.mark.parametrize(("decider", "other"), [("base", "head"), ("head", "base")])
def test_one_side_decides_what_both_are_asked(places, decider, other):
    write(places["head"], "suites/small.yaml", SUITE.replace("0.5", "0.1"))
    chosen = content(places[decider], "suites/small.yaml")
    arguments, notes = settle(places, [], decider)
    assert arguments == ["suites/small.yaml"]
    assert notes == ["suites/small.yaml: base and head differ in check 'one' (limits); both sides "
                     f"are asked what {decider} asks"]  # fmt: skip
    assert content(places[other], "suites/small.yaml") == chosen
    assert content(places[decider], "suites/small.yaml") == chosen
    assert settle(places, [], None) == (["suites/small.yaml"], [])


def test_the_extended_suite_counts_and_is_copied_too(places):
    for place in places.values():
        write(place, "suites/mine.yaml", "fxeval: 1\nsuite: mine\nextends: ../shared/small.yaml\n")
        write(place, "shared/small.yaml", SUITE)
    write(places["head"], "shared/small.yaml", SUITE.replace("0.5", "0.1"))
    said = refused(places)
    assert said.startswith("suites/mine.yaml: base and head differ in check 'one' (limits).")
    settle(places, ["suites/mine.yaml"], "base")
    assert content(places["head"], "shared/small.yaml") == SUITE


def test_a_suite_on_one_side_only_is_asked_of_both_if_that_side_decides(places):
    write(places["head"], "suites/new.yaml", SUITE)
    assert refused(places).startswith("suites/new.yaml: only head has it. Both")
    assert refused(places, ["suites/new.yaml"]).endswith(
        "say with --suite-from head whose suite both are asked."
    )
    assert settle(places, [], "base") == (["suites/small.yaml"], [])
    assert not (places["base"].start / "suites/new.yaml").exists()
    arguments, notes = settle(places, [], "head")
    assert arguments == ["suites/new.yaml", "suites/small.yaml"]
    assert notes == ["suites/new.yaml: only head has it; both sides are asked what head asks"]
    assert content(places["base"], "suites/new.yaml") == SUITE


def test_a_suite_that_the_deciding_side_lacks_is_refused(places):
    write(places["head"], "suites/new.yaml", SUITE)
    assert refused(places, ["suites/new.yaml"], "base") == (
        "suites/new.yaml: expected a suite that git tracks, got none on base; only head has it."
    )


def test_a_suite_that_nobody_has_is_named(places):
    assert "got none on either side. Name another one, or git add it." in refused(
        places, ["suites/absent.yaml"]
    )
    for place in places.values():
        (place.start / "suites/small.yaml").unlink()
    assert "a folder 'suites' with suites here, got none on either side" in refused(places)
    assert "expected suites in part, got none on head" in refused(places, ["part"], "head")


def test_cells_and_shipped_suites_are_passed_on(places):
    named = ["suites/small.yaml::one[tiny-occlusion-memory]", "fxeval:quickstart", "suites"]
    assert settle(places, named, None)[0] == [*named[:2], "suites/small.yaml"]
    assert "fxeval:quickstrt: expected one of" in refused(places, ["fxeval:quickstrt"])


def test_yaml_files_of_other_programs_are_no_suites(places):
    for place in places.values():
        write(place, "suites/other.yaml", "checks: []\n")
        write(place, "suites/deep/x.yml", SUITE)
    assert settle(places, [], None)[0] == ["suites/deep/x.yml", "suites/small.yaml"]


def test_a_faulty_suite_is_named_with_its_side_and_place(places):
    write(places["head"], "suites/small.yaml", SUITE.replace("[tiny]", "[tiny"))
    assert re.match(r"head: suites/small\.yaml:\d+:\d+: error", refused(places))
    write(places["head"], "suites/small.yaml", "- fxeval: 1\n")
    assert "head: suites/small.yaml" in refused(places, ["suites/small.yaml"])


def test_a_suite_outside_the_checkout_is_refused(places, tmp_path):
    (tmp_path / "out.yaml").write_text(SUITE)
    for path in ("../../out.yaml", str(tmp_path / "out.yaml")):
        assert "expected a suite in the checkout" in refused(places, [path])


def test_nothing_is_written_through_a_link_into_the_users_files(places, tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text(SUITE)
    target = places["base"].start / "suites/small.yaml"
    target.unlink(), target.symlink_to(mine)
    write(places["head"], "suites/small.yaml", SUITE.replace("0.5", "0.1"))
    settle(places, [], "head")
    assert mine.read_text() == SUITE
    assert not Path(target).is_symlink()


def test_a_linked_folder_is_left_alone(places, tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir(), (shared / "x.yaml").write_text(SUITE)
    for place in places.values():
        (place.start / "mine").symlink_to(shared)
    assert settle(places, ["mine/x.yaml"], "head") == (["mine/x.yaml"], [])


def test_the_metrics_with_limits_are_those_of_the_suite_and_of_the_one_that_it_extends(places):
    place = places["head"]
    check = "{id: three, kind: sanity.two_sided, limits: [{metric: change, at_least: 0}]}"
    text = f"fxeval: 1\nsuite: mine\nextends: small.yaml\nchecks:\n  - {check}\n"
    write(place, "suites/mine.yaml", text)
    assert metrics_asked(place, ["suites/mine.yaml::three"]) == ["repeat", "change"]
    assert "deletion_auc" in metrics_asked(place, ["fxeval:quickstart"])
