// Runs in the page before its own scripts: times every picture shown and every packet of sound, sent and heard.
(() => {
  const SIDE = 64;
  const original = navigator.mediaDevices?.getUserMedia?.bind(navigator.mediaDevices);
  let microphone = null;
  if (original) {
    navigator.mediaDevices.getUserMedia = async (constraints) => {
      microphone = await original(constraints);
      return microphone;
    };
  }

  /** [time in ms, RMS] for every block of a track. */
  async function listen(track, levels, state) {
    const reader = new MediaStreamTrackProcessor({ track: track.clone() }).readable.getReader();
    while (state.running) {
      const { value, done } = await reader.read();
      if (done) return;
      const now = performance.now();
      const samples = new Float32Array(value.numberOfFrames);
      value.copyTo(samples, { planeIndex: 0, format: "f32-planar" });
      const blockMs = (1_000 * value.numberOfFrames) / value.sampleRate;
      value.close();
      let sum = 0;
      for (const sample of samples) sum += sample * sample;
      levels.push([now - blockMs / 2, Math.sqrt(sum / samples.length)]);
    }
    reader.cancel();
  }

  function watch(video, frames, state) {
    const canvas = new OffscreenCanvas(SIDE, SIDE);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    const look = (now, { expectedDisplayTime, presentedFrames }) => {
      if (!state.running) return;
      context.drawImage(video, 0, 0, SIDE, SIDE);
      const { data } = context.getImageData(0, 0, SIDE, SIDE);
      let gray = "";
      for (let at = 0; at < data.length; at += 4) {
        gray += String.fromCharCode((77 * data[at] + 150 * data[at + 1] + 29 * data[at + 2]) >> 8);
      }
      frames.push({ time: expectedDisplayTime, presented: presentedFrames, gray: btoa(gray) });
      video.requestVideoFrameCallback(look);
    };
    video.requestVideoFrameCallback(look);
  }

  window.measurement = {
    start() {
      const video = document.querySelector("#video");
      const state = { running: true };
      const taken = { frames: [], sent: [], heard: [], side: SIDE, width: video.videoWidth, height: video.videoHeight };
      watch(video, taken.frames, state);
      listen(video.srcObject.getAudioTracks()[0], taken.heard, state);
      if (microphone) listen(microphone.getAudioTracks()[0], taken.sent, state);
      this.stop = () => {
        state.running = false;
        return taken;
      };
    },
  };
})();
