"""The same regressions where observations come a part after the other, twice: sums, then residuals.

What `shared` keeps in registers between its two passes is kept in a state: for each tile of series
its numbers one after the other, a vector of lanes each. Sums go on where they stood, in the order
of the observations, so that a fit has the bits that it has of all observations at once.
"""

import numpy as np

from dasksolve.kernels.compiling.jit import jit, named
from dasksolve.kernels.diagnostics.verdicts import weigh
from dasksolve.kernels.language.control import align_stack
from dasksolve.kernels.language.lanes import nothing, operation, square_root, where
from dasksolve.kernels.regression.answers import Observed, Place, Wanted, answered, put_covariance
from dasksolve.kernels.regression.gram import Basis, factored, pairs, solved, spread
from dasksolve.kernels.regression.observations import (
    Observations,
    leave_out,
    pad,
    spread_weights,
    stage_across,
)
from dasksolve.kernels.regression.sums import (
    BLOCK,
    accumulate,
    fill_shares,
    lane_count,
    largest_observation,
    residuals,
    tile,
    tiles_for,
)


def places(n):
    """Where in a state things are: G, its right-hand side or c, Σ w q r; Σ w r², count, max |y|."""
    triangle = pairs(n)
    start = len(triangle)
    numbers = {place: i for i, place in enumerate(triangle)}
    numbers |= {(k,): start + k for k in range(n)}
    numbers |= {("gradient", k): start + n + k for k in range(n)}
    names = ("rss", "count", "largest")
    return numbers | {name: start + 2 * n + i for i, name in enumerate(names)}


class State:
    """The numbers of one tile of series."""

    def __init__(self, array, first, lanes, n):
        self.array, self.first, self.lanes, self.places = array, first, lanes, places(n)

    def __getitem__(self, place):
        return self.array.load(self.first + self.places[place] * self.lanes, self.lanes)

    def __setitem__(self, place, vector):
        self.array.store(self.first + self.places[place] * self.lanes, vector)


@operation(nothing)
def add_sums(design, kept, weights, scratch, own, weighed, observations, state, at, n):
    """Go on with G, its right-hand side and the count."""
    align_stack(kept.builder)
    state = State(state, at, kept.lanes.count, n)
    (table, basis, *shares), t = design, Observations(kept, weights, scratch, own, weighed)
    design = (table, Basis(basis, n), *shares)
    g, count = accumulate(design, t, observations, n, lambda: None, state)
    for place, total in g.items():
        state[place] = total
    state["count"] = count


@operation(nothing)
def turn(basis, state, at, like, n, threshold):
    """Put the first solution where its right-hand side was, and 1 for rss where it is unsafe."""
    align_stack(like.builder)
    state = State(state, at, like.lanes.count, n)
    g = {place: state[place] for place in [*pairs(n), *((k,) for k in range(n))]}
    factors = factored(g, n)
    check = zero = like.fill(0)
    for k, x in enumerate(solved(factors, [g[(k,)] for k in range(n)], n)):
        state[(k,)] = x
        check = weigh(check, x)
    *_, inflation = spread(Basis(basis, n), factors, n)
    rcond = zero.fill(np.sqrt(n)) / square_root(inflation)
    safe = factors.safe & (check == zero) & (rcond >= zero.fill(threshold))
    state["rss"] = where(safe, zero, zero.fill(1))


@operation(nothing)
def add_residuals(table, kept, weights, scratch, own, weighed, observations, state, at, n):
    """Go on with the sums of the residuals, and the largest observation."""
    align_stack(kept.builder)
    state = State(state, at, kept.lanes.count, n)
    t = Observations(kept, weights, scratch, own, weighed)
    c = [state[(k,)] for k in range(n)]
    begun = state["rss"], [state["gradient", k] for k in range(n)]
    rss, gradient = residuals(table, t, observations, c, n, lambda _: None, begun)
    state["rss"] = rss
    for k, total in enumerate(gradient):
        state["gradient", k] = total
    state["largest"] = largest_observation(t, observations, state["largest"])


@operation(nothing)
def answer(basis, s, state, at, series, n, along, wanted, found, first):
    """Write what is found of the series of a tile."""
    align_stack(s.builder)
    state = State(state, at, s.lanes.count, n)
    g = {place: state[place] for place in pairs(n)}
    c = [state[(k,)] for k in range(n)]
    gradient = [state["gradient", k] for k in range(n)]
    rss, count, largest = (state[name] for name in ("rss", "count", "largest"))
    observed, place = Observed(rss, gradient, count, lambda _: largest), Place(series, along, first)
    answered(Basis(basis, n), s, factored(g, n), c, observed, Wanted(*wanted), found, place)


def adding(n):
    """The kernel that goes on with the state of some series by a part of their observations."""
    size, (scratch_for, room_for) = len(places(n)), tiles_for(n)

    def add(y, w, own, table, basis, state, series, residuals):
        lanes, observations = lane_count(y), len(y) // series
        height = -(-observations // BLOCK) * BLOCK
        kept = tile(height, 1, state.dtype, state)
        pad(kept, observations, height, 1)
        weights = tile(height, 1, state.dtype, state)
        scratch, weighed = scratch_for(height, state), 1
        shares, looked_up = room_for(height, 0 if own or residuals else series, state)
        if not own:
            weighed = spread_weights(w, observations, weights)
            if looked_up:
                fill_shares(table, basis, weights, shares, observations, n)
        design = (table, basis, shares, looked_up)
        for number in range(-(-series // lanes)):
            first, at = min(number * lanes, series - lanes), number * size * lanes
            stage_across(y, None, w, own, first, series, 1, observations, kept, weights)
            if weighed and not own:
                leave_out(w, observations, kept, 0, 0)
            if residuals:
                add_residuals(
                    table, kept, weights, scratch, own, weighed, observations, state, at, n
                )
            else:
                add_sums(design, kept, weights, scratch, own, weighed, observations, state, at, n)

    return jit(named(add, f"add.{n}"))


def turning(n):
    """The kernel that makes of sums the solutions whose residuals are asked for."""
    size = len(places(n))

    @jit
    def turn_all(basis, state, series, threshold):
        lanes = lane_count(state)
        like = tile(1, 1, state.dtype, state)
        for number in range(-(-series // lanes)):
            turn(basis, state, number * size * lanes, like, n, threshold)

    return turn_all


def answering(n):
    """The kernel that makes the answers of a state."""
    size = len(places(n))

    @jit
    def answer_all(
        basis, state, along, min_count, threshold,
        coef, stderr, rss, count, rcond, status, covariance,
    ):  # fmt: skip
        series, lanes = len(rss), lane_count(rss)
        wanted = (min_count, threshold, int(len(covariance) > 0))
        found = (coef, stderr, rss, count, rcond, status)
        s = tile(n + 3, n, rss.dtype, rss)
        for number in range(-(-series // lanes)):
            first, at = min(number * lanes, series - lanes), number * size * lanes
            answer(basis, s, state, at, series, n, along, wanted, found, first)
            if len(covariance):
                put_covariance(s, basis, covariance, first, n)

    return answer_all
