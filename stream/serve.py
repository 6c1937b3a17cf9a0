"""`talkalong serve`: run the server, say where it is and what the delay is made of; Ctrl-C ends it."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import os
import signal
import ssl
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import FrameType

import uvicorn

from stream.config import LAST_PORT, NetworkConfig, ServeConfig, load_config
from stream.errors import ConfigError, ListenError
from stream.listening import listen
from stream.server import Server, create_app

DEFAULT_CONFIG = "default"
KEEP_ALIVE_S = 30
"""Longer than clients keep an idle connection (5 s are usual), or a request may meet its end."""
SHUTDOWN_S = 8
SIGNALS = ("SIGINT", "SIGTERM", "SIGBREAK", "SIGHUP")
CTRL_C_STATUS = 130
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
EVERY_HOST = ("", "0.0.0.0", "::")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Ctrl-C ends sessions, recordings and the model in order (exit status 130), a second one everything at once. "
        "SIGTERM and SIGHUP end it in order, too (0). 1: it could not serve; 2: an option or a configuration is wrong."
    )
    parser.add_argument(
        "--config", default=DEFAULT_CONFIG, help="a YAML file, or default, low_latency or gpu"
    )
    parser.add_argument("--host", help="address to listen on (default: as configured, 127.0.0.1)")
    parser.add_argument(
        "--port",
        type=parse_port,
        metavar="N",
        help="port to listen on (default: as configured, 8080); 0: any free one",
    )
    parser.add_argument("--certificate", help="a PEM file with the certificate (and its chain): speak https")
    parser.add_argument("--key", help="a PEM file with the certificate's private key")
    parser.add_argument("--model", help="a bundled model's name or a folder saved by save_pretrained")
    parser.add_argument("--log-level", default="info", choices=["debug", "info", "warning", "error"])


def parse_port(text: str) -> int:
    """0 to 65535."""
    if not (text.isascii() and text.isdigit() and int(text) <= LAST_PORT):
        raise argparse.ArgumentTypeError(
            f"'{text}' is no port; give a number from 1 to {LAST_PORT}, or 0 for any free one"
        )
    return int(text)


def find_config(name: str) -> Path:
    """A file as given, or the name of a configuration that ships with the package; raises ConfigError."""
    path = Path(name)
    if os.path.isfile(path) or path.suffix in (".yaml", ".yml"):
        return path
    folder = Path(str(resources.files("configs"))) / "serve"
    bundled = sorted(item.stem for item in folder.glob("*.yaml"))
    if name not in bundled:
        raise ConfigError(
            f"There is no configuration '{name}'; name a YAML file, or one of {', '.join(bundled)}."
        )
    return folder / f"{name}.yaml"


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
        try:
            Path(place).read_bytes()
        except FileNotFoundError:
            raise ConfigError(f"There is no {name} at {place}.") from None
        except OSError as error:
            raise ConfigError(f"The {name} {place} cannot be read: {error.strerror or error}.") from None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            network.certificate, network.key, _no_password
        )
    except (ssl.SSLError, OSError, ValueError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            raise ConfigError(
                f"The key {network.key} is not the key of the certificate {network.certificate}."
            ) from None
        raise ConfigError(
            f"{network.certificate} and {network.key} are not a certificate and its key in PEM form, without a "
            f"password ({getattr(error, 'reason', None) or error})."
        ) from None


def _no_password() -> str:
    raise ValueError("the key is encrypted")


def announce(server: Server) -> None:
    network = server.config.network
    print(f"Talkalong is ready: {address(network)}", flush=True)
    print(f"Latency budget: {server.budget().sentence()}.", flush=True)
    if network.host in LOCAL_HOSTS:
        return
    if not server.guard.token_required:
        print("Anyone who reaches this port can use it; set TALKALONG_TOKEN to ask for a token.", flush=True)
    if network.certificate is None:
        print(
            "Browsers give the microphone only to https pages and to localhost: docs/reachability.md.",
            flush=True,
        )


def address(network: NetworkConfig) -> str:
    """Where a browser on this machine finds the page."""
    host = "localhost" if network.host in ("127.0.0.1", *EVERY_HOST) else network.host
    scheme = "https" if network.certificate is not None else "http"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{network.port}/"


class Process(uvicorn.Server):
    """Uvicorn until a signal or a failure ends it; `status` is then the exit status of the command.

    The first signal ends sessions, recordings and the model process in order; another Ctrl-C ends everything at once.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.server: Server | None = None
        self.failure: str | None = None
        self._signal: int | None = None

    @property
    def status(self) -> int:
        """130 after Ctrl-C, as shells count it; 0 where the end was asked for otherwise, as supervisors do."""
        if self.failure is not None or not self.started:
            return 1
        return CTRL_C_STATUS if self._signal == signal.SIGINT else 0

    def fail(self, sentence: str) -> None:
        """The server will never serve again: end."""
        self.failure = sentence
        self.should_exit = True

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn's own raises the signal again at the end, which is a traceback after Ctrl-C. Once one has come, the
        next one after this ends the process without a word."""
        numbers = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
        if signal.getsignal(numbers[-1]) is signal.SIG_IGN:  # `nohup`: stays whoever hangs up
            numbers.pop()
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler if self._signal is None else signal.SIG_DFL)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        again, self._signal = self._signal is not None, self._signal or sig
        if again and sig == signal.SIGINT:
            if self.server is not None:
                self.server.kill()
            os._exit(CTRL_C_STATUS)
        self.should_exit = True
        if self.server is not None:
            self.server.stop_soon()


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
        sockets = listen(config.network.host, config.network.port)
    except (ConfigError, ListenError) as error:
        print(f"talkalong serve: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    port = sockets[0].getsockname()[1]
    config = dataclasses.replace(config, network=dataclasses.replace(config.network, port=port))
    print("Loading the model ...", flush=True)
    app = create_app(config, on_ready=announce, on_failure=lambda sentence: process.fail(sentence))
    process = Process(
        uvicorn.Config(
            app,
            loop="auto",  # uvloop where there is one
            log_level=args.log_level,
            access_log=False,
            ws="websockets-sansio",
            ws_max_size=1 << 20,
            ws_ping_timeout=None,  # a pong may wait behind sound that the model has no time for yet
            ssl_certfile=config.network.certificate,
            ssl_keyfile=config.network.key,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
    )
    process.server = app.state.server
    process.run(sockets=sockets)
    if process.failure is not None:
        print(f"talkalong serve: {process.failure}", file=sys.stderr)
    return process.status
