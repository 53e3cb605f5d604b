"""Benchmarks: real requests to models, answers that are checked, and figures that can be compared.

workload  what is asked: requests and the checks of their answers
checks    whether an answer is right
schema    whether JSON fits a JSON schema, as far as workloads need it
builtin   the workloads that are there without a file
files     workloads in YAML
asking    one request over HTTP, timed
runner    many of them, some at once
figures   what came of it: per service, and as samples for control
report    the JSON report: written, and read again

Only `asking` and `runner` wait, ask the time or reach a socket.
"""
