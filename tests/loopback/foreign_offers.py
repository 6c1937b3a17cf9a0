"""Offers as WebRTC programs of other hands write them, and as people write them by hand: texts only."""

from __future__ import annotations

FINGERPRINT = "a=fingerprint:sha-256 " + ":".join(["AB"] * 32)
ICE = "a=ice-ufrag:abcd\na=ice-pwd:abcdefghijklmnopqrstuvwxyz"
KEYS = f"{ICE}\n{FINGERPRINT}\na=setup:actpass"
HOST = "a=candidate:1 1 udp 2130706431 192.0.2.77 50000 typ host"


def head(bundle: str = "0 1", *more: str) -> str:
    group = [f"a=group:BUNDLE {bundle}"] if bundle else []
    return "\n".join(["v=0", "o=- 1 2 IN IP4 127.0.0.1", "s=-", "t=0 0", *group, *more, ""])


def audio(
    *more: str,
    mid: str = "0",
    port: int = 9,
    direction: str = "sendonly",
    rtpmap: str = "111 opus/48000/2",
    fmtp: str = "minptime=10;useinbandfec=1",
    keys: str = KEYS,
    protocol: str = "UDP/TLS/RTP/SAVPF",
    formats: str = "111",
    mux: str = "a=rtcp-mux",
) -> str:
    lines = [f"m=audio {port} {protocol} {formats}", "c=IN IP4 0.0.0.0", keys, f"a=mid:{mid}" if mid else ""]
    lines += [f"a={direction}" if direction else "", mux, f"a=rtpmap:{rtpmap}"]
    lines += [f"a=fmtp:{rtpmap.split()[0]} {fmtp}" if fmtp else "", *more, ""]
    return "\n".join(line for line in lines if line) + "\n"


def video(
    codec: str = "H264/90000",
    fmtp: str = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
    *more: str,
    mid: str = "1",
    port: int = 9,
    direction: str = "sendonly",
    keys: str = KEYS,
) -> str:
    lines = [f"m=video {port} UDP/TLS/RTP/SAVPF 96", "c=IN IP4 0.0.0.0", keys, f"a=mid:{mid}" if mid else ""]
    lines += [
        f"a={direction}",
        "a=rtcp-mux",
        f"a=rtpmap:96 {codec}",
        f"a=fmtp:96 {fmtp}" if fmtp else "",
        *more,
    ]
    return "\n".join(line for line in lines if line) + "\n"


def data(mid: str = "2", first: str = "m=application 9 UDP/DTLS/SCTP webrtc-datachannel", *more: str) -> str:
    return "\n".join([first, "c=IN IP4 0.0.0.0", KEYS, f"a=mid:{mid}", *more, ""])


def h264(profile: str) -> str:
    return f"level-asymmetry-allowed=1;packetization-mode=1;profile-level-id={profile}"


