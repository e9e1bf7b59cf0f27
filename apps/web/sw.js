// Keeps what the page has loaded, so that it opens and computes without a network.
const CACHE = "kerasmodels-1";
const PAGE = ["./", "app.js", "pixels.js", "worker.js", "style.css", "icon.svg", "manifest.webmanifest"];

self.addEventListener("install", (event) => {
  event.waitUntil(caches.open(CACHE).then((cache) => cache.addAll(PAGE)).then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const old = caches.keys().then((keys) => Promise.all(keys.filter((key) => key !== CACHE).map((key) => caches.delete(key))));
  event.waitUntil(old.then(() => self.clients.claim()));
});

async function answer(request) {
  const cache = await caches.open(CACHE);
  // Runtimes and models are large, and are named by their content in the address (?sha256).
  const fixed = new URL(request.url).pathname.includes("/runtime/") || new URL(request.url).search.startsWith("?sha256=");
  const kept = await cache.match(request);
  if (fixed && kept) return kept;
  try {
    const fresh = await fetch(request);
    if (fresh.ok) await cache.put(request, fresh.clone());
    return fresh;
  } catch (error) {
    if (kept) return kept;
    throw error;
  }
}

self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  // What a server computes is never kept.
  const computed = /\/(pictures|studio|models|v1|v2)(\/|$)/.test(url.pathname);
  if (event.request.method === "GET" && url.origin === location.origin && !computed) event.respondWith(answer(event.request));
});
