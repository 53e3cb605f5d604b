"""The wire formats of engines.

ask         questions over HTTP, with short limits; failures in words
told        careful reading of what engines tell
identify    which engine is it? By certain signs, never by a bare 200
ollama, llamacpp, openai, tei   what each offers
serves      what one with a mere list of models serves: by its own description, other lists of its
providers   hosted ones: known names, addresses, and where their keys usually are
watcher     looks at one source again and again
outside     does an engine on loopback answer other machines too?

To add an engine: an adapter with `look`, a line in `identify.SIGNS` or a probe there, a line in `watcher.ADAPTERS`.
"""
