// Keeps every file of the page, so that it opens without a network after the first visit.
// listing.js names files and version; a changed one makes the browser install this worker anew. The
// new one takes over when no page of the old is open, so that no page gets files of two versions.

importScripts("listing.js");
const NAME = `classifier-${LISTING.version}`;

self.addEventListener("install", (event) => {
  event.waitUntil(keepFiles());
});

self.addEventListener("activate", (event) => {
  event.waitUntil(forgetOthers());
});

self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET") event.respondWith(keptOrFetched(event.request));
});

async function keepFiles() {
  const cache = await caches.open(NAME);
  // past the browser's own cache, which could hold files of another version
  await cache.addAll(LISTING.files.map((file) => new Request(file, { cache: "reload" })));
}

async function forgetOthers() {
  const names = await caches.keys();
  const old = names.filter((name) => name.startsWith("classifier-") && name !== NAME);
  await Promise.all(old.map((name) => caches.delete(name)));
  await self.clients.claim();
}

async function keptOrFetched(request) {
  const cache = await caches.open(NAME);
  return (await cache.match(request, { ignoreSearch: true })) ?? fetch(request);
}
