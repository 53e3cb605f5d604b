"""Two machines on one: a network namespace each, a cable between them, a name and a machine id of their own.

    async with two_machines(folder) as (a, b, cable):
        hive = a.process("up", "-m", "geniehive.cli", "up", "--lan")
        await a.inside(lambda: urllib.request.urlopen(...))     # as a program on that machine
        await cable.pull(); await cable.plug(); await cable.drop(a); await cable.readdress(b, "10.77.0.9")

Needs Linux and root; `needed` says what is missing. What programs of a machine listen on, only its own programs and the
other machine's reach.
"""

import asyncio
import ctypes
import itertools
import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from tests.support.processes import ROOT, Process

T = TypeVar("T")

_numbers = itertools.count(1)
# Any station that is not there.
_NOBODY = "02:00:00:00:00:99"
_NUD_PERMANENT = 0x80

# Becomes the machine, then the program: a network, a name and a machine id that are not the host's.
_ENTER = """
import ctypes, os, sys
space, name, machine_id = sys.argv[1:4]
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWUTS = 0x40000000, 0x20000, 0x4000000
MS_BIND, MS_REC, MS_PRIVATE = 4096, 16384, 1 << 18
def must(result):
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
must(libc.setns(os.open("/var/run/netns/" + space, os.O_RDONLY), CLONE_NEWNET))
must(libc.unshare(CLONE_NEWNS | CLONE_NEWUTS))
must(libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None))
if os.path.exists("/etc/machine-id"):
    must(libc.mount(machine_id.encode(), b"/etc/machine-id", None, MS_BIND, None))
must(libc.sethostname(name.encode(), len(name)))
os.execv(sys.executable, [sys.executable, *sys.argv[4:]])
"""


def needed() -> str | None:
    """What two machines need and this one lacks; None if nothing."""
    if sys.platform != "linux":
        return "network namespaces are Linux'"
    if os.geteuid() != 0:
        return "network namespaces need root"
    try:
        from pyroute2 import NetlinkError, NetNS, netns
    except ImportError as error:
        return str(error)
    # Containers forbid one thing or another.
    probe = f"gh-probe-{os.getpid()}"
    try:
        netns.create(probe)
        try:
            with NetNS(probe) as space:
                space.link("add", ifname="cable0", kind="veth", peer={"ifname": "cable1"})
            enter = [sys.executable, "-c", _ENTER, probe, "probe", "/dev/null", "-c", ""]
            done = subprocess.run(enter, capture_output=True, text=True, timeout=20, check=False)
        finally:
            netns.remove(probe)
    except (OSError, NetlinkError) as error:
        return f"no network namespace can be made here: {error}"
    return None if done.returncode == 0 else f"no network namespace can be entered here: {done.stderr[-200:]}"


