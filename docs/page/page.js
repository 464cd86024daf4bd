// The smallest page that is let in and attaches: see "A browser" in docs/protocol.md.
const show = (text) => (document.getElementById("log").textContent += text + "\n");
const bytes = (text) => new TextEncoder().encode(text);
const base64url = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
const done = (request) => new Promise((yes, no) => ((request.onsuccess = () => yes(request.result)), (request.onerror = () => no(request.error))));
const opening = indexedDB.open("appmux", 1);
opening.onupgradeneeded = () => opening.result.createObjectStore("kept");
const database = await done(opening);
const kept = (mode = "readonly") => database.transaction("kept", mode).objectStore("kept");
const code = async (...parts) => String(new DataView(await crypto.subtle.digest("SHA-256", bytes(parts.join("\n")))).getBigUint64(0) % 1000000n).padStart(6, "0").replace(/^.../, "$& ");

async function pair(redeemed) {
  const { publicKey, privateKey } = await crypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, false, ["sign"]);
  const key = await crypto.subtle.exportKey("jwk", publicKey);
  const asked = { ...redeemed, name: "a browser", nonce: crypto.randomUUID(), key };
  show(`code ${await code("appmux session", Object.values(redeemed)[0], asked.name, asked.nonce, key.x, key.y)}`);
  let response;
  do response = await fetch("/v1/session", { method: "POST", body: JSON.stringify(asked) });
  while (response.status === 202);
  const { device, message } = await response.json();
  if (!response.ok) return show(`refused: ${message}`);
  await done(kept("readwrite").put({ device, privateKey }, "me"));
}

function attach({ device, privateKey }) {
  const socket = new WebSocket(location.origin.replace(/^http/, "ws"), ["appmux.v1"]);
  const send = (message) => socket.send(JSON.stringify(message));
  socket.onclose = ({ code, reason }) => show(`closed ${code} ${reason}`);
  socket.onmessage = async ({ data }) => {
    const { id, method, params, result } = JSON.parse(data);
    if (method === "mux/session/challenge") {
      const text = ["appmux challenge", device, params.nonce, location.origin, params.time].join("\n");
      const signature = await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, privateKey, bytes(text));
      send({ id: 1, method: "mux/session/prove", params: { device, signature: base64url(signature) } });
    } else if (id === 1 && result) {
      show(`let in: ${result.name} on ${result.host}, may ${result.scopes.join(", ")}`);
      send({ id: 2, method: "initialize", params: { clientInfo: { name: "smallest", version: "1" } } });
    } else if (id === 2 && result) {
      const out = document.getElementById("out");
      out.hidden = false;
      out.onclick = () => send({ id: 3, method: "mux/session/end" });
      show(`attached to ${result.userAgent}`);
    } else if (id === 3) {
      database.close();
      await done(indexedDB.deleteDatabase("appmux"));
      show("signed out");
    }
  };
}

const ticket = new URLSearchParams(location.hash.slice(1)).get("pair");
history.replaceState(null, "", "/");
if (ticket) await pair({ ticket });
async function begin() {
  const me = await done(kept().get("me"));
  me ? attach(me) : show("not paired");
}
document.getElementById("letters").onchange = async ({ target }) => {
  await pair({ letters: target.value.toUpperCase().replace(/[ -]/g, "") });
  await begin();
};
await begin();
