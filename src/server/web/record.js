// record.js - sound from the microphone as a WAV file (16 kHz, mono, 16 bit): what every model with ears takes.

export class Recorder {
  async start() {
    this.stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    this.recorder = new MediaRecorder(this.stream);
    this.pieces = [];
    this.recorder.ondataavailable = e => this.pieces.push(e.data);
    this.recorder.start();
  }

  async stop() {
    const ended = new Promise(resolve => { this.recorder.onstop = resolve; });
    this.recorder.stop();
    await ended;
    for (const track of this.stream.getTracks()) track.stop();
    return wav(await new Blob(this.pieces).arrayBuffer());
  }
}

async function wav(encoded) {
  const rate = 16000, context = new AudioContext();
  const sound = await context.decodeAudioData(encoded);
  context.close();
  const offline = new OfflineAudioContext(1, Math.max(1, Math.ceil(sound.duration * rate)), rate), source = offline.createBufferSource();
  source.buffer = sound;
  source.connect(offline.destination);
  source.start();
  const samples = (await offline.startRendering()).getChannelData(0), view = new DataView(new ArrayBuffer(44 + 2 * samples.length));
  const text = (at, s) => [...s].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
  text(0, "RIFF"); view.setUint32(4, 36 + 2 * samples.length, true); text(8, "WAVEfmt ");
  view.setUint32(16, 16, true); view.setUint16(20, 1, true); view.setUint16(22, 1, true); view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true); view.setUint16(32, 2, true); view.setUint16(34, 16, true); text(36, "data"); view.setUint32(40, 2 * samples.length, true);
  samples.forEach((s, i) => view.setInt16(44 + 2 * i, Math.max(-1, Math.min(1, s)) * 32767, true));
  return new File([view.buffer], "recording.wav", { type: "audio/wav" });
}
