"""The command `geniehive`. Nothing imports this package; it alone may start daemons.

__main__     the parser, and how errors become a line and an exit code
common       options that commands share, and the connection to control
credentials  which control, gateway and key a command uses
output       tables for people, JSON for scripts
views        messages of the contract as plain objects: the stable shapes of `--json`
daemons      control, node, gateway: hands over to a daemon
up           options of `geniehive up`
join         options of `geniehive join`
kept         what `join` was told, for its next start
servers      options of both: this machine's servers
enrol        a join token turned into certificates
leave        the end of a membership
hive         control, gateway and node of this machine under one supervisor
member       node and gateway of a machine that joined, likewise
children     daemons under a supervisor, and what they tell
demo         the demonstration engine beside a node
ports        addresses to listen on: free, or a message that names the flag
urls         the gateway's URLs, for this machine and for others
banner       what `up` and `join` print
invite       what a second machine needs to join
install      how it installs what runs here
probe        whether the gateway serves what it should
status       how the cluster is
models       what can be asked
asking       a request to the gateway
chat         asks a model through the gateway
explain      why a name leads where it does
usage        how much was asked, by whom, of what
roles        roles: list, show, create, update, delete, export
alias        aliases: set, list, delete
bench        benchmarks: run a workload
measured     benchmarks: store what was measured, compare services
keys         client keys: create, list, revoke
tokens       join tokens: create, list, revoke
hosts        hosts: list, forget
peers        certificates of nodes and gateways: revoke
simulate     what a fleet costs control, measured
fleet        pretended nodes
throwaway    a control that a measurement has for itself
version      which version this is

A command's module has `add(commands)`, which registers it, and imports nothing slow until it runs.
"""
