"""How a module finds its hub, and finds it again."""

import asyncio
import base64

from bench import Failed
from certificates import Authority
from hub import Identity

from . import scenario
from .clock import fast, forget_paces


async def _attempts(bench, seconds, most, least=1):
    """How often a module tries while it is kept out."""
    before = len(bench.hub.attempts)
    await asyncio.sleep(seconds)
    count = len(bench.hub.attempts) - before
    if not least <= count <= most:
        raise Failed(f"{count} attempts in {seconds} s, expected {least} to {most}")


@scenario()
async def a_hub_that_comes_late_is_found(bench):
    bench.desire({"cam": bench.flow("a")})
    await bench.start(hub=False)
    await bench.until("healthy without a hub", lambda: bench.answers("/healthz"))
    if await bench.answers("/readyz"):
        raise Failed("ready although nothing was ever configured")
    if await bench.module.value("av_hub_connected") != 0:
        raise Failed("av_hub_connected is not 0")
    await asyncio.sleep(5)
    await bench.hub.start(bench.hub_port)
    await bench.settled(timeout=60)
    if await bench.module.value("av_hub_connected") != 1:
        raise Failed("av_hub_connected is not 1")
    await bench.until("ready", lambda: bench.answers("/readyz"))


@scenario(seconds=50)
async def a_workload_api_that_is_absent_refuses_fails_and_is_slow_is_asked_again(bench):
    bench.desire({"cam": bench.flow("a")})
    await bench.start(workload=False)
    await asyncio.sleep(3)
    bench.workload.status = 403
    await bench.workload.start(bench.address)
    for status in [403, 500, 422]:
        bench.workload.status = status
        asked = len(bench.workload.requests)
        await bench.until(f"asked through {status}", lambda: len(bench.workload.requests) > asked, 60)
    bench.workload.status, bench.workload.delay = None, 3
    await bench.settled(timeout=60)


@scenario(seconds=35)
async def a_workload_api_that_hangs_is_given_up_and_asked_again(bench):
    bench.workload.hang = True
    await bench.start()
    await bench.until("asked again", lambda: len(bench.workload.requests) >= 2, 100)
    bench.workload.hang = False
    await bench.settled(timeout=60)


@scenario(http_workload=True)
async def a_workload_api_over_http_does(bench):
    bench.desire({"cam": bench.flow("a")})
    await bench.start()
    await bench.settled()


@scenario(seconds=40)
async def refused_connections_are_tried_again_with_back_off_and_new_tokens(bench):
    bench.desire({"cam": bench.flow("a")})
    bench.hub.connack = 5
    await bench.start()
    await bench.until("tried twice", lambda: len(bench.hub.attempts) > 1)
    bench.hub.connack = 3
    await _attempts(bench, 20, 5)
    bench.hub.connack = 0
    await bench.settled(timeout=90)
    if not all(any(code in line for line in bench.module.lines) for code in ["(5)", "(3)"]):
        raise Failed("the log does not tell why the hub refused")


@scenario()
async def a_hub_that_looks_up_the_identity_for_long_is_waited_for(bench):
    bench.hub.connack_delay = 20
    await bench.start()
    await bench.until("connecting", lambda: bench.hub.sessions and bench.hub.sessions[-1].connect)
    await bench.until("let in", lambda: bench.hub.sessions[0].accepted, 60)
    if len(bench.hub.attempts) != 1:
        raise Failed(f"{len(bench.hub.attempts)} attempts while CONNACK was awaited")
    await bench.settled()


@scenario(seconds=30)
async def a_hub_that_reads_all_its_identities_anew_for_a_hundred_seconds_is_waited_for(bench):
    # The module waits 120 s: what is left of them is what this machine may be late by, times four.
    bench.hub.connack_delay = 25
    await bench.start(**fast(4))
    await bench.until("let in", lambda: bench.hub.sessions and bench.hub.sessions[0].accepted, 60)
    if len(bench.hub.attempts) != 1:
        raise Failed(f"{len(bench.hub.attempts)} attempts while CONNACK was awaited")
    await bench.settled()
    forget_paces(bench)


