"""The command `geniehive`. Nothing imports this package; it alone may start daemons.

__main__     the parser, and how errors become a line and an exit code
common       options that commands share, and the connection to control
credentials  which control, gateway and key a command uses
output       tables for people, JSON for scripts
views        messages of the contract as plain objects: the stable shapes of `--json`
daemons      control, node, gateway: hands over to a daemon
up           options of `geniehive up`
hive         control, gateway and node of this machine under one supervisor
ports        addresses to listen on: free, or a message that names the flag
banner       what `up` prints
probe        whether the gateway serves what it should
status       how the cluster is
models       what can be asked
chat         asks a model through the gateway
keys         client keys: create, list, revoke
hosts        hosts: list, forget
version      which version this is

A command's module has `add(commands)`, which registers it, and imports nothing slow until it runs.
"""
