// In the measuring page: connects as it is told, and keeps what is seen and heard until it is taken. Times: performance.now().
(() => {
  const SIDE = 64;
  const PING_MS = 500;
  const kept = { frames: [], heard: [], spoken: [], sent: [], pings: [] };
  const legs = {};
  let problem = null;
  let size = [0, 0];
  const video = document.createElement("video");
  video.autoplay = true;
  video.srcObject = new MediaStream();
  document.body.append(video);

  const text = (bytes) => {
    let out = "";
    for (let at = 0; at < bytes.length; at += 8192) out += String.fromCharCode(...bytes.subarray(at, at + 8192));
    return btoa(out);
  };

  /** Keeps [time of the block's arrival, first sample by the track's own count, PCM]. */
  async function listen(track, list) {
    const reader = new MediaStreamTrackProcessor({ track }).readable.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const now = performance.now();
      const wave = new Float32Array(value.numberOfFrames);
      value.copyTo(wave, { planeIndex: 0, format: "f32-planar" });
      const pcm = Int16Array.from(wave, (x) => Math.max(-32768, Math.min(32767, Math.round(32768 * x))));
      list.push([now, value.timestamp, value.sampleRate, text(new Uint8Array(pcm.buffer))]);
      value.close();
    }
  }

  function watch() {
    const context = new OffscreenCanvas(SIDE, SIDE).getContext("2d", { willReadFrequently: true });
    context.imageSmoothingQuality = "medium";
    const look = (now, { expectedDisplayTime, rtpTimestamp, receiveTime }) => {
      context.drawImage(video, 0, 0, SIDE, SIDE);
      const { data } = context.getImageData(0, 0, SIDE, SIDE);
      const gray = new Uint8Array(SIDE * SIDE);
      for (let at = 0; at < gray.length; at += 1) {
        gray[at] = (77 * data[4 * at] + 150 * data[4 * at + 1] + 29 * data[4 * at + 2]) >> 8;
      }
      size = [video.videoWidth, video.videoHeight];
      kept.frames.push([expectedDisplayTime, text(gray), rtpTimestamp ?? -1, receiveTime ?? 0]);
      video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback(look);
  }
  watch();

  /** Notes when each packet of the microphone leaves, by its RTP time stamp; packets pass unchanged. */
  function watchSent(sender) {
    const source = `onrtctransform = async ({ transformer: { readable, writable } }) => {
      const note = (frame, out) => {
        postMessage([performance.timeOrigin + performance.now(), frame.getMetadata().rtpTimestamp]);
        out.enqueue(frame);
      };
      await readable.pipeThrough(new TransformStream({ transform: note })).pipeTo(writable);
    };`;
    if (typeof RTCRtpScriptTransform === "undefined") return;
    const worker = new Worker(URL.createObjectURL(new Blob([source])));
    worker.onmessage = ({ data: [at, rtp] }) => kept.sent.push([at - performance.timeOrigin, rtp]);
    sender.transform = new RTCRtpScriptTransform(worker, {});
  }

  /** Asks for the server's clock. */
  function ping(channel) {
    const asked = new Map();
    channel.onopen = () => {
      let id = 0;
      const timer = setInterval(() => {
        if (channel.readyState !== "open") return clearInterval(timer);
        asked.set((id += 1), performance.now());
        channel.send(JSON.stringify({ type: "ping", id }));
      }, PING_MS);
    };
    channel.onmessage = ({ data }) => {
      const now = performance.now();
      const { type, id, time_s: server } = JSON.parse(data);
      if (type === "pong" && server !== undefined) kept.pings.push([asked.get(id), server, now]);
    };
  }

  window.harness = {
    async offer(leg, iceServers, label) {
      const pc = new RTCPeerConnection({ iceServers });
      if (leg === "both") ping(pc.createDataChannel(label));
      const audio = pc.addTransceiver("audio", { direction: { both: "sendrecv", up: "sendonly", down: "recvonly" }[leg] });
      if (leg !== "down") watchSent(audio.sender);
      if (leg !== "up") pc.addTransceiver("video", { direction: "recvonly" });
      pc.ontrack = ({ track, receiver }) => {
        if ("jitterBufferTarget" in receiver) receiver.jitterBufferTarget = 0; // as a page for live talk does
        video.srcObject.addTrack(track);
        if (track.kind === "audio") listen(track.clone(), kept.heard);
      };
      pc.onconnectionstatechange = () => {
        if (["failed", "closed"].includes(pc.connectionState)) problem = `the connection is ${pc.connectionState}`;
      };
      legs[leg] = { pc, audio };
      await pc.setLocalDescription(await pc.createOffer());
      const gathered = performance.now();
      while (pc.iceGatheringState !== "complete" && performance.now() - gathered < 500) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      return [performance.now(), pc.localDescription.sdp];
    },

    async accept(leg, sdp) {
      const { pc } = legs[leg];
      await pc.setRemoteDescription({ type: "answer", sdp });
      const begun = performance.now();
      while (pc.connectionState !== "connected") {
        if (problem || performance.now() - begun > 15_000) throw new Error(problem ?? "no connection within 15 s");
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      return performance.now();
    },

    async speak() {
      const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };
      const [track] = (await navigator.mediaDevices.getUserMedia({ audio: plain })).getAudioTracks();
      listen(track.clone(), kept.spoken);
      await (legs.both ?? legs.up).audio.sender.replaceTrack(track);
      return performance.now();
    },

    take() {
      const taken = { problem, size };
      for (const [name, list] of Object.entries(kept)) taken[name] = list.splice(0);
      return taken;
    },
  };
})();
