"""What a configuration amounts to on this machine, as JSON for `talkalong doctor`: `python -m stream.outline CONFIG`.

Holds the credentials that a session would get, so it is for a pipe, not for a log. Gathers real candidates with the
server's own code.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import re
import sys
from typing import Any

from stream import aiortc_patches
from stream.config import ServeConfig
from stream.errors import ConfigError, StreamError
from stream.ice import Ice
from stream.security import Guard
from stream.serve import add_arguments, build_config

CANDIDATE = re.compile(r"a=candidate:\S+ \d (\w+) \d+ (\S+) (\d+) typ (\w+)")


async def candidates(config: ServeConfig) -> tuple[list[dict[str, Any]], str]:
    """What a session would announce, and why it would announce nothing."""
    aiortc_patches.install(loopback=config.ice.loopback)
    pc = Ice(config).peer_connection()
    try:
        pc.createDataChannel("talkalong")
        await pc.setLocalDescription(await pc.createOffer())
        lines = pc.localDescription.sdp.splitlines()
    except StreamError as error:
        return [], error.message
    finally:
        await aiortc_patches.close_peer(pc, timeout_s=config.limits.close_timeout_s)
    found = [match for line in lines if (match := CANDIDATE.match(line))]
    return [{"address": item[2], "port": int(item[3]), "kind": item[4]} for item in found], ""


def folders(config: ServeConfig) -> list[str]:
    """Where the server will write."""
    records = config.recording.allowed or config.recording.every_session
    found = (config.portraits.uploads_directory, config.recording.directory if records else None)
    return [folder for folder in found if folder]


def outline(config: ServeConfig) -> dict[str, Any]:
    found, problem = asyncio.run(candidates(config))
    network, ice = config.network, config.ice
    return {
        "network": {
            "host": network.host, "port": network.port, "certificate": network.certificate,
            "cors_origins": list(network.cors_origins),
        },
        "token_required": Guard(config).token_required,
        "ice_servers": [server.to_dict() for server in Ice(config).servers()],
        "ice": {
            "port_range": list(ice.port_range), "public_address": ice.public_address, "policy": ice.policy,
            "client_policy": ice.client_policy, "loopback": ice.loopback,
            "private_candidates": ice.private_candidates,
        },
        "candidates": found,
        "candidates_problem": problem,
        "model": {"name": config.model.name, "device": config.model.device, "threads": config.model.threads,
                  "steps": config.model.steps},
        "sessions": config.limits.sessions,
        "folders": folders(config),
    }  # fmt: skip


def main() -> int:
    """Prints the outline; exit status 2 and a sentence for a configuration that cannot be used."""
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="python -m stream.outline")
    add_arguments(parser)
    try:
        config = build_config(parser.parse_args())
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    print(json.dumps(outline(config)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
