from geniehive import convert
from geniehive.rules.model import Host
from geniehive_node import system


def test_what_the_machine_is_made_of() -> None:
    machine = system.machine()
    assert machine.os
    assert machine.architecture
    assert machine.cpu_threads
    assert machine.memory_bytes
    assert convert.host_from_proto(convert.host_to_proto(Host(host_id="h", machine=machine))).machine == machine


def test_how_busy_it_is() -> None:
    load = system.Sampler().sample("h")
    assert load.host_id == "h"
    assert load.cpu_used_fraction is not None
    assert 0 <= load.cpu_used_fraction <= 1
    assert load.memory_used_bytes
    assert convert.machine_load_from_proto(convert.machine_load_to_proto(load)) == load
