"""What a node decides, as functions of state, event and time: no I/O, no clock, no randomness.

looks       the nouns: a source (where an engine is expected), what a look at it found, how it failed
guess       what names of models tell of their operations
ways        how gateways reach a source, and the paths an engine wants
pulse       when to look at a source again
inventory   looks in, the whole offer of this host out
budget      an offer within the size of a message
talk        what is said between a node and control
session     the conversation with control
"""
