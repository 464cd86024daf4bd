// Reads a QR code by the camera. The reader is loaded with this file, when it is wanted.

import decodeQR from "qr/decode.js";
import { useEffect, useRef, useState } from "preact/hooks";
import type { JSX } from "preact";

/** Pixels of the longer side that are looked at: enough for a code that fills half of it. */
const SIDE = 640;

/** Between two looks: a phone's processor stays cool. */
const PAUSE_MS = 120;

export function Scanner(props: {
  onFound: (text: string) => void;
  onStop: () => void;
}): JSX.Element {
  const video = useRef<HTMLVideoElement>(null);
  const [trouble, setTrouble] = useState("");
  useEffect(() => {
    let stream: MediaStream | undefined;
    const canvas = document.createElement("canvas");
    const timer = setInterval(() => {
      const found = video.current && read(video.current, canvas);
      if (!found) return;
      clearInterval(timer);
      props.onFound(found);
    }, PAUSE_MS);
    const asked = navigator.mediaDevices?.getUserMedia({ video: { facingMode: "environment" } });
    Promise.resolve(asked ?? Promise.reject(new Error("no camera")))
      .then(async (got) => {
        stream = got;
        if (!video.current) return got.getTracks().forEach((each) => each.stop());
        video.current.srcObject = got;
        await video.current.play();
      })
      .catch(() => setTrouble("The camera can’t be used: type the letters instead."));
    return () => {
      clearInterval(timer);
      stream?.getTracks().forEach((each) => each.stop());
    };
  }, []);
  return (
    <section>
      <h1>Scan the code</h1>
      {trouble ? (
        <p class="trouble" role="alert">
          {trouble}
        </p>
      ) : (
        <video ref={video} class="scanner" muted playsInline aria-label="What the camera sees" />
      )}
      <button type="button" class="button wide" onClick={props.onStop}>
        Back
      </button>
    </section>
  );
}

function read(player: HTMLVideoElement, canvas: HTMLCanvasElement): string | null {
  const { videoWidth, videoHeight } = player;
  if (player.readyState < 2 || !videoWidth) return null;
  const scale = Math.min(1, SIDE / Math.max(videoWidth, videoHeight));
  canvas.width = Math.round(videoWidth * scale);
  canvas.height = Math.round(videoHeight * scale);
  const context = canvas.getContext("2d", { willReadFrequently: true })!;
  context.drawImage(player, 0, 0, canvas.width, canvas.height);
  try {
    return decodeQR(context.getImageData(0, 0, canvas.width, canvas.height)) as string;
  } catch {
    return null;
  }
}
