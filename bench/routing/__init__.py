"""Strategies compared by simulation: `python -m bench.routing` (see there for its options).

The engines, fleets and clients are simulated; the gateways are not: each is a `gateway.core.balance.Balance` with plans
and load samples as in a real one, so that what is measured is the code that chooses.

engines     an engine: slots, speeds, a prompt cache, models that must be loaded first
fleets      which engines there are, and the scenarios
clients     what is asked, and when
world       time, and the gateways in it
rivals      strategies that GenieHive doesn't have, to compare with
results     figures of runs, and whether what is promised holds
report      these as a page, with a plot
"""
