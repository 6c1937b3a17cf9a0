// Everything that can go wrong for a person, as a title and a sentence that says what to do.

export class Problem extends Error {
  /**
   * @param {{title: string, text: string, code?: string, retryAfterSeconds?: number, canRetry?: boolean,
   *   canUseSample?: boolean}} parts canUseSample: the sample voice is a way on
   */
  constructor({ title, text, code = "", retryAfterSeconds = 0, canRetry = true, canUseSample = false }) {
    super(text);
    this.title = title;
    this.code = code;
    this.retryAfterSeconds = retryAfterSeconds;
    this.canRetry = canRetry;
    this.canUseSample = canUseSample;
  }
}

export const notSecure = () => new Problem({
  code: "not_secure",
  title: "The browser keeps the microphone locked on this address.",
  text: "Microphones work on https:// pages and on localhost only. Open this page by https, or on the server's own " +
    "machine as http://localhost, or use the sample voice.",
  canRetry: false,
  canUseSample: true,
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
  text: "It was unplugged, or its permission was taken back. Plug it in again or choose another one, then press Start. " +
    "Or use the sample voice.",
  canUseSample: true,
});

export const microphoneStuck = () => new Problem({
  code: "microphone_busy",
  title: "The microphone does not answer.",
  text: "The browser may use it, but it gives no sound. Unplug it and plug it in again, choose another one, or use the " +
    "sample voice.",
  canUseSample: true,
});

export const sampleMissing = () => new Problem({
  code: "no_sample",
  title: "The sample voice could not be loaded.",
  text: "Check the network and whether the server is running, then try again.",
});

export const sampleMuted = () => new Problem({
  code: "no_sound_output",
  title: "This browser does not play the sample voice.",
  text: "It has found no sound output, or does not let the page play. Connect a loudspeaker or headphones and try again, " +
    "or choose the microphone.",
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

export const noPicture = () => new Problem({
  code: "no_picture",
  title: "The connection stands, but no picture is shown.",
  text: "The browser receives nothing that it can show. Try again; if it stays so, try another browser.",
});

export const browserStuck = () => new Problem({
  code: "browser_stuck",
  title: "The browser does not get the connection ready.",
  text: "It has not answered for a while. Reload the page; if that does not help, restart the browser.",
});

export const recordingUnanswered = () => new Problem({
  code: "recording_unanswered",
  title: "The server has not answered about the recording.",
  text: "Look for the red “Recording” over the picture: it shows while the server records. Then try again.",
  canRetry: false,
});

/** What getUserMedia threw, for a person. */
export function fromMicrophone(error) {
  const because = (code, title, text) => new Problem({ code, title, text, canUseSample: true });
  switch (error?.name) {
    case "NotAllowedError":
    case "SecurityError":
      return because("permission_denied", "The microphone is not allowed for this page.",
        "Allow it through the icon beside the address bar (site settings, Microphone), then press Start again. Or use " +
        "the sample voice.");
    case "NotFoundError":
    case "DevicesNotFoundError":
      return because("no_microphone", "No microphone was found.",
        "Plug one in and press Start again, or use the sample voice.");
    case "OverconstrainedError":
      return because("no_microphone", "The chosen microphone is not there any more.",
        "Choose another one in the list and press Start again, or use the sample voice.");
    case "NotReadableError":
    case "AbortError":
      return because("microphone_busy", "The microphone could not be opened.",
        "Another program may hold it. Close that program or choose another microphone, then press Start again. Or use " +
        "the sample voice.");
    default:
      return because("microphone", "The microphone could not be opened.",
        `The browser says: ${error?.message || error}. Try another microphone, or use the sample voice.`);
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

export const noAnswer = (doing) => new Problem({
  code: "no_answer",
  title: "The server takes too long.",
  text: `It was asked to ${doing} and has not answered. Check the network and try again.`,
});

export const strangeAnswer = () => new Problem({
  code: "strange_answer",
  title: "This is not the answer of a Talkalong server.",
  text: "Something between this browser and the server answers in its place, such as a proxy or a Wi-Fi log-in page. " +
    "Open the address anew.",
});

async function serverError(response) {
  const body = await response.json().catch(() => null);
  return { code: String(body?.error?.code ?? ""), message: String(body?.error?.message ?? "") };
}
