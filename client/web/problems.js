// Everything that can go wrong for a person, as a title and a sentence that says what to do.

export class Problem extends Error {
  /** @param {{title: string, text: string, code?: string, retryAfterSeconds?: number, canRetry?: boolean}} parts */
  constructor({ title, text, code = "", retryAfterSeconds = 0, canRetry = true }) {
    super(text);
    this.title = title;
    this.code = code;
    this.retryAfterSeconds = retryAfterSeconds;
    this.canRetry = canRetry;
  }
}

export const notSecure = () => new Problem({
  code: "not_secure",
  title: "The browser keeps the microphone locked on this address.",
  text: "Microphones work on https:// pages and on localhost only. Open this page by https, or on the server's own " +
    "machine as http://localhost, or choose the sample voice.",
  canRetry: false,
});

export const noWebRtc = () => new Problem({
  code: "no_webrtc",
  title: "This browser cannot make live connections.",
  text: "Talkalong needs WebRTC. Please use a current Chromium, Chrome, Edge, Firefox or Safari.",
  canRetry: false,
});

export const microphoneEnded = () => new Problem({
  code: "microphone_ended",
  title: "The microphone went away.",
  text: "It was unplugged, or its permission was taken back. Plug it in again or choose another one, then press Start.",
});

export const connectionLost = () => new Problem({
  code: "connection_lost",
  title: "The connection was lost and did not come back.",
  text: "Check the network and whether the server is still running, then press Start again.",
});

export const connectionBlocked = () => new Problem({
  code: "connection_blocked",
  title: "The server answers, but sound and picture do not get through.",
  text: "A firewall or a VPN probably blocks UDP between this computer and the server. Try another network, or ask " +
    "the operator for a TURN relay.",
});

/** What getUserMedia threw, for a person. */
export function fromMicrophone(error) {
  switch (error?.name) {
    case "NotAllowedError":
    case "SecurityError":
      return new Problem({
        code: "permission_denied",
        title: "The microphone is not allowed for this page.",
        text: "Allow it through the icon beside the address bar (site settings, Microphone), then press Start again. " +
          "Or choose the sample voice.",
      });
    case "NotFoundError":
    case "DevicesNotFoundError":
      return new Problem({
        code: "no_microphone",
        title: "No microphone was found.",
        text: "Plug one in and press Start again, or choose the sample voice.",
      });
    case "OverconstrainedError":
      return new Problem({
        code: "no_microphone",
        title: "The chosen microphone is not there any more.",
        text: "Choose another one in the list and press Start again.",
      });
    case "NotReadableError":
    case "AbortError":
      return new Problem({
        code: "microphone_busy",
        title: "The microphone could not be opened.",
        text: "Another program may hold it. Close that program or choose another microphone, then press Start again.",
      });
    default:
      return new Problem({
        code: "microphone",
        title: "The microphone could not be opened.",
        text: `The browser says: ${error?.message || error}. Try another microphone, or choose the sample voice.`,
      });
  }
}

/** A failed HTTP answer, for a person; the server's own sentence is used where it sent one. */
export async function fromResponse(response, doing) {
  const said = await serverError(response);
  const retryAfterSeconds = Math.max(0, Number.parseInt(response.headers.get("Retry-After") ?? "", 10) || 0);
  if (response.status === 503 || response.status === 429) {
    const full = response.status === 429 || /full|limit|busy/.test(said.code);
    return new Problem({
      code: full ? "server_full" : "server_not_ready",
      title: full ? "The server is full." : "The server is not ready yet.",
      text: said.message || (full ? "All its places are taken. Try again in a moment." : "Try again in a moment."),
      retryAfterSeconds: retryAfterSeconds || 5,
    });
  }
  if (response.status === 401 || response.status === 403) {
    return new Problem({
      code: "unauthorized",
      title: "This server asks for a token.",
      text: "Open the page with the whole address that the operator gave you; it ends in #token=…",
      canRetry: false,
    });
  }
  return new Problem({
    code: said.code || `http_${response.status}`,
    title: `The server could not ${doing}.`,
    text: said.message || `It answered with status ${response.status}. If it stays so, tell the server's operator.`,
    canRetry: response.status >= 500,
  });
}

export const unreachable = () => new Problem({
  code: "unreachable",
  title: "The server does not answer.",
  text: "Check the network and whether the server is running, then try again.",
});

async function serverError(response) {
  const body = await response.json().catch(() => null);
  return { code: String(body?.error?.code ?? ""), message: String(body?.error?.message ?? "") };
}
