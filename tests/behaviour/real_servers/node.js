// Node's own HTTP server, as it comes.
//
//   node node.js PORT REQUEST_LOG KEEP_ALIVE_MS
//
// `/` answers at once; `/at/<epoch ms>` answers at that time. Each request adds a line to the log before
// its answer, so that what a killed server has seen is still known; `/healthz` does not count.

const fs = require("fs");
const http = require("http");

const [port, requestLog, keepAlive] = process.argv.slice(2);
const log = fs.openSync(requestLog, "a");
let isEnding = false;

const server = http.createServer((request, response) => {
  if (request.url !== "/healthz") fs.writeSync(log, request.url + "\n");
  if (isEnding) response.setHeader("Connection", "close");
  const at = request.url.startsWith("/at/") ? Number(request.url.slice(4)) - Date.now() : 0;
  if (at > 0) setTimeout(() => response.end("node\n"), at);
  else response.end("node\n");
});

server.keepAliveTimeout = Number(keepAlive);
// Some wait a second longer than they announce, and some of those can be told not to.
server.keepAliveTimeoutBuffer = 0;
server.listen(Number(port), "127.0.0.1");

process.on("SIGTERM", () => {
  isEnding = true;
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});