FFMPEG_AUDIO = f"""m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 0.0.0.0
{KEYS.replace("actpass", "passive")}
a=mid:0
a=sendonly
a=msid:FFmpeg audio
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=ssrc:4097 cname:FFmpeg
a=ssrc:4097 msid:FFmpeg audio
"""
OBS = f"""v=0
o=rtc 3201497394 0 IN IP4 127.0.0.1
s=-
t=0 0
a=group:BUNDLE 0 1
a=group:LS 0 1
a=msid-semantic:WMS *
a=setup:actpass
a=ice-ufrag:tVGy
a=ice-pwd:jJvYzvrVRMXzBNDgDRaNHb
a=ice-options:ice2,trickle
{FINGERPRINT}
m=audio 54321 UDP/TLS/RTP/SAVPF 111
c=IN IP4 192.0.2.77
a=mid:0
a=sendonly
a=ssrc:33290 cname:lCcxCpcAXOlFTnsa
a=ssrc:33290 msid:SZHGmbuMvgPMoLFh SZHGmbuMvgPMoLFh-audio
a=msid:SZHGmbuMvgPMoLFh SZHGmbuMvgPMoLFh-audio
a=rtcp-mux
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;maxaveragebitrate=96000;stereo=1;sprop-stereo=1;useinbandfec=1
a=candidate:1 1 UDP 2114977791 192.0.2.77 54321 typ host
a=candidate:2 1 UDP 1678769919 203.0.113.9 54321 typ srflx raddr 0.0.0.0 rport 0
a=end-of-candidates
m=video 54321 UDP/TLS/RTP/SAVPF 96
c=IN IP4 192.0.2.77
a=mid:1
a=sendonly
a=ssrc:33291 cname:lCcxCpcAXOlFTnsa
a=msid:SZHGmbuMvgPMoLFh SZHGmbuMvgPMoLFh-video
a=rtcp-mux
a=rtpmap:96 CODEC
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtcp-fb:96 goog-remb
"""
GSTREAMER = f"""v=0
o=- 7211212021 0 IN IP4 0.0.0.0
s=-
t=0 0
a=ice-options:trickle
a=group:BUNDLE audio0 video1
m=audio 9 UDP/TLS/RTP/SAVPF 96
c=IN IP4 0.0.0.0
a=setup:actpass
{ICE}
a=rtcp-mux
a=rtcp-rsize
a=sendonly
a=rtpmap:96 OPUS/48000/2
a=rtcp-fb:96 nack
a=rtcp-fb:96 transport-cc
a=fmtp:96 sprop-maxcapturerate=48000; sprop-stereo=0
a=ssrc:2222 msid:user3344@host-aabb webrtctransceiver0
a=ssrc:2222 cname:user3344@host-aabb
a=mid:audio0
{FINGERPRINT}
m=video 0 UDP/TLS/RTP/SAVPF 97
c=IN IP4 0.0.0.0
a=setup:actpass
{ICE}
a=bundle-only
a=rtcp-mux
a=sendonly
a=rtpmap:97 H264/90000
a=rtcp-fb:97 nack pli
a=fmtp:97 packetization-mode=1;profile-level-id=640c1f;sprop-parameter-sets=Z2QMH6zZQFAFuw==,aOvjyyLA
a=mid:video1
{FINGERPRINT}
"""
FIREFOX = f"""v=0
o=mozilla...THIS_IS_SDPARTA-128.0 5921212 0 IN IP4 0.0.0.0
s=-
t=0 0
a=sendrecv
{FINGERPRINT}
a=group:BUNDLE 0
a=ice-options:trickle
a=msid-semantic:WMS *
m=audio 9 UDP/TLS/RTP/SAVPF 109 9 0 8 101
c=IN IP4 0.0.0.0
a=sendonly
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level
a=extmap:2/recvonly urn:ietf:params:rtp-hdrext:csrc-audio-level
a=extmap:3 urn:ietf:params:rtp-hdrext:sdes:mid
a=fmtp:109 maxplaybackrate=48000;stereo=1;useinbandfec=1
a=fmtp:101 0-15
{ICE}
a=mid:0
a=msid:- {{ec0b2c6a}}
a=rtcp-mux
a=rtpmap:109 opus/48000/2
a=rtpmap:9 G722/8000/1
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:101 telephone-event/8000/1
a=setup:actpass
a=ssrc:1234 cname:{{6f3e}}
"""
CHROMIUM_AUDIO = f"""m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126
c=IN IP4 0.0.0.0
a=rtcp:9 IN IP4 0.0.0.0
{KEYS}
a=ice-options:trickle
a=mid:0
a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level vad=on
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=sendrecv
a=msid:- 7d0b
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:111 opus/48000/2
a=rtcp-fb:111 transport-cc
a=fmtp:111 minptime=10;useinbandfec=1
a=rtpmap:63 red/48000/2
a=fmtp:63 111/111
a=rtpmap:9 G722/8000
a=rtpmap:0 PCMU/8000
a=rtpmap:8 PCMA/8000
a=rtpmap:13 CN/8000
a=rtpmap:110 telephone-event/48000
a=rtpmap:126 telephone-event/8000
a=ssrc:99 cname:x
"""
PION = f"""v=0
o=- 42 1700000000 IN IP4 0.0.0.0
s=-
t=0 0
a=msid-semantic:WMS*
{FINGERPRINT}
a=extmap-allow-mixed
a=group:BUNDLE 0
m=audio 9 UDP/TLS/RTP/SAVPF 111 9 0 8
c=IN IP4 0.0.0.0
a=setup:actpass
a=mid:0
{ICE}
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:111 opus/48000/2
a=fmtp:111 minptime=10;useinbandfec=1
a=rtcp-fb:111 transport-cc
a=rtpmap:9 G722/8000
a=ssrc:77 cname:pion
a=ssrc:77 msid:pion audio
a=ssrc:77 mslabel:pion
a=ssrc:77 label:audio
a=msid:pion audio
a=sendrecv
{HOST} ufrag abcd
a=candidate:2 1 udp 1694498815 203.0.113.9 50001 typ srflx raddr 0.0.0.0 rport 50001 generation 0 network-id 1
a=end-of-candidates
"""
JANUS = f"""v=0
o=- 17 1 IN IP4 203.0.113.9
s=Relay
t=0 0
a=group:BUNDLE a v
a=ice-lite
a=ice-options:trickle
{FINGERPRINT}
a=msid-semantic: WMS *
m=audio 9 UDP/TLS/RTP/SAVPF 111
c=IN IP4 203.0.113.9
a=sendonly
a=mid:a
a=rtcp-mux
{ICE}
a=setup:actpass
a=rtpmap:111 opus/48000/2
a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid
a=candidate:1 1 udp 2015363327 203.0.113.9 40000 typ host
a=end-of-candidates
m=video 9 UDP/TLS/RTP/SAVPF 96 97
c=IN IP4 203.0.113.9
a=sendonly
a=mid:v
a=rtcp-mux
a=rtpmap:96 VP8/90000
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=rid:hi send
a=rid:lo send
a=simulcast:send hi;lo
"""
SAFARI_VIDEO = f"""m=video 9 UDP/TLS/RTP/SAVPF 96 97 98 99 100 101
c=IN IP4 0.0.0.0
{KEYS}
a=mid:1
a=recvonly
a=rtcp-mux
a=rtcp-rsize
a=rtpmap:96 H264/90000
a=rtcp-fb:96 nack pli
a=fmtp:96 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=640c1f
a=rtpmap:97 rtx/90000
a=fmtp:97 apt=96
a=rtpmap:98 H264/90000
a=fmtp:98 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f
a=rtpmap:99 rtx/90000
a=fmtp:99 apt=98
a=rtpmap:100 H265/90000
a=rtpmap:101 AV1/90000
"""

