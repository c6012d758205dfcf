// The saga on Restate's TypeScript SDK: `node restate_service.mjs PORT STUB_PORT FOLDER`.
// The SDK is installed elsewhere, so it is found by the folder that is named. Restate's server
// calls this service over HTTP/2 and is called by whoever wants a saga.

import { Agent, request } from "node:http";
import { createRequire } from "node:module";
import { createServer } from "node:http2";

const [port, stubPort, modules] = process.argv.slice(2);

// Older than Node.js 22: the SDK calls what is missing there.
Promise.withResolvers ??= function () {
  let resolve, reject;
  const promise = new this((yes, no) => { resolve = yes; reject = no; });
  return { promise, resolve, reject };
};

const restate = createRequire(`${modules}/`)("@restatedev/restate-sdk");
const agent = new Agent({ keepAlive: true });

// Do one step, or undo one.
function call(path, order, saga) {
  const body = JSON.stringify({ order });
  const headers = {
    "Content-Type": "application/json",
    "Content-Length": Buffer.byteLength(body),
    "Idempotency-Key": `"${saga}${path}"`,
  };
  return new Promise((resolve, reject) => {
    const options = { host: "127.0.0.1", port: stubPort, method: "POST", path, agent, headers };
    const sent = request(options, (answer) => {
      let text = "";
      answer.on("data", (part) => { text += part; });
      answer.on("error", reject);
      answer.on("end", () => {
        if (answer.statusCode === 200) resolve(JSON.parse(text));
        else if (answer.statusCode === 422) reject(new restate.TerminalError(path, { errorCode: 422 }));
        else reject(new Error(`${path} answered ${answer.statusCode}`));
      });
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

// Do all three, or undo what was done.
async function saga(ctx, { order, last }) {
  const number = ctx.request().id;
  const step = (path) => ctx.run(path, () => call(path, order, number));
  const done = [];
  try {
    for (const path of ["/charge", "/reserve", last]) {
      await step(path);
      done.push(path);
    }
  } catch (refused) {
    if (!(refused instanceof restate.TerminalError)) throw refused;
    for (const path of done.reverse()) await step(`/undo${path}`);
    return { status: "compensated" };
  }
  return { status: "done" };
}

const bench = restate.service({ name: "Bench", handlers: { saga } });
const handler = restate.createEndpointHandler({ services: [bench] });
createServer(handler).listen(Number(port), "127.0.0.1");
