"""A module's SAS token, checked as edgeHub checks it."""

import base64
import hashlib
import hmac
import re
from urllib.parse import quote, unquote

_FORM = re.compile(r"SharedAccessSignature (\S+)")


def sign(key, data):
    """What the workload API answers: base64 of the HMAC-SHA256."""
    return base64.b64encode(hmac.new(key, data, hashlib.sha256).digest()).decode()


def faults(token, identity, key, now):
    """Sentences that say what is wrong with a token; none when it is right."""
    form = _FORM.fullmatch(token or "")
    if not form:
        return [f"not a SharedAccessSignature: {token!r}"]
    parts = [part.partition("=") for part in form[1].split("&")]
    fields = {name: value for name, _, value in parts}
    if len(parts) != 3 or set(fields) != {"sr", "sig", "se"}:
        return [f"fields {[name for name, _, _ in parts]}, expected sr, sig, se once each"]
    found = []
    resource = f"{identity.hub}/devices/{identity.device}/modules/{identity.module}"
    if fields["sr"] != quote(resource, safe=""):
        found.append(f"sr is {fields['sr']}, expected {quote(resource, safe='')}")
    digest = sign(key, f"{fields['sr']}\n{fields['se']}".encode())
    if unquote(fields["sig"]) != digest:
        found.append("signature does not fit sr and se as sent")
    if re.search(r"[^A-Za-z0-9_.~%-]", fields["sig"]):
        found.append(f"signature is not percent-encoded: {fields['sig']}")
    if not re.fullmatch(r"[1-9][0-9]*", fields["se"]):
        found.append(f"se is no whole number of seconds: {fields['se']}")
    elif not 60 <= int(fields["se"]) - now <= 24 * 3600:
        found.append(f"ends {int(fields['se']) - now:.0f} s from now")
    return found


def digest_of(token):
    """The signature in a token, as the workload API gave it."""
    found = re.search(r"sig=([^&]*)", token or "")
    return unquote(found[1]) if found else ""
