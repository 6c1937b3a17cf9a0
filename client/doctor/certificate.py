"""The certificate of an https server, as a browser would judge it."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from urllib.parse import urlsplit

from client.doctor.finding import Finding, ok, problem, warning

TIMEOUT_S = 5.0
SOON_DAYS = 14
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")
# X509_V_ERR_*: openssl/x509_vfy.h
EXPIRED, NOT_YET, SELF_SIGNED, SELF_SIGNED_CHAIN, NO_ISSUER, NO_FIRST, WRONG_HOST, WRONG_ADDRESS = (
    10, 9, 18, 19, 20, 21, 62, 64,
)  # fmt: skip


async def check(url: str, context: ssl.SSLContext | None = None) -> list[Finding]:
    """context: whom to trust; the system's authorities unless given (SSL_CERT_FILE names others)."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "https":
        if host in LOCAL_NAMES:
            return [
                ok(
                    "certificate",
                    f"{host} needs none: browsers give the microphone to pages of this machine.",
                )
            ]
        return [
            warning(
                "certificate", f"{url} is not https: browsers keep the microphone from its page; Python clients work.",
                "Choose Sample voice on the page for now, and give the server a certificate (`talkalong serve "
                "--certificate --key`) or a reverse proxy with one.",
            )
        ]  # fmt: skip
    return [await asyncio.to_thread(_examine, host, parts.port or 443, context)]


def _examine(host: str, port: int, context: ssl.SSLContext | None) -> Finding:
    context = context or ssl.create_default_context()
    try:
        with (
            socket.create_connection((host, port), TIMEOUT_S) as connection,
            context.wrap_socket(connection, server_hostname=host) as secured,
        ):
            certificate = secured.getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        return problem("certificate", *_refused(host, error), reason=error.verify_message)
    except ssl.SSLError as error:
        return problem(
            "certificate", f"{host}:{port} does not speak TLS as expected ({error.reason or error}).",
            "Is it http instead of https, or another port?",
        )  # fmt: skip
    except OSError as error:
        return problem(
            "certificate", f"{host}:{port} cannot be reached ({error.strerror or error or 'no answer'}).",
            "Check the address, and that the port is open in the firewall.",
        )  # fmt: skip
    ends = datetime.datetime.fromtimestamp(
        ssl.cert_time_to_seconds(str(certificate["notAfter"])), datetime.UTC
    )
    days = (ends - datetime.datetime.now(datetime.UTC)).days
    says = f"The certificate of {host} is valid until {ends:%d %B %Y} ({days} days)."
    if days < SOON_DAYS:
        return warning(
            "certificate", says, "Renew it now (with Caddy or certbot this goes by itself).", days=days
        )
    return ok("certificate", says, days=days)


def _refused(host: str, error: ssl.SSLCertVerificationError) -> tuple[str, str]:
    """Sentence and remedy."""
    code = error.verify_code
    if code == EXPIRED:
        return (
            f"The certificate of {host} has expired.",
            "Renew it, and see that renewal goes by itself (Caddy, certbot).",
        )
    if code == NOT_YET:
        return (
            f"The certificate of {host} is not valid yet.",
            "Set this machine's clock right (`timedatectl`).",
        )
    if code in (WRONG_HOST, WRONG_ADDRESS):
        return (
            f"The certificate is made out to another name than {host}.",
            "Open the server by the name in its certificate, or have one made for this name.",
        )
    if code in (SELF_SIGNED, SELF_SIGNED_CHAIN, NO_ISSUER, NO_FIRST):
        return (
            f"Nobody whom this machine trusts has signed the certificate of {host} ({error.verify_message}).",
            "Use one of a public authority (Caddy and certbot get it by themselves, with the whole chain), or trust "
            "your own: SSL_CERT_FILE for Python, the certificate store for browsers.",
        )
    return f"The certificate of {host} is refused ({error.verify_message}).", "Have a new one made."