class Machine:
    """`address` is that of its end of the cable."""

    def __init__(self, name: str, space: str, address: str, folder: Path, stack: AsyncExitStack) -> None:
        self.name = name
        self.space = space
        self.address = address
        self.folder = folder / name
        self.folder.mkdir()
        self.state = self.folder / "state"
        self.environment: dict[str, str] = {}
        self._stack = stack
        self._machine_id = self.folder / "machine-id"
        self._machine_id.write_text(f"{os.urandom(16).hex()}\n")

    def process(self, name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> Process:
        """A Python process on this machine; killed at the end."""
        everything = {"GENIEHIVE_STATE_DIR": str(self.state), **self.environment, **(environment or {})}
        made = Process(name, [*self._enter(), *arguments], self.folder, everything)
        self._stack.push_async_exit(made)
        return made

    def _enter(self) -> list[str]:
        return ["-c", _ENTER, self.space, self.name, str(self._machine_id)]

    async def geniehive(self, *arguments: str, within: float = 30.0) -> tuple[int, str, str]:
        """A command of the command line, to its end: exit code, output, errors."""
        environment = {**os.environ, "GENIEHIVE_STATE_DIR": str(self.state), **self.environment, "COLUMNS": "200"}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._enter(),
            *("-P", "-m", "geniehive.cli", *arguments),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**environment, "PYTHONPATH": str(ROOT)},
        )
        try:
            async with asyncio.timeout(within):
                out, err = await process.communicate()
        except TimeoutError:
            process.kill()
            raise AssertionError(f"geniehive {' '.join(arguments)} does not end") from None
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def inside(self, action: Callable[[], T]) -> T:
        """Runs `action` in a thread of this machine's network."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def tell(setter: Callable[[Any], None], value: Any) -> None:
            if not done.done():
                setter(value)

        def run() -> None:
            try:
                _enter_network(self.space)
                result = action()
            except BaseException as error:  # noqa: BLE001 - told to who waits
                loop.call_soon_threadsafe(tell, done.set_exception, error)
            else:
                loop.call_soon_threadsafe(tell, done.set_result, result)

        # A thread of its own, since it stays in that network.
        threading.Thread(target=run, name=f"on {self.name}", daemon=True).start()
        return await done

    async def ask(
        self, url: str, body: Any = None, key: str = "", timeout: float = 10.0
    ) -> tuple[int, Any, Mapping[str, str]]:
        """One HTTP call from this machine: status (0: no answer), JSON or text, headers in lower case."""

        def call() -> tuple[int, Any, Mapping[str, str]]:
            headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(url, data, headers)
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            try:
                with opener.open(request, timeout=timeout) as answer:
                    return answer.status, _content(answer.read()), {k.lower(): v for k, v in answer.headers.items()}
            except urllib.error.HTTPError as error:
                with error:
                    return error.code, _content(error.read()), {k.lower(): v for k, v in error.headers.items()}
            except OSError as error:
                return 0, repr(error), {}

        return await self.inside(call)

    def client_key(self) -> str:
        return (self.state / "client.key").read_text().strip()

    def admin_key(self) -> str:
        return (self.state / "admin.key").read_text().strip()


def _content(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return raw.decode(errors="replace")


def _enter_network(space: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/var/run/netns/{space}") as handle:
        if libc.setns(handle.fileno(), 0x40000000) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {space}")


class Cable:
    """What lies between the two machines. `addresses`: of its ends, by machine."""

    def __init__(self, names: Mapping[str, str], addresses: dict[str, str]) -> None:
        self._names = names
        self._ends = {name: f"cable{number}" for number, name in enumerate(names)}
        self._addresses = addresses
        self._spaces: dict[str, Any] = {}
        # pyroute2 runs an event loop of its own, which must not meet ours.
        self._thread = ThreadPoolExecutor(1)

    async def _do(self, action: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, action, *arguments)

    async def lay(self) -> None:
        await self._do(self._lay)

    async def pull(self) -> None:
        """No carrier at either end; addresses stay, as when a cable is pulled."""
        await self._do(self._set, "down")

    async def plug(self) -> None:
        await self._do(self._set, "up")

    async def drop(self, sender: Machine) -> None:
        """What `sender` sends is lost; what it is sent arrives."""
        await self._do(self._neighbour, sender.name, "replace", {"lladdr": _NOBODY, "state": _NUD_PERMANENT})

    async def heal(self, sender: Machine) -> None:
        await self._do(self._neighbour, sender.name, "del", {})

    async def readdress(self, machine: Machine, address: str) -> None:
        """As a new lease of DHCP: the old address is gone at once."""
        await self._do(self._readdress, machine, address)

    async def lose(self, machine: Machine, percent: int) -> None:
        """So many of a hundred packets that this machine sends or is sent are lost. Needs nft; 0 ends it."""
        rules = ["flush ruleset"]
        if percent:
            rules.append("add table inet t")
            for hook, interface in (("input", "iifname"), ("output", "oifname")):
                rules.append(f"add chain inet t {hook} {{ type filter hook {hook} priority 0; }}")
                rules.append(f"add rule inet t {hook} {interface} != lo numgen random mod 100 < {percent} drop")
        await machine.inside(lambda: subprocess.run(["nft", "; ".join(rules)], check=True, timeout=20))

    async def block(self, machine: Machine, port: int) -> None:
        """A firewall of this machine drops what comes to a TCP port. Needs nft; 0 ends it."""
        rules = ["flush ruleset"]
        if port:
            rules += ["add table inet t", "add chain inet t input { type filter hook input priority 0; }"]
            rules.append(f"add rule inet t input iifname != lo tcp dport {port} drop")
        await machine.inside(lambda: subprocess.run(["nft", "; ".join(rules)], check=True, timeout=20))

    async def close(self) -> None:
        await self._do(self._close)
        self._thread.shutdown()

    # In the thread.

    def _lay(self) -> None:
        from pyroute2 import NetNS, netns

        for name, space in self._names.items():
            netns.create(space)
            self._spaces[name] = NetNS(space)
        first, second = self._names
        peer = {"ifname": self._ends[second], "net_ns_fd": self._names[second]}
        self._spaces[first].link("add", ifname=self._ends[first], kind="veth", peer=peer)
        for name, space in self._spaces.items():
            index = self._index(name)
            space.addr("add", index=index, address=self._addresses[name], prefixlen=24)
            space.link("set", index=space.link_lookup(ifname="lo")[0], state="up")
        self._set("up")

    def _close(self) -> None:
        from pyroute2 import netns

        for space in self._spaces.values():
            space.close()
        for space in self._names.values():
            try:
                netns.remove(space)
            except OSError:
                pass

    def _index(self, name: str) -> int:
        index: int = self._spaces[name].link_lookup(ifname=self._ends[name])[0]
        return index

    def _set(self, state: str) -> None:
        for name, space in self._spaces.items():
            space.link("set", index=self._index(name), state=state)
        if state == "up":
            for name, space in self._spaces.items():
                space.route("replace", dst="default", gateway=self._addresses[self._other(name)])

    def _other(self, name: str) -> str:
        return next(n for n in self._names if n != name)

    def _neighbour(self, name: str, action: str, more: Mapping[str, Any]) -> None:
        self._spaces[name].neigh(action, dst=self._addresses[self._other(name)], ifindex=self._index(name), **more)

    def _readdress(self, machine: Machine, address: str) -> None:
        space, index = self._spaces[machine.name], self._index(machine.name)
        # In this order: the end of a first address takes the second ones of its network along.
        space.addr("del", index=index, address=machine.address, prefixlen=24)
        space.addr("add", index=index, address=address, prefixlen=24)
        self._addresses[machine.name] = machine.address = address
        self._set("up")


@asynccontextmanager
async def two_machines(folder: Path) -> AsyncIterator[tuple[Machine, Machine, Cable]]:
    mark = f"{os.getpid()}-{next(_numbers)}"
    names = {"desk": f"gh-{mark}-a", "attic": f"gh-{mark}-b"}
    addresses = {"desk": "10.77.0.1", "attic": "10.77.0.2"}
    cable = Cable(names, addresses)
    try:
        await cable.lay()
        async with AsyncExitStack() as stack:
            first, second = (Machine(name, names[name], addresses[name], folder, stack) for name in names)
            yield first, second, cable
    finally:
        await cable.close()
