"""`talkalong serve`: run the server, say where it is and what the delay is made of; Ctrl-C ends it."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import ssl
import sys
from importlib import resources
from pathlib import Path

import uvicorn

from stream.config import NetworkConfig, ServeConfig, load_config
from stream.errors import ConfigError
from stream.server import Server, create_app

DEFAULT_CONFIG = "default"
SHUTDOWN_S = 8


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", default=DEFAULT_CONFIG, help="a YAML file, or default, low_latency or gpu"
    )
    parser.add_argument("--host", help="address to listen on (default: as configured, 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default: as configured, 8080)")
    parser.add_argument("--certificate", help="a PEM file with the certificate (and its chain): speak https")
    parser.add_argument("--key", help="a PEM file with the certificate's private key")
    parser.add_argument("--model", help="a bundled model's name or a folder saved by save_pretrained")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])


def find_config(name: str) -> Path:
    """A path as given, or the name of a configuration that ships with the package."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return path
    return Path(str(resources.files("configs"))) / "serve" / f"{name}.yaml"


def build_config(args: argparse.Namespace) -> ServeConfig:
    """The YAML file with what the command line changes."""
    config = load_config(find_config(args.config))
    network = config.network
    if args.host is not None:
        network = dataclasses.replace(network, host=args.host)
    if args.port is not None:
        network = dataclasses.replace(network, port=args.port)
    if args.certificate is not None or args.key is not None:
        certificate, key = args.certificate or network.certificate, args.key or network.key
        network = dataclasses.replace(network, certificate=certificate, key=key)
    check_certificate(network)
    model = config.model if args.model is None else dataclasses.replace(config.model, name=args.model)
    return dataclasses.replace(config, network=network, model=model)


def check_certificate(network: NetworkConfig) -> None:
    """Raises ConfigError, with a sentence, for files that cannot be used."""
    if network.certificate is None or network.key is None:
        return
    for name, place in (("certificate", network.certificate), ("key", network.key)):
        if not Path(place).is_file():
            raise ConfigError(f"There is no {name} at {place}.")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            network.certificate, network.key, _no_password
        )
    except (ssl.SSLError, OSError, ValueError) as error:
        raise ConfigError(
            f"{network.certificate} and {network.key} are not a certificate and its key in PEM form, without a "
            f"password ({getattr(error, 'reason', None) or error})."
        ) from None


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def announce(server: Server) -> None:
    network = server.config.network
    host = "localhost" if network.host in ("127.0.0.1", "0.0.0.0", "::") else network.host
    secure = network.certificate is not None
    print(f"Talkalong is ready: {'https' if secure else 'http'}://{host}:{network.port}/", flush=True)
    print(f"Latency budget: {server.budget().sentence()}.", flush=True)
    if network.host != "127.0.0.1" and not server.guard.token_required:
        print("Anyone who reaches this port can use it; set TALKALONG_TOKEN to ask for a token.", flush=True)
    if network.host != "127.0.0.1" and not secure:
        print(
            "Browsers give the microphone only to https pages and to localhost: docs/reachability.md.",
            flush=True,
        )


def run(args: argparse.Namespace) -> int:
    logging.basicConfig(
        level=args.log_level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    for noisy in ("aioice", "aiortc", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        config = build_config(args)
    except ConfigError as error:
        print(f"talkalong serve: {error}", file=sys.stderr)
        return 2
    print("Loading the model ...", flush=True)
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(config, on_ready=announce),
            host=config.network.host,
            port=config.network.port,
            loop="uvloop",
            log_level=args.log_level,
            access_log=False,
            ws_max_size=1 << 20,
            ssl_certfile=config.network.certificate,
            ssl_keyfile=config.network.key,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
    )
    server.run()
    return 0 if server.started else 1