@scenario(seconds=60)
async def connections_whose_subscriptions_are_never_confirmed_come_ever_more_rarely(bench):
    bench.hub.suback = False
    await bench.start(**fast(10))
    # The module leaves each after a minute of its time.
    await bench.until("six were left", lambda: sum(bool(session.ended) for session in bench.hub.sessions) >= 6, 150)
    await bench.until("a seventh is tried", lambda: len(bench.hub.attempts) > 6, 30)
    # The last is to be 32 s: a machine that is late by seconds of the module's time does not hide it.
    waited = [(attempt - session.left) * 10 for session, attempt in zip(bench.hub.sessions, bench.hub.attempts[1:])]
    if max(waited[3:6]) < 8:
        raise Failed(f"after each of them the module waited {', '.join(f'{s:.1f}' for s in waited)} s of its time")
    bench.hub.suback = True
    await bench.settled(timeout=90)
    forget_paces(bench)


@scenario()
async def a_hub_that_loses_a_connect_right_behind_the_handshake_is_reached_by_the_second_try(bench):
    bench.hub.deaf = 0.1
    await bench.start()
    await bench.until("let in", lambda: any(session.accepted for session in bench.hub.sessions), 60)
    if not any("closed before CONNECT was answered" in line for line in bench.module.lines):
        raise Failed("the log does not say what became of the first try")
    await bench.settled()


@scenario()
async def a_hub_without_mqtt_is_told_from_one_that_refuses(bench):
    await bench.start(hub=False)
    await bench.until("said", lambda: any("mqttSettings__enabled" in line for line in bench.module.lines))


@scenario()
async def subscriptions_are_made_anew_whatever_session_present_says(bench):
    bench.desire({"cam": bench.flow("a")})
    await bench.start()
    await bench.settled()
    for present in [True, False, True]:
        bench.hub.present = present
        bench.hub.cut()
        await bench.until("connected again", lambda: bench.hub.ready, 40)
        status, _ = await bench.hub.call("ping") or (0, None)
        if status != 200:
            raise Failed(f"ping after session-present {present}: {status}")
        bench.hub.change({"logLevel": "debug" if present else "info"})
        await bench.settled()


@scenario(seconds=50)
async def a_connection_cut_in_the_middle_of_anything_is_made_good(bench):
    bench.desire({"cam": bench.flow("a")}, telemetryIntervalSeconds=1)
    cuts = iter(["twin/GET", "properties/reported", "messages/events", "properties/reported", "twin/GET"])
    cut = [next(cuts)]

    def cut_when(packet):
        if cut[0] and cut[0] in packet.topic:
            cut[0] = next(cuts, None)
            return True
        return False

    bench.hub.cut_when = cut_when
    await bench.start()
    for number in range(80):
        if cut[0] is None:
            break
        await asyncio.sleep(1.5)
        bench.hub.change({"publicHost": f"host{number}"})
    if cut[0]:
        raise Failed(f"never came to {cut[0]}")
    cut[0], cuts = "methods/res", iter([])
    await bench.until("connected again", lambda: bench.hub.ready, 60)
    if await bench.hub.call("getStatus") is not None:
        raise Failed("the call was answered although the connection was cut")
    await bench.until("connected again", lambda: bench.hub.ready, 60)
    await asyncio.sleep(1)
    await bench.settled(timeout=60)


@scenario(seconds=55)
async def a_hub_that_hangs_is_left(bench):
    bench.desire({"cam": bench.flow("a")})
    await bench.start()
    await bench.settled()
    tried = len(bench.hub.attempts)
    bench.hub.hang = True
    await bench.until("gave up the connection", lambda: len(bench.hub.attempts) > tried, 130)
    bench.hub.change({"publicHost": "changed.example"}, deliver=False)
    bench.hub.cut()
    await asyncio.sleep(0.3)
    bench.hub.hang = False
    await bench.settled(timeout=60)


