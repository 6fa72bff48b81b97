"""What a connection needs to know: the checked URL and headers, the proxy of the environment, and what to redact."""

import contextlib
import re
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx
from pydantic import SecretStr

from ..job import LOOPBACK, Endpoint
from ..records import BadJob
from ..secrecy import login_secrets, secrets_of_header
from .redact import Redactor

HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token of RFC 9110."""

HEADER_VALUE = re.compile(r"[!-~](?:[ -~]*[!-~])?|")
"""Printable ASCII without outer spaces, or nothing."""


def url_under(endpoint: Endpoint, path: str) -> httpx.URL:
    """Make the URL of a path under the base URL, with the endpoint's query. Raises BadJob if it is invalid."""
    base_url = endpoint.base_url
    try:
        url = httpx.URL(base_url + path, **({"params": endpoint.query} if endpoint.query else {}))
        _ = url.host  # decoded only here, it may be invalid
    except (httpx.InvalidURL, UnicodeError) as error:
        raise BadJob(f"endpoint.base_url: {base_url!r} is not a web address: {error}\nNothing was sent.") from None
    if url.port is not None and not 0 < url.port < 65536:
        raise BadJob(f"endpoint.base_url: {base_url!r}: there is no port {url.port}\nNothing was sent.")
    return url


def request_headers(endpoint: Endpoint, key: SecretStr | None) -> httpx.Headers:
    """Make the headers of a request. Raises BadJob for one that cannot be sent, without quoting its value."""
    own = endpoint.all_headers()
    for name, value in own.items():
        if not HEADER_NAME.fullmatch(name) or not HEADER_VALUE.fullmatch(value):
            setting = "endpoint.headers_env" if name in endpoint.headers_env else "endpoint.headers"
            raise BadJob(
                f"{setting}: {name!r} or its value contains a character that is not allowed in a header: "
                "use plain ASCII, without line breaks or outer spaces.\nNothing was sent."
            )
    headers = httpx.Headers({"accept": "application/json", **own})
    headers["content-type"] = "application/json"
    headers["accept-encoding"] = "gzip"
    headers["user-agent"] = "batch-prompt-pipeline"
    if key is not None:
        if not HEADER_VALUE.fullmatch(key.get_secret_value()):
            raise BadJob(
                f"The key in {endpoint.api_key_env or 'endpoint.api_key_default'} contains a character that no key "
                "has, such as a line break or a typographic quote: copy it again.\nNothing was sent."
            )
        headers["authorization"] = f"Bearer {key.get_secret_value()}"
    return headers


def redactor_for(endpoint: Endpoint, key: SecretStr | None, proxy: httpx.Proxy | None) -> Redactor:
    """Make the redactor of all secrets that requests to an endpoint carry, and of the proxy's password."""
    own, secrets = endpoint.all_headers(), [*endpoint.secret_headers, *endpoint.address_secrets]
    secrets += [*([key.get_secret_value()] if key is not None else []), *endpoint.keys_of_command]
    secrets += [secret for name in endpoint.headers_env for secret in (own[name], *secrets_of_header(name, own[name]))]
    if proxy is not None and proxy.raw_auth is not None:
        secrets += login_secrets(*(part.decode(errors="replace") for part in proxy.raw_auth))
    return Redactor(secrets)


def proxy_for(url: httpx.URL) -> httpx.Proxy | None:
    """Find the proxy that the environment names for a URL; none for this machine. Raises BadJob if it is invalid."""
    proxies = getproxies()
    address = proxies.get(url.scheme) or proxies.get("all")
    if address is None or url.host in LOOPBACK or proxy_bypass(url.host):
        return None
    with contextlib.suppress(httpx.InvalidURL, ValueError):
        parts, proxy = urlsplit(address), httpx.Proxy(address)  # each accepts what the other does not
        if parts.scheme == "http" and parts.hostname and parts.port != 0:
            return proxy
    raise BadJob(  # its address is not repeated: it may contain a password
        f"The {url.scheme} proxy that the environment names cannot be used. Its address must be http://HOST:PORT\n"
        "or http://USER:PASSWORD@HOST:PORT, with special characters of the password percent-encoded (%40 for @).\n"
        "Nothing was sent."
    )