R, NO = "recvonly", "rejected"

# By name: the offer, and what becomes of each of its sections.
WHIP: dict[str, tuple[str, list[str]]] = {
    "obs": (OBS.replace("CODEC", "H264/90000"), [R, R]),
    "obs hevc": (OBS.replace("CODEC", "H265/90000"), [R, R]),
    "obs av1": (OBS.replace("CODEC", "AV1/90000"), [R, R]),
    "ffmpeg": (head() + FFMPEG_AUDIO, [R]),
    "gstreamer": (GSTREAMER, [R, R]),
    "firefox": (FIREFOX, [R]),
    "chromium": (head("0", "a=extmap-allow-mixed", "a=msid-semantic: WMS") + CHROMIUM_AUDIO, [R]),
    "pion": (PION, [R]),
    "janus": (JANUS, [R, R]),
    "high": (head() + audio() + video(fmtp=h264("64001f")), [R, R]),
    "main": (head() + audio() + video(fmtp=h264("4d001f")), [R, R]),
    "high 4:4:4": (head() + audio() + video(fmtp=h264("f4001f")), [R, R]),
    "unknown level": (head() + audio() + video(fmtp=h264("42e0ff")), [R, R]),
    "no profile": (head() + audio() + video(fmtp="packetization-mode=1"), [R, R]),
    "one NAL a packet": (head() + audio() + video(fmtp="packetization-mode=0"), [R, R]),
    "no fmtp": (head() + audio() + video(fmtp=""), [R, R]),
    "blanks in fmtp": (head() + audio() + video(fmtp=h264("42e01f").replace(";", "; ")), [R, R]),
    "vp9": (head() + audio() + video("VP9/90000", "profile-id=2"), [R, R]),
    "av1": (head() + audio() + video("AV1/90000", "profile=0;level-idx=5;tier=0"), [R, R]),
    "hevc": (head() + audio() + video("H265/90000", ""), [R, R]),
    "another clock": (head() + audio() + video("JPEG2000/27000000", ""), [R, R]),
    "video first": (head("1 0") + video(keys=KEYS.replace("abcd", "wxyz")) + audio(), [R, R]),
    "video in no bundle": (head("0") + audio() + video("AV1/90000", ""), [R, R]),
    "no bundle": (head("") + audio() + video(), [R, R]),
    "no mid": (head("") + audio(mid=""), [R]),
    "no mids": (head("") + audio(mid="") + video(mid=""), [R, R]),
    "audio rejected first": (head("1") + audio(port=0, direction="inactive") + audio(mid="1"), [NO, R]),
    "audio without sound first": (head() + audio(direction="inactive") + audio(mid="1"), [NO, R]),
    "audio that listens first": (head() + audio(direction="recvonly") + audio(mid="1"), [NO, R]),
    "two that speak": (head() + audio() + audio(mid="1"), [R, NO]),
    "PCMU, then Opus": (
        head() + audio(formats="0", rtpmap="0 PCMU/8000", fmtp="") + audio(mid="1"), [NO, R]
    ),
    "video rejected": (head("0") + audio() + video(port=0), [R, NO]),
    "audio waits for its bundle": (
        head("1 0") + video() + audio("a=bundle-only", port=0, keys="", mux=""), [R, R]
    ),
    "bundle-only in no bundle": (head("0") + audio() + video(*["AV1/90000", "", "a=bundle-only"], port=0), [R, NO]),
    "all in all": (
        head("0 1 2") + audio(direction="sendrecv") + video("AV1/90000", "") + data(), [R, R, "data"]
    ),
    "data of old browsers": (
        head("0 2") + audio() + data("2", "m=application 9 DTLS/SCTP 5000", "a=sctpmap:5000 webrtc-datachannel 256"),
        [R, "data"],
    ),
    "data with its port": (head("0 2") + audio() + data(*["2", "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "a=sctp-port:5000", "a=max-message-size:0"]), [R, "data"]),
    "text": (head("0 1") + audio() + video("x/1", "").replace("m=video", "m=text"), [R, NO]),
    "unknown kind": (head("0") + audio() + "m=message 9 TCP/MSRP *\na=path:x\n", [R, NO]),
    "fax": (head("0") + audio() + "m=image 0 udptl t38\n", [R, NO]),
    "extension with attributes": (
        head("0") + audio("a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level vad=on"), [R]
    ),
    "extension with a direction": (
        head("0") + audio("a=extmap:2/sendonly urn:ietf:params:rtp-hdrext:sdes:mid x y z"), [R]
    ),
    "odd extensions": (head("0") + audio("a=extmap:", "a=extmap:x y", "a=extmap:4096 urn:x", "a=extmap:0 u"), [R]),
    "fmtp without rtpmap": (head("0") + audio("a=fmtp:101 0-15", formats="111 101"), [R]),
    "fmtp of nothing": (head("0") + audio("a=fmtp:", "a=fmtp:111", "a=fmtp:x y", "a=rtcp-fb:", "a=rtcp-fb:*"), [R]),
    "odd rtpmaps": (head("0") + audio("a=rtpmap:112", "a=rtpmap:x opus/48000", "a=rtpmap:113 opus", "a=rtpmap:"), [R]),
    "odd ssrcs": (
        head("0") + audio("a=ssrc:1234", "a=ssrc:1234 cname", "a=ssrc:x y:z", "a=ssrc-group:FID x y", "a=ssrc:"), [R]
    ),
    "odd msids": (head("0", "a=msid-semantic:", "a=group:", "a=group:LS") + audio("a=msid:", "a=msid"), [R]),
    "odd lines": (head("0", "a=", "a", "b=x", "z", "k=1", "=") + audio("a=", "rubbish", "c=IN", "b=AS:x"), [R]),
    "odd rtcp": (head("0") + audio("a=rtcp:", "a=rtcp:x", "a=rtcp:9 IN IP4", "a=rtcp-fb:111 ccm fir tmmbr x"), [R]),
    "numbers with points": (head("0") + audio(fmtp="minptime=10.0;stereo=1.0;apt=x"), [R]),
    "empty parameters": (head("0") + audio(fmtp="minptime=;useinbandfec=1;;=;"), [R]),
    "stereo, dtx": (head("0") + audio(fmtp="stereo=1; sprop-stereo=1; usedtx=1; cbr=1"), [R]),
    "OPUS": (head("0") + audio(rtpmap="111 OPUS/48000/2"), [R]),
    "opus without channels": (head("0") + audio(rtpmap="111 opus/48000"), [R]),
    "opus of payload type 35": (head("0") + audio(formats="35", rtpmap="35 opus/48000/2"), [R]),
    "opus of payload type 127": (head("0") + audio(formats="127 0", rtpmap="127 opus/48000/2"), [R]),
    "opus of payload type 0": (head("0") + audio(formats="0", rtpmap="0 opus/48000/2"), [R]),
    "multiopus and red beside": (
        head("0") + audio("a=rtpmap:112 multiopus/48000/6", "a=fmtp:112 channel_mapping=0,4,1,2,3,5",
                          "a=rtpmap:63 red/48000/2", "a=fmtp:63 111/111", formats="112 63 111"), [R]
    ),
    "two of opus": (head("0") + audio("a=rtpmap:109 opus/48000/2", formats="109 111"), [R]),
    "odd formats": (head("0") + audio(formats="111 abc 999999999999 70 111"), [R]),
    "no setup": (head("0") + audio(keys=f"{ICE}\n{FINGERPRINT}"), [R]),
    "odd setup": (head("0") + audio(keys=f"{ICE}\n{FINGERPRINT}\na=setup:holdconn"), [R]),
    "keys of the session": (head("0 1", *KEYS.split("\n")) + audio(keys="") + video(keys=""), [R, R]),
    "keys of the first": (head("0 1") + audio() + video("AV1/90000", "", keys=""), [R, R]),
    "no direction": (head("0") + audio(direction=""), [R]),
    "direction of the session": (head("0", "a=sendonly") + audio(direction=""), [R]),
    "SAVP": (head("0") + audio(protocol="UDP/TLS/RTP/SAVP"), [R]),
    "RTP/SAVPF": (head("0") + audio(protocol="RTP/SAVPF"), [R]),
    "TCP": (head("0") + audio(protocol="TCP/TLS/RTP/SAVPF"), [R]),
    "two ports": (head("0") + audio().replace("m=audio 9", "m=audio 9/2"), [R]),
    "rtcp-mux-only": (head("0") + audio(mux="a=rtcp-mux-only"), [R]),
    "two blanks": (head("0") + audio().replace("m=audio 9 ", "m=audio  9  ").replace("a=mid:0", "a=mid: 0 "), [R]),
    "lower case fingerprint": (head("0") + audio(keys=KEYS.replace("AB", "ab")), [R]),
    "upper case hash": (head("0") + audio(keys=KEYS.replace("sha-256", "SHA-256")), [R]),
    "sha-512": (
        head("0") + audio(keys=f"{ICE}\na=fingerprint:sha-512 {':'.join(['0f'] * 64)}\na=setup:active"), [R]
    ),
    "sha-1 beside": (head("0") + audio(f"a=fingerprint:sha-1 {':'.join(['AB'] * 20)}"), [R]),
    "three fingerprints": (head("0") + audio(FINGERPRINT.replace("AB", "CD"), FINGERPRINT.replace("AB", "EF")), [R]),
    "bundle that names nobody": (head("0 1 2") + audio(), [R]),
    "two bundles": (head("0", "a=group:BUNDLE 1") + audio() + video("VP9/90000", ""), [R, R]),
    "ice-lite": (head("0", "a=ice-lite") + audio(HOST), [R]),
    "simulcast": (head() + audio() + video("VP8/90000", "", "a=rid:0 send", "a=simulcast:send 0;1"), [R, R]),
    "no blank at the end": ((head("0") + audio()).strip(), [R]),
    "a byte order mark": ("\ufeff" + head("0") + audio(), [R]),
    "an empty line first": ("\n\n" + head("0") + audio(), [R]),
    "empty lines": ((head("0") + audio()).replace("\n", "\n\n"), [R]),
    "blanks at the ends": ((head("0") + audio()).replace("\n", "  \n\t"), [R]),
    "foreign line ends": ((head("0") + audio()).replace("s=-", "s=a\x0bb\x85c\u2028d\x00"), [R]),
    "candidates of all sorts": (
        head("0") + audio(
            HOST, "a=candidate:1 2 udp 2130706430 192.0.2.77 50001 typ host",
            "a=candidate:2 1 tcp 1518280447 192.0.2.77 9 typ host tcptype active",
            "a=candidate:3 1 udp 2122260223 fe80::1%eth0 50000 typ host generation 0 ufrag abcd network-cost 999",
            "a=candidate:4 1 udp 2122260223 2001:db8::7 50000 typ host",
            "a=candidate:5 1 udp 2122260223 0fa2a3b4-6f5e.local 50000 typ host",
            "a=candidate:6 1 udp 2122260223 host.example.net 50000 typ host",
            "a=candidate:7 1 udp 41885439 198.51.100.9 50000 typ relay raddr 203.0.113.9 rport x",
            "a=candidate:8 1 udp 1 192.0.2.77 99999999 typ host", "a=candidate:9 1 udp 1 192.0.2.77 5 typ foo",
            "a=candidate:", "a=candidate", "a=candidate:rubbish", "a=end-of-candidates",
        ), [R]
    ),
    "more candidates than anybody has": (
        head("0") + audio(*[HOST.replace("50000", str(port)) for port in range(50_000, 50_200)]), [R]
    ),
}  # fmt: skip

# What cannot be used: the offer, and words of the sentence that says why.
REFUSED: dict[str, tuple[str, list[str]]] = {
    "no ice-ufrag": (head("0") + audio(keys=FINGERPRINT), ["audio", "a=ice-ufrag"]),
    "no fingerprint": (head("0") + audio(keys=ICE), ["audio", "a=fingerprint"]),
    "sha-1 alone": (
        head("0") + audio(keys=f"{ICE}\na=fingerprint:sha-1 {':'.join(['AB'] * 20)}"),
        ["a=fingerprint:sha-1 AB", "sha-256"],
    ),
    "short fingerprint": (head("0") + audio(keys=f"{ICE}\na=fingerprint:sha-256 AB:CD"), ["sha-256 AB:CD", "bytes"]),
    "no rtcp-mux": (head("0") + audio(mux=""), ["audio", "a=rtcp-mux"]),
    "PCMU alone": (head("0") + audio(formats="0", rtpmap="0 PCMU/8000", fmtp=""), ["PCMU", "Opus"]),
    "G722 and telephone": (
        head("0") + audio("a=rtpmap:101 telephone-event/8000", formats="9 101", rtpmap="9 G722/8000"),
        ["G722", "telephone"],
    ),
    "multiopus alone": (head("0") + audio(rtpmap="111 multiopus/48000/6"), ["multiopus", "Opus"]),
    "opus like RTCP": (head("0") + audio(formats="72", rtpmap="72 opus/48000/2"), ["no codec", "Opus"]),
    "no formats": (head("0") + audio(formats="").replace("SAVPF \n", "SAVPF\n"), ["no codec", "Opus"]),
    "a section without a port": (head("0") + "m=audio\n" + audio(), ["'m=audio'", "m=KIND PORT"]),
    "a port in words": (head("0") + audio().replace("m=audio 9", "m=audio nine"), ["m=audio nine"]),
}  # fmt: skip
