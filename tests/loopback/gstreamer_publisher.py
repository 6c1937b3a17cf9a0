"""A WHIP client of GStreamer's webrtcbin, for the Python of the system (Debian: python3-gi; `make gstreamer`).

gstreamer_publisher.py URL PIPELINE [--trickle]: the pipeline links its sources to the element `webrtc`. Runs until it
is stopped. Standard library and GStreamer only.
"""

import sys
import threading
import urllib.request

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstWebRTC", "1.0")
gi.require_version("GstSdp", "1.0")
from gi.repository import GLib, Gst, GstSdp, GstWebRTC  # noqa: E402

url, pipeline, *rest = sys.argv[1:]
trickles = "--trickle" in rest


def request(method: str, address: str, kind: str, body: str) -> tuple[str, str]:
    """The Location and the text of the answer."""
    sent = urllib.request.Request(address, body.encode(), {"Content-Type": kind}, method=method)
    with urllib.request.urlopen(sent, timeout=20) as answer:
        print(method, answer.status, flush=True)
        return answer.headers.get("Location", ""), answer.read().decode()


class Client:
    def __init__(self) -> None:
        self.elements = Gst.parse_launch(f"webrtcbin name=webrtc bundle-policy=max-bundle {pipeline}")
        self.webrtc = self.elements.get_by_name("webrtc")
        self.candidates: list[tuple[int, str]] = []
        self.place = ""
        self.webrtc.connect("on-negotiation-needed", self.offer)
        self.webrtc.connect("on-ice-candidate", lambda _, line, text: self.candidates.append((line, text)))
        self.webrtc.connect("notify::ice-gathering-state", self.gathered)
        self.webrtc.connect(
            "notify::connection-state", lambda bin, _: print(bin.get_property("connection-state"), flush=True)
        )
        self.elements.set_state(Gst.State.PLAYING)

    def offer(self, _: object) -> None:
        promise = Gst.Promise.new_with_change_func(self.offered)
        self.webrtc.emit("create-offer", None, promise)

    def offered(self, promise: Gst.Promise, *_: object) -> None:
        reply = promise.get_reply()  # what it holds lives as long as it does
        offer = reply.get_value("offer")
        text = offer.sdp.as_text()
        self.webrtc.emit("set-local-description", offer, Gst.Promise.new())
        if trickles:
            threading.Thread(target=self.post, args=[text], daemon=True).start()

    def gathered(self, *_: object) -> None:
        complete = GstWebRTC.WebRTCICEGatheringState.COMPLETE
        if self.webrtc.get_property("ice-gathering-state") != complete:
            return
        if trickles:
            threading.Timer(1.0, self.patch).start()
        else:
            text = self.webrtc.get_property("local-description").sdp.as_text()
            threading.Thread(target=self.post, args=[text], daemon=True).start()

    def post(self, sdp: str) -> None:
        print(sdp, flush=True)
        self.place, text = request("POST", url, "application/sdp", sdp)
        _, answer = GstSdp.SDPMessage.new_from_text(text)
        description = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, answer)
        self.webrtc.emit("set-remote-description", description, Gst.Promise.new())

    def patch(self) -> None:
        base = "/".join(url.split("/")[:3])
        lines = [f"a={text}" for _, text in self.candidates if text]
        fragment = "\r\n".join(["a=mid:0", *lines, "a=end-of-candidates", ""])
        request("PATCH", base + self.place, "application/trickle-ice-sdpfrag", fragment)


Gst.init(None)
client = Client()
GLib.MainLoop().run()
