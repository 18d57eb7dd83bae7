"""Which calls an engine had in flight together, and which depend on an earlier reply."""

from __future__ import annotations

from ipaddress import ip_interface

from .recording import Call


def waits_for(call: Call, earlier: Call) -> bool:
    """Whether the engine had the reply to *earlier* before it made *call*.

    The times of the recordings tell it, but for a few milliseconds: the recorder noted the end of a call when
    its handler returned, by which time the engine might have gone on. So what follows from an answer, or is
    about the same endpoint, waits in any case.
    """
    if earlier.fault == "killed" or earlier.hung_up:
        return False
    if earlier.ended <= call.at or earlier.connection == call.connection:
        return True
    return bool(_needs(call) & _settles(earlier))


def _needs(call: Call) -> set[str]:
    body = call.body
    needs = {f"{name}:{body[name]}" for name in ("EndpointID", "PoolID") if body.get(name)}
    if "NetworkID" in body and not call.method.endswith("DeleteNetwork"):
        needs.add(f"NetworkID:{body['NetworkID']}")
    return needs | _addresses(call)


def _settles(call: Call) -> set[str]:
    body, reply = call.body, call.reply if isinstance(call.reply, dict) else {}
    match call.method.partition(".")[2]:
        case "RequestPool":
            return {f"PoolID:{reply.get('PoolID')}"}
        case "RequestAddress" | "ReleaseAddress":
            return _addresses(call)
        case "CreateNetwork":
            return {f"NetworkID:{body['NetworkID']}"}
        case _ if "EndpointID" in body:
            return {f"EndpointID:{body['EndpointID']}"}
    return set()


def _addresses(call: Call) -> set[str]:
    body = call.body
    texts = [body.get("Address"), *(body.get("Interface") or {}).values()]
    if call.method == "IpamDriver.RequestAddress" and isinstance(call.reply, dict):
        texts.append(call.reply.get("Address"))
    for data in (body.get("IPv4Data") or []) + (body.get("IPv6Data") or []):
        texts += [data.get("Gateway"), *(data.get("AuxAddresses") or {}).values()]
    return {f"address:{ip}" for text in texts if text and (ip := _ip(text))}


def _ip(text: str) -> str | None:
    try:
        return str(ip_interface(text).ip)
    except ValueError:
        return None
