// Starts a real nginx with the files of nginx/ in front of a program, with TLS and HTTP/2, as in a deployment.

import { execFile } from "node:child_process";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { start } from "./harness.mjs";
import { freePort } from "./redis.mjs";

const run = promisify(execFile);

/** The name in the certificate, and in `server_name`. */
export const NAME = "push.example.com";

/** Replaces texts in a file. Fails if the file does not contain one of them. */
async function change(path, changes) {
  let text = await readFile(path, "utf8");
  for (const [from, to] of changes) {
    if (!text.includes(from)) throw new Error(`${path} has no ${from}`);
    text = text.replaceAll(from, to);
  }
  await writeFile(path, text);
}

/**
 * Starts nginx in front of one or two nodes with these public addresses, and returns its `host:port`. It ends with the
 * test.
 */
export async function nginx(t, ...nodes) {
  const directory = await mkdtemp(join(tmpdir(), "holdfast-nginx-"));
  const address = `127.0.0.1:${await freePort()}`;
  await cp(fileURLToPath(new URL("../../nginx", import.meta.url)), directory, { recursive: true });
  await change(join(directory, "nginx.conf"), [
    ["user www-data;", `user ${userInfo().username};`],
    ["/run/nginx.pid", `${directory}/nginx.pid`],
    ["/var/log/nginx", directory],
    ["/var/lib/nginx", directory],
    ["/etc/ssl", directory],
    [" listen 443 ", ` listen ${address} `],
    ["worker_processes auto;", "worker_processes 1;"],
  ]);
  await change(join(directory, "nodes.conf"), [
    ["server 127.0.0.1:11000 ", `server ${new URL(nodes[0]).host} `],
    ["server 127.0.0.1:11010 ", `server ${new URL(nodes.at(-1)).host} `],
    ["server 127.0.0.1:11020 max_fails=0;", ""],
  ]);
  await run("openssl", [
    "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
    "-subj", `/CN=${NAME}`, "-addext", `subjectAltName=DNS:${NAME}`,
    "-out", `${directory}/${NAME}.pem`, "-keyout", `${directory}/${NAME}.key`,
  ]);

  // Debian has nginx in /usr/sbin, which may be missing in PATH.
  const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/usr/local/sbin` };
  const args = ["-p", directory, "-c", join(directory, "nginx.conf"), "-g", "daemon off;"];
  // Not SIGKILL: then the master could not stop its workers, and they would go on.
  const { stop, ready } = start({ t, command: "nginx", args, ending: "SIGTERM", env, stdio: "ignore" });
  t.after(async () => {
    await stop();
    await rm(directory, { recursive: true });
  });
  const accepts = () =>
    new Promise((resolve) => {
      const [host, port] = address.split(":");
      const socket = connect(port, host, () => (socket.destroy(), resolve(true))).on("error", () => resolve(false));
    });
  await ready("it accepts", accepts, () => "");
  return address;
}
