// Trickle ICE (RFC 8838, 8840): the offer goes out with the addresses found at once, those found later follow it.
//
// A relay's address may take seconds. Waiting for it delays everybody, and not waiting and not telling leaves those
// behind a firewall without the only address that works.

const HEAD_START_MS = 100; // the machine's own addresses are there by then: most need no second request

export const FRAGMENT_TYPE = "application/trickle-ice-sdpfrag";

export class Trickle {
  #connection;
  #found = [];
  #complete = false;
  #offered = "";
  #send = null;
  #sending = false;
  #told = false;

  /** Before the local description is set: it begins the search. */
  constructor(connection) {
    this.#connection = connection;
    connection.addEventListener("icecandidate", ({ candidate }) => {
      if (candidate?.candidate) this.#found.push(candidate);
      this.#complete = candidate === null;
      this.#flush();
    });
  }

  /** The offer, with what has been found by now or a tenth of a second later. */
  async offer() {
    await new Promise((resolve) => {
      setTimeout(resolve, HEAD_START_MS);
      const look = () => { if (this.#connection.iceGatheringState === "complete") resolve(); };
      this.#connection.addEventListener("icegatheringstatechange", look);
      look();
    });
    this.#offered = this.#connection.localDescription.sdp;
    this.#told = this.#connection.iceGatheringState === "complete";
    this.#found = this.#found.filter(({ candidate }) => !this.#offered.includes(candidate));
    return this.#offered;
  }

  /** What was not in the offer goes to `send` (a fragment; gives a promise) from here on. */
  sendBy(send) {
    this.#send = send;
    this.#flush();
  }

  async #flush() {
    if (!this.#send || this.#sending) return;
    this.#sending = true;
    try {
      while (this.#found.length || (this.#complete && !this.#told)) {
        const candidates = this.#found.splice(0);
        if (this.#complete) this.#told = true;
        await this.#send(fragment(this.#offered, candidates, this.#told));
      }
    } catch (error) {
      // The session has gone, or the server has had enough: whether the rest will do shows in the connection itself.
      console.warn("Candidates were not taken:", error);
      this.#send = null;
    } finally {
      this.#sending = false;
    }
  }
}

function fragment(offer, candidates, ended) {
  const credentials = ["ice-ufrag", "ice-pwd"].map((name) => offer.match(new RegExp(`^a=${name}:.*$`, "m"))?.[0]);
  const lines = credentials.filter(Boolean);
  const places = new Map();
  for (const { sdpMid, candidate } of candidates) {
    places.set(sdpMid ?? "0", [...places.get(sdpMid ?? "0") ?? [], `a=${candidate}`]);
  }
  if (!places.size) places.set("0", []);
  for (const [mid, found] of places) {
    lines.push("m=audio 9 UDP/TLS/RTP/SAVPF 0", `a=mid:${mid}`, ...found);
    if (ended) lines.push("a=end-of-candidates");
  }
  return `${lines.map((line) => line.trim()).join("\r\n")}\r\n`;
}
