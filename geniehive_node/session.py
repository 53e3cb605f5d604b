"""The standing conversation with control: feeds `core.session`, in order, and does what it says."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from geniehive import convert
from geniehive._version import __version__
from geniehive.channels import MAX_MESSAGE_BYTES, NODE_KEY
from geniehive.kit import tls
from geniehive.kit.backoff import Backoff
from geniehive.kit.clock import Clock
from geniehive.kit.errors import EXIT_REFUSED, EXIT_SUPERSEDED, EXIT_USAGE, UserError
from geniehive.kit.tasks import Tasks
from geniehive.membership import Credential
from geniehive.rules import model as m
from geniehive.rules import renewal
from geniehive.v1 import credential_pb2
from geniehive.v1 import node_service_pb2 as pb
from geniehive_node.core import session as core
from geniehive_node.core import talk
from geniehive_node.stream import Stream
from geniehive_node.why import Why

log = logging.getLogger(__name__)

_EXITS = {talk.Exit.SUPERSEDED: EXIT_SUPERSEDED, talk.Exit.REFUSED: EXIT_REFUSED, talk.Exit.USELESS: EXIT_USAGE}
Load = tuple[m.MachineLoad, list[m.ServiceLoad]]


class Identity(NamedTuple):
    """Who this daemon says it is. `node_key` is a secret; None if its certificate says it."""

    host_id: str
    machine_id: str | None
    instance_id: str
    node_key: str | None

    def __repr__(self) -> str:
        return f"Identity({self.host_id!r}, instance_id={self.instance_id!r})"


class Hooks(NamedTuple):
    """What the owner of a link does for it.

    met(cluster_id, host_id, renamed); registered(host_id); send_less(); load() takes the figures of now.
    """

    met: Callable[[str, str, bool], Awaitable[None]]
    registered: Callable[[str], None]
    send_less: Callable[[], None]
    load: Callable[[], Awaitable[Load]]


class Link:
    """The standing conversation with control. `run` lasts until `stop`, or until there is no coming back.

    credential: proves who this node is if it has no node key, and gets what control says of trust in any case.
    certify: whether a certificate is of use here.
    """

    def __init__(
        self, target: str, identity: Identity, hooks: Hooks, clock: Clock, credential: Credential, certify: bool
    ) -> None:
        self._target = target
        self._identity = identity
        self._hooks = hooks
        self._clock = clock
        self._credential = credential
        self._far = identity.node_key is None
        self._why = Why(target, credential, clock)
        self._held = _kept(credential, clock.wall())
        self._core = core.Session(identity.host_id, far=self._far, certify=certify)
        self._events: asyncio.Queue[tuple[int | None, talk.Event]] = asyncio.Queue()
        self._backoff = Backoff()
        self._tasks = Tasks()
        self._stream: Stream | None = None
        self._count = 0
        self._timer: asyncio.TimerHandle | None = None

    def offer(self, inventory: m.Inventory) -> None:
        """What this host offers from now on. Any number of times, also before there is a session."""
        self._post(talk.Offered(inventory=inventory))

    def moved(self) -> None:
        """This machine has another address, or a way out again. A stream to another machine is opened anew."""
        self._post(talk.Moved())

    def stop(self) -> None:
        """Ends in good order: the last offer arrives, then the stream is closed. `run` returns soon after."""
        self._post(talk.Stop())

    async def run(self) -> None:
        """UserError when another node took over or control refused for good; its exit code says which."""
        self._post(talk.Holding(held=self._held))
        self._post(talk.Retry())
        try:
            while True:
                number, event = await self._events.get()
                if number is not None and number != self._count:
                    continue  # of a stream that is not ours any more
                for effect in self._core.handle(event, self._clock.now()):
                    if isinstance(effect, talk.Quit):
                        return _finish(effect)
                    await self._do(effect)
                self._arm()
        finally:
            self._disarm()
            self._hang_up()
            await self._tasks.close()

    def _post(self, event: talk.Event, stream: int | None = None) -> None:
        self._events.put_nowait((stream, event))

    async def _do(self, effect: talk.Effect) -> None:
        stream = self._stream
        match effect:
            case talk.Open():
                self._open(effect.host_id)
            case talk.SendOffer():
                message = pb.SessionRequest(inventory=convert.inventory_to_proto(effect.inventory))
                if message.ByteSize() > MAX_MESSAGE_BYTES:
                    # gRPC would end the stream without a word of why.
                    log.warning("the offer is too large for one message; offering fewer models")
                    self._hooks.send_less()
                elif stream is not None:
                    stream.send("inventory", message)
            case talk.SendHeartbeat():
                if stream is not None:
                    sent = convert.timestamp(self._clock.wall())
                    stream.send("heartbeat", pb.SessionRequest(heartbeat=pb.Heartbeat(send_time=sent)))
            case talk.SendLoad():
                if stream is not None:
                    stream.send("load", _load(await self._hooks.load()))
            case talk.RequestCertificate():
                if stream is not None:
                    csr = self._credential.request(effect.host_id).decode()
                    request = credential_pb2.CertificateRequest(csr=csr)
                    stream.send("certificate request", pb.SessionRequest(certificate_request=request))
            case talk.Believe():
                self._believe(effect)
            case talk.Accept():
                self._accept(effect)
            case talk.CloseSide():
                if stream is not None:
                    stream.close_side()
            case talk.HangUp():
                self._hang_up()
            case talk.Wait():
                self._hang_up()
                self._tasks.start(self._wait(effect), "wait for control")
            case talk.Met():
                await self._hooks.met(effect.cluster_id, effect.host_id, effect.renamed)
            case talk.Registered():
                self._backoff.reset()
                self._hooks.registered(effect.host_id)
            case talk.SendLess():
                self._hooks.send_less()
            case talk.Say():
                (log.error if effect.error else log.warning)("%s", effect.text)

    def _believe(self, effect: talk.Believe) -> None:
        try:
            self._credential.believe(effect.ca_bundle, effect.revoked)
        except OSError as error:
            log.error("%s, so whom to believe is asked anew after the next start: %s", *_unwritten(error))
        if self._credential.peer is None:
            self._held = None
        self._post(talk.Holding(held=self._held))

    def _accept(self, effect: talk.Accept) -> None:
        try:
            fits = self._credential.accept(effect.chain)
        except OSError as error:
            fits = True
            log.error("%s, so this certificate is lost at the next start: %s", *_unwritten(error))
        peer, serial = self._credential.peer, self._credential.serial
        if not fits or peer is None or serial is None:
            self._post(talk.Unfit())
            return
        log.info("got a certificate for %s", peer.words)
        self._held = renewal.Held(
            cluster_id=peer.cluster_id, peer_id=peer.peer_id, serial=serial, renew_in=effect.renew_after
        )
        self._post(talk.Holding(held=self._held))

    async def _wait(self, effect: talk.Wait) -> None:
        if effect.pace is talk.Pace.LONGEST:
            self._backoff.most()
        delay = 0.0 if effect.pace is talk.Pace.AT_ONCE else self._backoff.next()
        await asyncio.sleep(effect.at_least + delay)
        self._post(talk.Retry())

    def _open(self, host_id: str) -> None:
        hello = pb.Hello(host_id=host_id, instance_id=self._identity.instance_id, agent_version=__version__)
        if self._identity.machine_id is not None:
            hello.machine_id = self._identity.machine_id
        self._count += 1
        number = self._count
        key = self._identity.node_key
        self._stream = Stream(
            self._target,
            self._credential.link if self._far else None,
            [(NODE_KEY, key)] if key is not None else [],
            hello,
            lambda event: self._post(event, number),
            self._why.not_connected if self._far else None,
        )
        self._tasks.start(self._stream.run(), "session")

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.hang_up()
            self._stream = None

    def _arm(self) -> None:
        self._disarm()
        at = self._core.wake_at
        if at is not None:
            delay = max(0.0, at - self._clock.now())
            self._timer = asyncio.get_running_loop().call_later(delay, self._post, talk.Tick())

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _kept(credential: Credential, wall: float) -> renewal.Held | None:
    """The certificate of an earlier run."""
    peer, serial, begin, end = credential.peer, credential.serial, credential.not_before, credential.expires
    if peer is None or serial is None or begin is None or end is None:
        return None
    renew_in = renewal.due_in(begin, end, tls.BACKDATED, wall)
    return renewal.Held(cluster_id=peer.cluster_id, peer_id=peer.peer_id, serial=serial, renew_in=renew_in)


def _unwritten(error: OSError) -> tuple[str, str]:
    return f"cannot write {error.filename or 'below the state folder'}", error.strerror or str(error)


def _load(load: Load) -> pb.SessionRequest:
    machine, services = load
    return pb.SessionRequest(
        load=pb.Load(
            machine=convert.machine_load_to_proto(machine), services=map(convert.service_load_to_proto, services)
        )
    )


def _finish(effect: talk.Quit) -> None:
    if effect.exit is not None:
        raise UserError(f"control ended the session: {effect.text}", _EXITS[effect.exit])
