// Downloads of data sets: the server fetches, the page asks how far it is.

const POLL_MS = 500;
const DOWNLOAD_ENDS = ["done", "failed", "error", "idle"];

/** Start or join a download and report on it; what went wrong, or null. */
async function followDownload(entry, onProgress, call) {
  let progress = await call("start_download", { dataset: entry.name });
  while (!progress.error && !DOWNLOAD_ENDS.includes(progress.state)) {
    onProgress(progress);
    await new Promise((resolve) => { setTimeout(resolve, POLL_MS); });
    progress = await call("get_download", { dataset: entry.name });
  }
  if (progress.error) return progress.error;
  return progress.state === "done" ? null : progress.message || `The download of ${entry.title} stopped`;
}
