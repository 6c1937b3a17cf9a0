"""One conversation by the real Python client, in whatever network this process is in; the outcome as JSON.

python -m tests.network.speaker URL [--relay-only] [--credentials USERNAME CREDENTIAL] [--seconds S]

The voice is half a second of tone, half a second of silence. The stand-in model's picture is as bright as the voice
is loud, so that what is seen can be told from a picture that only stands there.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

import numpy as np

from client import peer
from client.api import ServerApi
from client.errors import ClientError
from client.peer import AvatarClient
from stream import aiortc_patches
from stream.protocol import SAMPLE_RATE

LOUD = 8_000


def voice(seconds: float) -> np.ndarray:
    at = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (11_000 * np.sin(2 * np.pi * 220 * at) * ((at % 1.0) < 0.5)).astype(np.int16)


def change_relays(**changes: str) -> None:
    """As if the server had told something else of its TURN servers."""
    describe = ServerApi.describe

    async def describe_changed(api: ServerApi) -> dict[str, Any]:
        about = await describe(api)
        for server in about["ice_servers"]:
            server["urls"] += changes.get("add", "")
            server |= {name: changes[name] for name in ("username", "credential") if name in changes}
        return about

    ServerApi.describe = describe_changed  # type: ignore[method-assign]


async def talk(url: str, *, relay_only: bool, seconds: float) -> dict[str, Any]:
    brightness, loudness = [], []
    async with AvatarClient(url, relay_only=relay_only) as avatar:
        speaking = asyncio.create_task(avatar.push(voice(seconds)))
        async for moment in avatar:
            # The lower part: the stand-in tints the upper quarter by the session's seed.
            brightness.append(float(moment.picture[moment.picture.shape[0] // 2 :].mean()))
            loudness.append(float(np.abs(moment.pcm).max()))
            if speaking.done():
                break
        assert avatar._connection is not None
        pair = aiortc_patches.selected_pair(avatar._connection)
        remote = avatar._connection.remoteDescription.sdp
        stats = avatar.stats
    loud = np.array(loudness) > LOUD / 2
    shown = np.array(brightness)
    return {
        "moments": len(shown),
        "loud": int(loud.sum()),
        "silent": int((~loud).sum()),
        "bright_when_loud": float(np.median(shown[loud])) if loud.any() else 0.0,
        "bright_when_silent": float(np.median(shown[~loud])) if (~loud).any() else 0.0,
        "pair": pair,
        "announced": [line for line in remote.splitlines() if line.startswith("a=candidate:")],
        "stats": stats,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--relay-only", action="store_true")
    parser.add_argument("--credentials", nargs=2, metavar=("USERNAME", "CREDENTIAL"))
    parser.add_argument("--over-tcp", action="store_true", help="to the TURN server")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--patience", type=float, default=15.0, help="seconds until no way counts as none")
    args = parser.parse_args()
    peer.CONNECT_TIMEOUT_S = args.patience
    if args.credentials:
        change_relays(username=args.credentials[0], credential=args.credentials[1])
    if args.over_tcp:
        change_relays(add="?transport=tcp")
    try:
        outcome = asyncio.run(talk(args.url, relay_only=args.relay_only, seconds=args.seconds))
    except ClientError as error:
        outcome = {"error": str(error)}
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
