// Removes the worker and everything that the page keeps. It stands alone, so that it works when
// nothing else does.
document.getElementById("reset").addEventListener("click", async () => {
  const said = document.getElementById("said");
  said.textContent = "Removing…";
  try {
    for (const each of (await navigator.serviceWorker?.getRegistrations()) ?? []) {
      const subscription = await each.pushManager?.getSubscription().catch(() => null);
      await subscription?.unsubscribe();
      await each.unregister();
    }
    for (const each of (await globalThis.caches?.keys()) ?? []) await caches.delete(each);
    localStorage.clear();
    sessionStorage.clear();
    await new Promise((resolve) => {
      const request = indexedDB.deleteDatabase("appmux");
      request.onsuccess = request.onerror = request.onblocked = resolve;
    });
    said.textContent = "Done. Nothing of the page is kept here any more.";
  } catch (failure) {
    said.textContent = `Not everything could be removed: ${failure.message}`;
  }
});
