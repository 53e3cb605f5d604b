"""The node daemon: finds the engines of a machine, tells control what they offer, and lets gateways reach them.

core/       what is decided, without any I/O: what is offered, when to look again, what a session does next
engines/    the wire formats of engines: which one is it, what does it offer
system      what the machine is made of and how busy it is
session     the standing conversation with control
stream      one call of it
why         why no call comes about, in words
outlook     this machine's address as others see it
relay       the way from a gateway to an engine that needs a key or listens on loopback
door        who may come in at the relay
probing     what the relay answers to whoever asks whether an engine is well
demo        the embedded demonstration engine, a process of its own
settings    the settings, and what they mean together
node        connects all that
app         builds the daemon
"""