@scenario()
async def certificates_and_authorities_are_rolled(bench):
    bench.desire({"cam": bench.flow("a")})
    old = bench.workload.authority
    bench.workload.bundle = "# a comment\r\n" + old.root.replace("\n", "\r\n")
    await bench.start()
    await bench.settled()
    await bench.hub.stop()
    await bench.hub.start(bench.hub_port)
    await bench.settled(timeout=60)
    new = await asyncio.to_thread(Authority)
    for bundle in [new.root + old.root, "\n" + new.root]:
        await bench.hub.stop()
        bench.workload.authority, bench.workload.bundle = new, bundle
        await bench.hub.start(bench.hub_port)
        await bench.until("trusts the new authority", lambda: bench.hub.ready, 60)
    bench.hub.change({"publicHost": "changed.example"})
    await bench.settled()


async def _kept_out(bench, what):
    """The module breaks off before it says who it is."""
    known = bench.hub.hellos
    # The first is over when the second begins.
    await bench.until(f"tried a hub of {what} twice", lambda: bench.hub.hellos >= known + 2, 60)
    if any(session.connect for session in bench.hub.sessions):
        raise Failed(f"CONNECT was sent to a hub of {what}")


@scenario()
async def a_hub_of_another_authority_or_name_is_never_told_anything(bench):
    bench.hub.names = ["other.local"]
    await bench.start()
    await _kept_out(bench, "another name")
    await bench.hub.stop()
    right, bench.hub.names = bench.workload.authority, [bench.identity.gateway]
    bench.workload.authority = await asyncio.to_thread(Authority)
    await bench.hub.start(bench.hub_port)
    await _kept_out(bench, "another authority")
    await bench.hub.stop()
    bench.workload.authority = right
    await bench.hub.start(bench.hub_port)
    await bench.settled(timeout=60)


_ODD = Identity(
    hub="hub-1.azure-devices.net",
    device="dev.1%41=(x)!@$ü",
    module="rtmp-splitter",
    generation="6/3 7%",
    gateway="edge_device",
)


@scenario(identity=_ODD)
async def odd_names_are_escaped_where_they_must_be(bench):
    bench.desire({"cam": bench.flow("a")}, telemetryIntervalSeconds=1)
    await bench.start()
    await bench.settled()
    await bench.until("telemetry", lambda: bench.hub.telemetry.of("stats"))


@scenario(identity=Identity(gateway="127.0.0.1"))
async def a_gateway_that_is_an_address_is_verified_as_one(bench):
    await bench.start()
    await bench.settled()


@scenario(seconds=45)
async def a_module_that_is_pushed_out_again_and_again_backs_off_and_says_so(bench):
    await bench.start()
    await bench.settled()
    began = len(bench.hub.attempts)
    for _ in range(40):
        await asyncio.sleep(1)
        if bench.hub.ready:
            bench.hub.cut()
    count = len(bench.hub.attempts) - began
    if count > 9:
        raise Failed(f"{count} connections in 40 s")
    await bench.settled(timeout=70)


@scenario()
async def a_connection_string_does_as_well(bench):
    bench.desire({"cam": bench.flow("a")})
    bench.hub.local_key = True
    authority = bench.folder / "ca.pem"
    authority.write_text(bench.workload.authority.root)
    me, key = bench.identity, base64.b64encode(bench.workload.key).decode()
    bench.record.secrets.append(key)
    string = f"HostName={me.hub};GatewayHostName={me.gateway};DeviceId={me.device};ModuleId={me.module}"
    string += f";SharedAccessKey={key}"
    kept = {name: value for name, value in bench.environment().items() if not name.startswith("IOTEDGE_")}
    bench.environment = lambda: (
        kept | {"EdgeHubConnectionString": string, "EdgeModuleCACertificateFile": str(authority)}
    )
    await bench.start(workload=False)
    await bench.settled()
    bench.hub.cut()
    await bench.until("connected again", lambda: bench.hub.ready)
    await bench.settled()
