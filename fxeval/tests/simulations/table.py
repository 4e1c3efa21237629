"""The figures of all simulations as Markdown tables."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from fxeval.seeding import generator_of
from fxeval.tests.simulations.designs import Design
from fxeval.tests.simulations.forms import FORMS, simulate_form
from fxeval.tests.simulations.laws import (
    IMPOSSIBLE,
    beta,
    lognormal,
    normal,
    rare_group,
    rate,
)
from fxeval.tests.simulations.looked import (
    EDGED,
    PEOPLE,
    Compared,
    bet_on,
    by_peeking,
    compared,
    drawn,
)
from fxeval.tests.simulations.looked import POPULATIONS as LOOKED
from fxeval.tests.simulations.methods import (
    CROSSED,
    FIGURES,
    IDENTITIES,
    METHODS,
    ROWS_EACH,
    RUNS,
    simulated,
    simulated_crossed,
    simulated_figure,
)
from fxeval.tests.simulations.moved import NOISES, mistaken, stepped
from fxeval.tests.simulations.naive import (
    bootstrap_over_rows,
    t_over_identities,
    t_over_rows,
)
from fxeval.tests.simulations.ratios import POPULATIONS as RATIOS
from fxeval.tests.simulations.ratios import (
    RATIO_DESIGNS,
    RATIO_IDENTITIES,
    RATIO_RUNS,
    crossed_ratio,
    simulate_ratio,
)
from fxeval.tests.simulations.run import decided, power, rows_of, simulate
from fxeval.tests.simulations.tally import Tally, standard_error, tally, worst

FORM_DESIGN = Design(50, "1 to 20 rows", 0.1)
FORM_RUNS = 2000
DISTANCES = (0.25, 0.5, 1.0)
NAIVE_DESIGN = Design(50, "1 to 20 rows", 0.3)
NAIVE_RUNS = 1000
LOOKS_RUNS = 2000
BETTING_RUNS = 500
TREND_SERIES = 1000


def methods_table() -> str:
    rows = []
    for number, method in enumerate(METHODS):
        found = [simulated(number, G) for G in IDENTITIES]
        every = [one for some in found for one in some]
        flips = max(one.ours.flips / one.ours.pairs for one in every)
        widths = [min(one.width for one in some) for some in found]
        rows.append(
            (
                method.name,
                "; ".join(one.name for one in method.populations),
                _list(worst([one.ours for one in some]).false_pass for some in found),
                _list(method.promise[G] for G in IDENTITIES),
                _list(worst([one.t for one in some]).false_pass for some in found),
                f"{min(one.ours.coverage for one in every):.3f}",
                " / ".join(f"{width:.2f}" for width in widths),
                f"{flips:.2%}",
            )
        )
    return _table(
        ("method", "values", "false passes %", "expected %", "Student's t %", "least coverage",
         "width / t", "flips"),
        rows,
    )  # fmt: skip


def crossed_table() -> str:
    rows = []
    for number, method in enumerate(CROSSED):
        found = [[simulated_crossed(number, G, each) for each in ROWS_EACH] for G in IDENTITIES]
        every = [ours for some in found for ours, _ in some]
        rows.append(
            (
                f"C, {method.population.name}",
                _list(worst([ours for ours, _ in some]).false_pass for some in found),
                f"{method.promise:.1%}",
                _list(worst([t for _, t in some]).false_pass for some in found),
                f"{min(one.coverage for one in every):.3f}",
            )
        )
    for number, figure in enumerate(FIGURES):
        for scores in figure.scores:
            one = simulated_figure(number, scores)
            rows.append(
                (
                    f"{figure.statistic}, {scores.identities} identities with {scores.mated} mated "
                    f"rows each, {scores.nonmated} nonmated rows, true "
                    f"{scores.truth(figure.statistic):.3f}",
                    f"{100 * one.false_pass:.1f}",
                    f"{figure.promise:.1%}",
                    "",
                    f"{one.coverage:.3f}",
                )
            )
    return _table(("values", "false passes %", "expected", "t over rows %", "least coverage"), rows)


def forms_table() -> str:
    rows = []
    for form in FORMS:
        one = simulate_form(form, FORM_DESIGN, FORM_RUNS)
        shares = (one.above / one.runs, one.below / one.runs, one.flips / one.pairs)
        rows.append((form.name, *(f"{share:.2%}" for share in shares)))
    return _table(("limit", "false passes", "false fails", "flips"), rows)


def power_table() -> str:
    rows = []
    for population in (normal(), beta(3, 9, "light"), lognormal(1.0), rate(0.2)):
        shares = [
            " / ".join(f"{power(population, Design(G), 2000, one):.0%}" for G in IDENTITIES)
            for one in DISTANCES
        ]
        rows.append((f"{population.name} ({population.kind})", *shares))
    return _table(("values", *(f"{one:g} SD away" for one in DISTANCES)), rows)


def impossible_table() -> str:
    rows = []
    for population in (*IMPOSSIBLE, rare_group("rate")):
        found = [simulate(population, Design(G), RUNS).ours for G in IDENTITIES]
        rows.append(
            (f"{population.name} ({population.kind})", _list(one.false_pass for one in found))
        )
    return _table(("values", "false passes %"), rows)


def naive_tallies() -> dict[str, Tally]:
    """Return what ours and the naive methods come to on the same rows."""
    population = normal()
    rows = next(rows_of(population, NAIVE_DESIGN, NAIVE_RUNS, "naive"))
    rng = generator_of("simulations", "naive bootstrap")
    return {
        "the interval that decides": tally(*decided(rows.means(), population, 0.0)),
        "Student's t over identities": tally(*t_over_identities(rows.means(), 0.0)),
        "Student's t over rows": tally(*t_over_rows(rows, 0.0)),
        "bootstrap of the rows": tally(*bootstrap_over_rows(rows, 0.0, rng)),
    }


def naive_table() -> str:
    rows = [
        (name, f"{100 * one.false_pass:.1f}", f"{one.coverage:.3f}")
        for name, one in naive_tallies().items()
    ]
    return _table(("method", "false passes %", "coverage"), rows)


def ratios_table() -> str:
    rows = []
    for kind in ("rate", "light", "heavy"):
        populations = [one for one in RATIOS if one.kind == kind]
        found = [
            [simulate_ratio(one, design, RATIO_RUNS) for one in populations
             for design in RATIO_DESIGNS if design.identities == G]
            for G in RATIO_IDENTITIES
        ]  # fmt: skip
        crossed = [
            crossed_ratio(one, G, RATIO_RUNS) for one in populations for G in RATIO_IDENTITIES
        ]
        rows.append(
            (
                kind,
                _list(max(ours.false_pass for ours, _ in some) for some in found),
                f"{100 * max(one.false_pass for one in crossed):.1f}",
                f"{min(ours.coverage for some in found for ours, _ in some):.3f}",
                _list(max(delta.false_pass for _, delta in some) for some in found),
            )
        )
    return _table(
        ("kind", "false passes %", "rows of two people", "coverage", "delta method"), rows
    )


def looks_table() -> str:
    rows = [
        (f"{population.name} ({kind})",
         *_beside([compared(population, G, LOOKS_RUNS) for G in PEOPLE]))
        for kind, several in LOOKED.items()
        for population in several
    ]  # fmt: skip
    return _table(_LOOKS_HEAD, rows)


def betting_table() -> str:
    rows = [
        (population.name, *_beside([bet_on(population, G, BETTING_RUNS) for G in PEOPLE]))
        for population in EDGED
    ]
    return _table(_LOOKS_HEAD, rows)


def peeking_table() -> str:
    rows = []
    for several in LOOKED.values():
        population = several[0]
        found = [
            by_peeking(drawn(population, G, BETTING_RUNS, "peek"), population, population.mean)
            for G in PEOPLE
        ]
        rows.append((population.name, _list(one.tally().false_pass for one in found)))
    return _table(("values", "false passes %"), rows)


def trend_noise_table() -> str:
    """Return how often noise alone is taken for a move of a trend."""
    rows = []
    for name, noise in NOISES.items():
        (ten, _, _), (step, departure, drift) = (mistaken(noise, n, TREND_SERIES) for n in (10, 50))
        rows.append((name, *(f"{100 * one:.1f}" for one in (step, ten, departure, drift))))
    head = ("noise", "a step, 50 runs %", "a step, 10 runs %", "off level, one look at 50 runs %",
            "a drift, 50 runs, one series %")  # fmt: skip
    return _table(head, rows)


def trend_steps_table() -> str:
    """Return how often a step of a trend is found."""
    found = [(by, *stepped(float(by), TREND_SERIES)) for by in (3, 4, 5, 6, 8)]
    rows = [(str(by), f"{100 * share:.0f}", f"{100 * exact:.0f}") for by, share, exact in found]
    return _table(("size, in standard deviations", "found %", "of these at its very run %"), rows)


_LOOKS_HEAD = (
    "values", "false passes %", "fixed: false passes %", "passes %", "fixed: passes %",
    "measured % on the line", "3.5 errors off", "7 errors off",
)  # fmt: skip


def _beside(found: Sequence[Compared]) -> tuple[str, ...]:
    return (
        _list(one.looks.false_pass for one in found),
        _list(one.fixed.false_pass for one in found),
        *(" / ".join(f"{100 * one.passes[k]:.0f}" for one in found) for k in range(2)),
        *(" / ".join(f"{100 * one.shares[k]:.0f}" for one in found) for k in range(3)),
    )


TABLES: Mapping[str, Callable[[], str]] = {
    f"{RUNS:,} lists; standard error {standard_error(0.025, RUNS):.2%} at 2.5 %": methods_table,
    "Crossed pairs and verification figures": crossed_table,
    f"Ratios of two means, {RATIO_RUNS:,} lists, G = 30 / 100": ratios_table,
    f"From rows to verdict, {FORM_RUNS:,} lists; {FORM_DESIGN}": forms_table,
    "How often a limit passes that the truth keeps, G = 30 / 50 / 100": power_table,
    "What cannot be had": impossible_table,
    f"Naive methods; {NAIVE_DESIGN}": naive_table,
    f"Five planned looks, {LOOKS_RUNS:,} lists, G = 60 / 150 / 400; standard error "
    f"{standard_error(0.025, LOOKS_RUNS):.2%} at 2.5 %": looks_table,
    f"Open looks by betting, {BETTING_RUNS:,} lists, G = 60 / 150 / 400": betting_table,
    f"Looks without a plan, every 10 people, {BETTING_RUNS:,} lists, G = 60 / 150 / 400": (
        peeking_table
    ),
    f"Trends: noise taken for a move, {TREND_SERIES:,} series": trend_noise_table,
    f"Trends: a step in the middle of 50 runs, {TREND_SERIES:,} series": trend_steps_table,
}
"""What makes each table, by its title."""


def all_tables(word: str = "") -> Iterator[str]:
    """Yield each table whose title holds a word, with its title, when it is done."""
    for title, make in TABLES.items():
        if word.lower() in title.lower():
            yield f"{title}:\n\n{make()}\n"


def _list(shares: Iterable[float]) -> str:
    return " / ".join(f"{100 * share:.1f}" for share in shares)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
